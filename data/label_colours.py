"""Label maps painted in colours, a colour per class, as pix2pix and many drawing programs have them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from util.class_table import ClassTable
from util.decode import decode
from util.errors import DataError
from util.images import PictureFile, rgb_of

SHOWN = 4  # colours in a message
_COLOURED_NAME = re.compile(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(\S.*)")


@dataclass(frozen=True)
class LabelColours:
    """Which colour is which class.

    Args:
        palette: (r, g, b) of each class; of two equal ones the lower id is meant.
        source: the file that says so, for messages.
        tolerance: distance in RGB up to which a colour counts as the nearest class's.
    """

    palette: tuple[tuple[int, int, int], ...]
    source: str
    tolerance: float = 0.0

    @classmethod
    def of(cls, table: ClassTable, source: object, tolerance: float = 0.0) -> Self:
        """Return the colours of a class table."""
        return cls(tuple((int(r), int(g), int(b)) for r, g, b in table.palette), str(source), tolerance)

    def read(self, path: PictureFile) -> np.ndarray:
        """Return the ids (H, W) int32 of a label map; raises `DataError` as `ids` and `read_image` do."""
        return self.ids(rgb_of(decode(path, "label map").picture, path), str(path))

    def ids(self, rgb: np.ndarray, name: str) -> np.ndarray:
        """Return the ids (H, W) int32 of colours (H, W, 3) uint8.

        Raises:
            DataError: colours that no class has; `name` says of which map.
        """
        codes, places, counts = np.unique(
            rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1]), return_inverse=True, return_counts=True
        )
        colours = np.stack([codes >> 16, (codes >> 8) & 255, codes & 255], 1)
        nearest = np.zeros(len(codes), np.int32)
        squared = np.full(len(codes), np.iinfo(np.int64).max)
        for number, colour in enumerate(self.palette):
            distance = ((colours - colour) ** 2).sum(1)
            closer = distance < squared
            nearest[closer], squared[closer] = number, distance[closer]
        far = np.flatnonzero(squared > self.tolerance**2)
        if len(far):
            first = far[np.argsort(-counts[far], kind="stable")[:SHOWN]]
            shown = ", ".join(f"{tuple(colours[k].tolist())} ({counts[k]} pixels)" for k in first)
            more = f" and {len(far) - SHOWN} more" if len(far) > SHOWN else ""
            raise DataError(
                f"{name}: the label map has colours that no class of {self.source} has: {shown}{more}. Enter them "
                "there; where borders are soft or the file is a JPEG, --color_tolerance N takes the nearest class's "
                "colour up to a distance of N in RGB, as 40"
            )
        return nearest[places].reshape(rgb.shape[:2])


def coloured_name(line: str) -> tuple[str, tuple[int, int, int] | None]:
    """Return name and colour of a line "128 64 128 road", or "road"; raises `ValueError` for values above 255."""
    match = _COLOURED_NAME.fullmatch(line)
    if match is None:
        return line, None
    red, green, blue = (int(text) for text in match.groups()[:3])
    if max(red, green, blue) > 255:
        raise ValueError(f"'{line}': colours go from 0 to 255")
    return match[4], (red, green, blue)


def stored_palette(path: Path) -> np.ndarray | None:
    """Return the colours (n, 3) uint8 that a label map's own palette shows its ids in; None for one without."""
    picture: Image.Image = decode(path, "label map").picture
    stored = picture.getpalette("RGB") if picture.mode == "P" else None
    return None if stored is None else np.array(stored, np.uint8).reshape(-1, 3)
