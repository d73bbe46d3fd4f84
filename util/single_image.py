"""Batches of single-picture data sets, and the strips of pictures that their tests save."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from torch import Tensor

from util.images import picture_grid, to_uint8

TITLES = ("source", "source layout", "target layout", "result")


class SingleImageBatch(TypedDict):
    """A source and a target with their layouts, B = 1; the target's picture is the source's where it is not known.

    image, target_image (1, 3, H, W) and seg, target_seg (1, N, H, W) float32 in [-1, 1]; label, target_label
    (1, H, W) int64 classes; layout, target_layout (1, 3, H, W) float32, the layouts as pictures, to be shown.
    """

    image: Tensor
    seg: Tensor
    label: Tensor
    layout: Tensor
    target_image: Tensor
    target_seg: Tensor
    target_label: Tensor
    target_layout: Tensor
    name: list[str]
    index: list[int]


def picture_row(batch: SingleImageBatch, result: Tensor) -> list[np.ndarray]:
    """Return source, its layout, target layout and result (1, 3, H, W) as pictures (H, W, 3) uint8."""
    pictures = (batch["image"], batch["layout"], batch["target_layout"], result)
    return [to_uint8(picture[0].cpu()) for picture in pictures]


def picture_strip(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Lay out rows of `picture_row` under their titles."""
    return picture_grid(rows, titles=TITLES)
