"""Geometry on uint8 pictures and id maps."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data.records import Maps
from util.decode import MOST_PIXELS
from util.errors import DataError


def nearest(ids: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale a map (H, W) of ids; each new pixel takes the id under its centre."""
    picture = Image.fromarray(ids.astype(np.int32))
    return np.array(picture.resize((width, height), Image.Resampling.NEAREST)).astype(ids.dtype)


def scale_short_side(maps: Maps, size: int, *, name: str = "") -> Maps:
    """Scale so that the short side is `size` pixels, picture by LANCZOS (antialiased), maps by nearest; 0: as it is.

    Raises:
        DataError: the scaled picture, of a long thin strip, would exceed the largest picture that is read.
    """
    height, width = maps.label.shape
    if size == 0 or min(height, width) == size:
        return maps
    new_h, new_w = (max(size, round(side * size / min(height, width))) for side in (height, width))
    if new_h * new_w > MOST_PIXELS:
        raise DataError(f"{name or 'a picture'}: {width}x{height}, too long a strip: with a short side of {size} "
                        f"pixels it would be {new_w}x{new_h}; cut it into parts")  # fmt: skip
    image = np.array(Image.fromarray(maps.image).resize((new_w, new_h), Image.Resampling.LANCZOS))
    inst = None if maps.inst is None else nearest(maps.inst, new_h, new_w)
    return Maps(image, nearest(maps.label, new_h, new_w), inst)
