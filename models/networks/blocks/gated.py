"""Gated convolutions, and the U-Net of them that SIEDOB's background, inpainting and fusion networks share.

A gate, learned per pixel and channel, lets a layer tell visible from erased pixels (gated convolution, Yu et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.blocks.enlarge import enlarged_convs
from models.networks.blocks.norm import instance_norm
from models.networks.blocks.recompute import through
from models.networks.blocks.spectral import SpectralConv2d
from models.networks.blocks.spm import LEAK


def norm_act(x: Tensor) -> Tensor:
    """Instance norm without parameters, then a leaky ReLU."""
    return F.leaky_relu(instance_norm(x), LEAK)


class ConvNorm(nn.Module):
    """Convolution, instance norm, leaky ReLU.

    Args:
        padding_mode: "zeros" (SIEDOB) or "replicate" (DivSem's style encoder).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        padding_mode: Literal["zeros", "replicate"] = "zeros",
    ) -> None:
        super().__init__()
        pad = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=pad, padding_mode=padding_mode)

    def forward(self, x: Tensor) -> Tensor:
        return norm_act(self.conv(x))


class ConvNormUp(ConvNorm):
    """Decoder layer: bilinear x2, the skip appended, then `ConvNorm`.

    Args:
        in_channels: of the features and the skip together.
    """

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), skip (B, K, 2H, 2W) or None -> (B, Cout, 2H, 2W)."""
        return norm_act(enlarged_convs(x, skip, [self.conv])[0])


class GatedConv(nn.Module):
    """3x3 convolution over reflected borders: features under norm and activation, times a gate in (0, 1).

    The two convolutions are separate: joining them gains nothing, and wide layers lose by copying weights.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.feature = nn.Conv2d(in_channels, out_channels, 3, stride)
        self.gate = nn.Conv2d(in_channels, out_channels, 3, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, Cin, H, W), H and W at least 2 -> (B, Cout, H/stride, W/stride)."""
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return norm_act(self.feature(x)) * torch.sigmoid(self.gate(x))


class GatedUp(nn.Module):
    """Decoder layer: bilinear x2, the skip appended, then a gated convolution under spectral norm, padded with zeros.

    Args:
        in_channels: of the features and the skip together.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.feature = SpectralConv2d(in_channels, out_channels, 3, padding=1)
        self.gate = SpectralConv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """x (B, C, H, W), skip (B, K, 2H, 2W) or None -> (B, Cout, 2H, 2W)."""
        feature, gate = enlarged_convs(x, skip, [self.feature, self.gate])
        return norm_act(feature) * torch.sigmoid(gate)


class GatedUNet(nn.Module):
    """Levels of gated convolutions, each half the size of the previous one, and back up with skips.

    Args:
        in_channels: of what is seen.
        ngf: width of the first and last layer.
        levels: widths of each level's layers in units of ngf; a level's first layer has stride 2.
        refine: builds the layer that follows an upsampling with a skip, given its width; None for none. It is called
            with the features and the further arguments of `forward`.
    """

    def __init__(
        self, in_channels: int, *, ngf: int, levels: Sequence[Sequence[int]],
        refine: Callable[[int], nn.Module] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem = ConvNorm(in_channels, ngf, kernel_size=7)
        self.down, self.up, self.refine = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width, skips = ngf, []
        for level in levels:
            layers = []
            for i, factor in enumerate(level):
                layers.append(GatedConv(width, factor * ngf, stride=2 if i == 0 else 1))
                width = factor * ngf
            self.down.append(nn.Sequential(*layers))
            skips.append(width)
        for skip in skips[-2::-1]:
            self.up.append(GatedUp(width + skip, skip))
            width = skip
            if refine:
                self.refine.append(refine(width))
        self.up.append(GatedUp(width, width))  # to full size, without a skip
        self.last = GatedConv(width, ngf)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """(B, in_channels, S, S) -> features (B, ngf, S, S); S a multiple of 2 to the number of levels."""
        x, skips = through(self.stem, x), []
        for level in self.down:
            x = through(level, x)
            skips.append(x)
        skips.pop()
        for k, up in enumerate(self.up):
            x = through(up, x, skips.pop() if skips else None)
            if k < len(self.refine):
                x = through(self.refine[k], x, *context)
        return through(self.last, x)


class ToPicture(nn.Conv2d):
    """The last layer of a generator: 3x3 convolution to RGB in (-1, 1), without bias."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, 3, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x).float())  # bf16 would leave half a grey level near white
