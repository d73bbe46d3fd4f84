"""Pictures, maps and masks as arrays: from arrays, PIL images, or files."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from data.edit.masks import WHITE, grey_levels
from data.records import MapRules
from util.decode import decode, upright
from util.errors import DataError
from util.images import ids_of, read_image, read_map, rgb_of

Source: TypeAlias = np.ndarray | Image.Image | str | Path


def picture_from(source: Source) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB; raises `DataError` for other arrays, and as `util.images.read_image` does."""
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise DataError(f"image: an array {source.shape} of {source.dtype}; (height, width, 3) of uint8 is needed")
        return source.copy()
    return rgb_of(upright(source), "image") if isinstance(source, Image.Image) else read_image(source)


def labels_from(source: Source, rules: MapRules) -> np.ndarray:
    """Return label ids (H, W) int32, of colours where the rules say so; raises `DataError` as `ids_from` does."""
    if rules.label_colours is None or (isinstance(source, np.ndarray) and source.ndim == 2):
        return ids_from(source, "label map")
    return rules.label_colours.ids(picture_from(source), name_of(source, "label"))


def ids_from(source: Source, what: str, *, rgb_ids: bool = False) -> np.ndarray:
    """Return ids (H, W) int32; raises `DataError` for other arrays, and as `util.images.read_id_map` does."""
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or not (source.dtype == bool or np.issubdtype(source.dtype, np.integer)):
            raise DataError(f"{what}: an array {source.shape} of {source.dtype}; (height, width) of integers is needed")
        if source.size and (source.min() < 0 or source.max() >= 1 << 31):
            raise DataError(f"{what}: ids from {source.min()} to {source.max()}; they are 0 or more, below 2^31")
        return source.astype(np.int32)
    if isinstance(source, Image.Image):
        return ids_of(source, what, what, rgb_ids=rgb_ids).ids
    return read_map(source, what, rgb_ids=rgb_ids)


def mask_from(source: Source) -> np.ndarray:
    """Return a mask (H, W) of booleans.

    Arrays have booleans, 0 and 1, or 0 and 255, and `DataError` is raised for others; files and PIL images are read as
    scripts/edit.py reads them.
    """
    if isinstance(source, np.ndarray):
        values = ids_from(source, "mask")
        if not (set(np.unique(values)) <= {0, 255} or values.max(initial=0) <= 1):
            raise DataError("mask: the array has values besides 0 and 255; set every pixel to one of them")
        return values > 0
    levels = grey_levels(upright(source) if isinstance(source, Image.Image) else decode(source, "mask").picture)
    return np.asarray(levels) >= WHITE.threshold


def name_of(source: Source | None, what: str) -> str:
    """Return the path of the file that a picture came from; `what` where there is none."""
    path = getattr(source, "filename", "") if isinstance(source, Image.Image) else source
    return str(path) if isinstance(path, (str, Path)) and str(path) else what
