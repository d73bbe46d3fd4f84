"""The Gaussian blur of edge maps and of SSIM."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def gaussian_blur(x: Tensor, *, sigma: float, radius: int) -> Tensor:
    """Return x (B, 1, H, W) under a Gaussian of 2 radius + 1 pixels a side, where it lies inside of the picture.

    The result is smaller by `radius` on every side; pad x to keep the size.
    """
    offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    taps = torch.exp(-0.5 * (offsets / sigma) ** 2)
    taps = taps / taps.sum()
    return F.conv2d(F.conv2d(x, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
