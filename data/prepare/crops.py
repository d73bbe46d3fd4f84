"""Crops of single objects: the picture that they are cut from, and how picture and mask are scaled.

Shapes: H x W pixels of the scene; a box is top, bottom, left, right, without the last row and column.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from data.base_dataset import BaseDataset
from data.folder import FolderDataset
from data.packed import PackedRecords
from data.records import PICTURE_ENDINGS, Maps
from util.errors import DataError
from util.images import read_image

HIRES = "images2048"


def open_picture(scenes: BaseDataset, index: int, maps: Maps) -> tuple[np.ndarray, str]:
    """Return the picture to cut from and what it is: that of images2048/ if the folder exists, else the scene's own."""
    height, width = maps.label.shape
    if not isinstance(scenes, FolderDataset):
        return maps.image, f"the scenes as drawn ({width}x{height})"
    if isinstance(scenes.records, PackedRecords):
        return maps.image, f"the packed pictures ({width}x{height})"
    folder = scenes.records[index].image.parents[1] / HIRES
    if not folder.is_dir():
        return maps.image, f"the stored pictures ({width}x{height}), there is no {HIRES}/"
    name = scenes.names[index]
    path = next((p for end in PICTURE_ENDINGS if (p := folder / f"{name}{end}").is_file()), None)
    if path is None:
        raise DataError(f"{folder} has no picture of {name}; complete it, or remove the folder to cut smaller pictures")
    image = read_image(path)
    factor = image.shape[0] // height
    if factor < 1 or image.shape[:2] != (factor * height, factor * width):
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise DataError(f"{path}: {size} is not a multiple of the maps' size, {width}x{height}")
    return image, f"{HIRES}/, {factor} times the maps' size"


def cut_mask(where: np.ndarray, box: Sequence[int], height: int, width: int) -> np.ndarray:
    """Cut a mask (H, W) and scale it by nearest: pixel i is from i * length // size, as OpenCV and PyTorch take it."""
    top, bottom, left, right = box
    rows = top + np.arange(height) * (bottom - top) // height
    columns = left + np.arange(width) * (right - left) // width
    return where[rows[:, None], columns].astype(np.uint8)


def cut_image(image: np.ndarray, box: Sequence[int], height: int, width: int) -> np.ndarray:
    """Cut a picture (H, W, 3) uint8 and scale it bilinearly, without smoothing, as the authors' crops.

    Halves are common, and go to the even level on every processor: they are recognised by rounding twice.
    """
    top, bottom, left, right = box
    cut = torch.from_numpy(image[top:bottom, left:right]).movedim(-1, 0)[None].double()
    scaled = F.interpolate(cut, size=(height, width), mode="bilinear", align_corners=False)
    return scaled[0].mul(2**32).round().div(2**32).round().to(torch.uint8).movedim(0, -1).numpy()
