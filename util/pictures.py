"""Users' pictures, from a file or folder, and their sizes for networks that take multiples of some pixels."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from util.decode import decode
from util.errors import DataError, UserError
from util.images import PictureFile, rgb_of
from util.listing import files_by_name

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
DEEP = ("I;16", "I;16L", "I;16B")  # modes of 16-bit grey


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


class Photo(NamedTuple):
    """A picture (H, W, 3) uint8 RGB, and its alpha (H, W) uint8; None: it is opaque."""

    rgb: np.ndarray
    alpha: np.ndarray | None


def read_photo(path: PictureFile) -> Photo:
    """Return a picture turned as its EXIF orientation says; of 16 bit the upper 8, as Pillow does for colours.

    Raises:
        DataError: what `decode` refuses, or a picture of another kind, such as one of floats.
    """
    picture, alpha = decode(path, "picture").picture, None
    if picture.mode in DEEP:
        picture = Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        alpha = np.array(picture.getchannel("A"))
    opaque = alpha is None or alpha.min() == 255
    return Photo(rgb_of(picture, path), None if opaque else alpha)


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
