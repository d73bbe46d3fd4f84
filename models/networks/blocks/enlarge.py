"""Convolutions of enlarged maps.

Decoders enlarge a map bilinearly, append a skip and convolve. Enlarging is itself a convolution: of the map with zeros
between its pixels, by [1 3 3 1] / 4 along each axis. As convolutions commute, the layer's own can come first, where
three of four pixels are zero: a transposed convolution, which costs a quarter, and then the smoothing.

Shapes: B batch, C channels of the map, E of the skip, K of the output, H x W pixels of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.blocks.spectral import SpectralConv2d

SMOOTHING = (0.25, 0.75, 0.75, 0.25)
LEAST = 8  # pixels: below, a layer's time is that of reading its weights


def upsample2(x: Tensor) -> Tensor:
    """Bilinear x2 without aligned corners."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def enlarged_convs(x: Tensor, skip: Tensor | None, convs: Sequence[nn.Conv2d | SpectralConv2d]) -> list[Tensor]:
    """Apply 3x3 convolutions to [x enlarged, skip].

    Args:
        x: (B, C, H, W); skip: (B, E, 2H, 2W) or None.
        convs: of C + E channels, padded by 1 with zeros or replicated borders.

    Returns:
        (B, K, 2H, 2W) of each.
    """
    if x.device.type == "cpu" and min(x.shape[2:]) >= LEAST and not torch.is_autocast_enabled("cpu"):
        return [commuted_conv(x, skip, conv) for conv in convs]
    x = upsample2(x)
    joined = x if skip is None else torch.cat([x, skip], dim=1)
    return [conv(joined) for conv in convs]


def commuted_conv(x: Tensor, skip: Tensor | None, conv: nn.Conv2d | SpectralConv2d) -> Tensor:
    """As `enlarged_convs` for one convolution, which comes before the smoothing; equal up to rounding."""
    weight = conv.normalised_weight() if isinstance(conv, SpectralConv2d) else conv.weight
    weight, of_skip = weight.split([x.shape[1], weight.shape[1] - x.shape[1]], dim=1)
    spread = F.conv_transpose2d(
        F.pad(x, (1, 1, 1, 1), mode="replicate"), weight.flip(2, 3).transpose(0, 1), stride=2, padding=1
    )
    out = Smoothing.apply(spread)  # of a map that goes on beyond its borders
    replicate = conv.padding_mode == "replicate"
    if not replicate:
        out = BorderSubtraction.apply(out, *of_borders(x, weight))
    if skip is None:
        return out if conv.bias is None else out + conv.bias[:, None, None]
    if replicate:
        skip = F.pad(skip, (1, 1, 1, 1), mode="replicate")
    return out + F.conv2d(skip, of_skip, conv.bias, padding=0 if replicate else 1)


class Smoothing(torch.autograd.Function):
    """Convolution of each channel (B, K, H, W) by [1 3 3 1] / 4 along both axes, without padding.

    Its gradient is the same convolution, padded: PyTorch's own takes seven times as long on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return (B, K, H - 3, W - 3)."""
        return smoothed(x, padding=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Return the gradient of x."""
        return smoothed(grad, padding=3)


def smoothed(x: Tensor, *, padding: int) -> Tensor:
    """Convolve each channel, padded with zeros."""
    taps = x.new_tensor(SMOOTHING)
    return F.conv2d(x, torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4), padding=padding, groups=x.shape[1])


def of_borders(x: Tensor, weight: Tensor) -> list[Tensor]:
    """Return what replicated borders of x (B, C, H, W), enlarged, add to its convolution by weight (K, C, 3, 3).

    To the first and last rows (B, K, 2W), then to the columns (B, K, 2H).
    """
    added = []
    for dim in (2, 3):
        for edge, tap in ((0, 0), (-1, 2)):
            line = F.interpolate(x.select(dim, edge), scale_factor=2, mode="linear", align_corners=False)
            if dim == 2:  # with the corners
                added.append(F.conv1d(F.pad(line, (1, 1), mode="replicate"), weight[:, :, tap]))
            else:
                added.append(F.conv1d(line, weight[:, :, :, tap], padding=1))
    return added


class BorderSubtraction(torch.autograd.Function):
    """Subtract lines from the borders of a map, in place: PyTorch's own gradient would copy the map for each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *lines: Tensor) -> Tensor:
        """Return x (B, K, H, W) less the first and last row (B, K, W) and column (B, K, H)."""
        ctx.mark_dirty(x)
        for border, line in zip(borders(x), lines, strict=True):
            border.sub_(line)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of the map and the lines."""
        return (grad, *(-border for border in borders(grad)))


def borders(x: Tensor) -> list[Tensor]:
    """Return views of the first and last row and column."""
    return [x[:, :, 0], x[:, :, -1], x[..., 0], x[..., -1]]
