"""Pictures from a file or folder, and their sizes for networks that take multiples of some number of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from util.errors import DataError, UserError
from util.listing import files_by_name

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def find_pictures(place: str, flag: str) -> dict[str, Path]:
    """Return {base name: file} of one picture, or of a folder's pictures sorted by name.

    Raises:
        UserError: nothing is there.
        DataError: two pictures of a folder have one base name.
    """
    path = Path(place)
    if path.is_file():
        return {path.stem: path}
    if not path.is_dir():
        raise UserError(f"{flag} {path}: no such file or folder")
    problems: list[str] = []
    by_name = files_by_name(path, ENDINGS, problems)
    if problems:
        raise DataError(problems[0])
    if not by_name:
        raise UserError(f"{flag} {path}: no picture there ({', '.join(ENDINGS)})")
    return by_name


def canvas_size(width: int, height: int, *, side: int, multiple: int, keep_aspect: bool) -> tuple[int, int]:
    """Return (width, height) to compute at: multiples of `multiple`, the short side `side` rounded to one.

    Without `keep_aspect` it is a square.
    """

    def whole(length: float) -> int:
        return max(1, round(length / multiple)) * multiple

    if not keep_aspect:
        return whole(side), whole(side)
    scale = side / min(width, height)
    return whole(width * scale), whole(height * scale)


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture (H, W, 3) or (H, W) uint8 in another size (width, height), by LANCZOS."""
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.LANCZOS))


def shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 so that neither side is longer than `side`: itself, or scaled by LANCZOS."""
    height, width = picture.shape[:2]
    scale = min(1, side / max(height, width))
    return resized(picture, (max(1, round(scale * width)), max(1, round(scale * height))))
