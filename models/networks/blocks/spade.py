"""Spatially adaptive normalisation (SPADE, Park et al. 2019) and SIEDOB's residual blocks.

Shapes: B batch, C features, K channels of the condition, D width of a style code, S x S pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.blocks.scales import resize_nearest
from models.networks.blocks.spm import LEAK, joined_conv

REACH = 2  # pixels: how far the border's zeros reach in through two 3x3 convolutions


class SPADE(nn.Module):
    """Instance norm, then scale and shift by maps that a condition gives.

    Args:
        channels: C; condition_channels: K; hidden: width between the condition and its maps.
    """

    def __init__(self, channels: int, condition_channels: int, *, hidden: int = 128) -> None:
        super().__init__()
        self.shared = nn.Conv2d(condition_channels, hidden, 3, padding=1)
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def maps(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Return scale and shift (B, C, S, S) for a condition (B, K, S, S)."""
        return joined_conv(F.relu(self.shared(condition)), [self.gamma, self.beta])

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, C, S, S), condition (B, K, n S, n S) -> (B, C, S, S)."""
        gamma, beta = self.maps(resize_nearest(condition, x.shape[-1]))
        return F.instance_norm(x, eps=1e-5) * (1 + gamma) + beta


class CodeSPADE(SPADE):
    """SPADE whose condition is one code, the same at every pixel.

    Its maps differ only near the border, where the convolutions see zeros. They are made at 5 x 5 pixels and their
    middle repeated: equal to the maps of the spread code, at a fraction of the cost.
    """

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, C, S, S), condition (B, D) -> (B, C, S, S)."""
        size = x.shape[-1]
        small = min(size, 2 * REACH + 1)
        gamma, beta = self.maps(condition[:, :, None, None].expand(-1, -1, small, small))
        return F.instance_norm(x, eps=1e-5) * (1 + stretched(gamma, size)) + stretched(beta, size)


def stretched(x: Tensor, size: int) -> Tensor:
    """Repeat the middle row and column of x (B, C, 5, 5) until it has `size` pixels; a smaller x is at its size."""
    for dim in (2, 3):
        middle = x.narrow(dim, x.shape[dim] // 2, 1)
        repeats = [-1, -1, -1, -1]
        repeats[dim] = size - 2 * REACH
        if x.shape[dim] < size:
            head, tail = x.narrow(dim, 0, REACH), x.narrow(dim, x.shape[dim] - REACH, REACH)
            x = torch.cat([head, middle.expand(repeats), tail], dim)
    return x


def padded_norm(x: Tensor) -> Tensor:
    """Pad with zeros, then instance norm: its statistics count the padding (as released)."""
    return F.instance_norm(F.pad(x, (1, 1, 1, 1)), eps=1e-5)


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the width changes."""

    def __init__(self, channels: int, out_channels: int | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3)
        self.conv2 = nn.Conv2d(channels, out_channels or channels, 3)
        self.shortcut = nn.Conv2d(channels, out_channels, 1, bias=False) if out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.conv1(padded_norm(x)), LEAK)
        return self.shortcut(x) + self.conv2(padded_norm(hidden))


class StyleSPADEBlock(nn.Module):
    """Semantic-style normalisation (SSNM): residual block modulated by the class map, then by the style code.

    Args:
        channels: C; class_channels: of the class map; style_dim: D.
    """

    def __init__(self, channels: int, class_channels: int, style_dim: int) -> None:
        super().__init__()
        self.class_norm = SPADE(channels, class_channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.style_norm = CodeSPADE(channels, style_dim)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, cls: Tensor, code: Tensor) -> Tensor:
        """x (B, C, S, S), cls (B, K, n S, n S), code (B, D) -> (B, C, S, S)."""
        hidden = self.conv1(F.leaky_relu(self.class_norm(x, cls), LEAK))
        return x + self.conv2(F.leaky_relu(self.style_norm(hidden, code), LEAK))
