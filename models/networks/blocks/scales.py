"""Sizes of a multi-scale network's stages, and resizing between them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def stage_sizes(crop_size: int, *, multi_scale: bool = True) -> list[int]:
    """Return a quarter, a half and the whole of the crop, in pixels, or the whole alone."""
    return [crop_size // 4, crop_size // 2, crop_size] if multi_scale else [crop_size]


def resize_nearest(x: Tensor, size: int) -> Tensor:
    """Nearest resizing to a size that divides x's: every n-th pixel."""
    step = x.shape[-1] // size
    return x[..., ::step, ::step]


def resize_bilinear(x: Tensor, size: int) -> Tensor:
    """Bilinear resizing as released: no antialiasing, corners not aligned."""
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
