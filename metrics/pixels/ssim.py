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


def ssim_terms(x: Tensor, y: Tensor, *, border: str, rows: slice | None = None) -> tuple[Tensor, Tensor]:
    """Return maps of SSIM (equation 13) and of its contrast-structure term, per pixel and channel, float64.

    Population (not sample) variances.

    Args:
        x, y: (B, C, H, W) in [0, 255].
        border: "mirrored" repeats the edge, as scikit-image does, and gives (B, C, H, W); "none" takes whole windows
            alone, and gives (B, C, H - 10, W - 10).
        rows: those of the maps that are wanted; None: all. Fifteen values per pixel of them are held at a time.

    Raises:
        DataError: a side is shorter than the window.
    """
    if min(x.shape[-2:]) < WINDOW:
        raise DataError(f"SSIM needs pictures of at least {WINDOW} pixels a side, got {tuple(x.shape[-2:])}")
    height = x.shape[-2] - (0 if border == "mirrored" else 2 * RADIUS)
    first, end, _ = (rows or slice(None)).indices(height)
    # float32 loses the small variances of flat regions
    x, y = (_windows(picture, first, end, border).double() for picture in (x, y))
    stack = torch.stack([x, y, x * x, y * y, x * y])
    blurred = gaussian_blur(stack.flatten(0, 2)[:, None], sigma=SIGMA, radius=RADIUS)
    mean_x, mean_y, xx, yy, xy = blurred.view(*stack.shape[:3], *blurred.shape[-2:])
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    contrast = (2 * cov + c2) / (var_x + var_y + c2)
    return contrast * (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1), contrast


def _windows(picture: Tensor, first: int, end: int, border: str) -> Tensor:
    """Return what the windows of rows `first` to `end` of the maps cover."""
    if border == "none":
        return picture[..., first : end + 2 * RADIUS, :]
    height, width = picture.shape[-2:]
    rows, columns = _mirrored(first - RADIUS, end + RADIUS, height), _mirrored(-RADIUS, width + RADIUS, width)
    return picture[..., rows.to(picture.device), :][..., columns.to(picture.device)]


def _mirrored(first: int, end: int, length: int) -> Tensor:
    """Return the places `first` to `end` along an axis, those beyond its ends mirrored with the edge repeated."""
    places = torch.arange(first, end)
    places = torch.where(places < 0, -1 - places, places)
    return torch.where(places >= length, 2 * length - 1 - places, places)
