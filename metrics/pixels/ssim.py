"""Structural similarity and its parts (Wang et al. 2004), of pictures in [0, 255].

Shapes: B pictures of C channels, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from util.errors import DataError
from util.gaussian import gaussian_blur

SIGMA, RADIUS = 1.5, 5
WINDOW = 2 * RADIUS + 1  # pixels a side


def ssim_terms(x: Tensor, y: Tensor, *, border: str) -> tuple[Tensor, Tensor]:
    """Return maps of SSIM (equation 13) and of its contrast-structure term, per pixel and channel, float64.

    Population (not sample) variances.

    Args:
        x, y: (B, C, H, W) in [0, 255].
        border: "mirrored" repeats the edge, as scikit-image does, and gives (B, C, H, W); "none" takes whole windows
            alone, and gives (B, C, H - 10, W - 10).

    Raises:
        DataError: a side is shorter than the window.
    """
    if min(x.shape[-2:]) < WINDOW:
        raise DataError(f"SSIM needs pictures of at least {WINDOW} pixels a side, got {tuple(x.shape[-2:])}")
    x, y = x.double(), y.double()  # float32 loses the small variances of flat regions
    stack = torch.stack([x, y, x * x, y * y, x * y])
    if border == "mirrored":
        stack = _mirrored(_mirrored(stack, -2), -1)
    blurred = gaussian_blur(stack.flatten(0, 2)[:, None], sigma=SIGMA, radius=RADIUS)
    mean_x, mean_y, xx, yy, xy = blurred.view(*stack.shape[:3], *blurred.shape[-2:])
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    contrast = (2 * cov + c2) / (var_x + var_y + c2)
    return contrast * (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1), contrast


def _mirrored(stack: Tensor, axis: int) -> Tensor:
    """Lengthen an axis by `RADIUS` at both ends, with the edge repeated; torch pads without."""
    start, end = stack.narrow(axis, 0, RADIUS), stack.narrow(axis, -RADIUS, RADIUS)
    return torch.cat([start.flip(axis), stack, end.flip(axis)], axis)
