"""Masks as image editors save them: in colours, with transparency, with soft edges, of another size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from util.decode import decode
from util.errors import DataError


@dataclass(frozen=True)
class MaskRule:
    """How a drawn mask is read.

    Args:
        threshold: grey levels from this on, 1 to 255, are generated.
        invert: black is generated instead of white.
        resize: scale a mask of another size to its picture's.
    """

    threshold: int = 128
    invert: bool = False
    resize: bool = False


WHITE = MaskRule()


def read_drawn_mask(path: Path, size: tuple[int, int], rule: MaskRule) -> tuple[np.ndarray, list[str]]:
    """Return a mask (H, W) of booleans, true where pixels are generated, and notes on what was done to it.

    Colours count by their luminance, transparent pixels as black. A map of 0 and 1 counts as one of 0 and 255.

    Args:
        path: the file.
        size: height and width of the picture.
        rule: see there.

    Raises:
        DataError: what `decode` refuses, or a mask of another size where `rule` does not scale it.
    """
    grey = grey_levels(decode(path, "mask").picture)
    notes = []
    if grey.size[::-1] != size:
        if not rule.resize:
            raise DataError(
                f"{path}: the mask is {grey.width}x{grey.height}, its picture is {size[1]}x{size[0]}; save it in that "
                "size, or let --resize_mask scale it"
            )
        notes.append(f"--mask {path}: scaled from {grey.width}x{grey.height} to {size[1]}x{size[0]}")
        grey = grey.resize(size[::-1], Image.Resampling.BILINEAR)
    levels = np.asarray(grey)
    between = int(((levels > 0) & (levels < 255)).sum())
    if between:
        share = 100 * between / levels.size
        notes.append(
            f"--mask {path}: {between} pixels ({share:.2g} %) are neither black nor white; those of level "
            f"{rule.threshold} and above count as white (--mask_threshold)"
        )
    return (levels >= rule.threshold) != rule.invert, notes


def grey_levels(picture: Image.Image) -> Image.Image:
    """Return a decoded mask as an image of mode L."""
    if picture.mode.startswith("I;16") or picture.mode == "I":
        values = np.asarray(picture).astype(np.int64)
        return Image.fromarray(
            (values * 255 if values.max(initial=0) <= 1 else values >> 8).clip(0, 255).astype(np.uint8)
        )
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture.convert("RGBA"))
    elif picture.mode == "L" and np.asarray(picture).max(initial=0) <= 1:
        return picture.point([0, *[255] * 255])
    return picture.convert("L")
