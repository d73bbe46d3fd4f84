"""Blocks of SemIA's generator (ACM MM 2020; released code, commit 875b2c7).

Every convolution is spectrally normalised; tensors have the released names, hence the numbered `Sequential`s.
Shapes: B batch, C channels, H x W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.blocks.spectral import EPS, SpectralConv2d

SLOPE = 0.2  # of LeakyReLU
FILM_EPS = 1e-5


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the 1 x 1 convolution of x.

    On one CPU thread PyTorch has a routine of its own for these, which brings channels_last pictures into the other
    order and back; with a dilation, which means nothing to a single pixel, it does not take it.
    """
    channels_last = x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, weight, bias, dilation=2 if channels_last else 1)


class SpectralPoint2d(SpectralConv2d):
    """1 x 1 convolution under spectral normalisation."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.normalised_weight(), self.bias)


class Point2d(nn.Conv2d):
    """1 x 1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)


class SpectralConvTranspose2d(SpectralConv2d):
    """Transposed convolution 4 x 4 of stride 2 under spectral normalisation; a row of the matrix per output channel."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(out_channels, in_channels, 4, stride=2, padding=1)
        # The stored weight is (in, out, k, k), and so u counts outputs, v the rest.
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("weight_u", F.normalize(torch.randn(out_channels), dim=0, eps=EPS))
        self.register_buffer("weight_v", F.normalize(torch.randn(in_channels * 16), dim=0, eps=EPS))

    def by_output(self) -> Tensor:
        return self.weight_orig.transpose(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.normalised_weight().transpose(0, 1), self.bias, self.stride, self.padding)


def leaky() -> nn.LeakyReLU:
    """Return the activation of all its networks."""
    return nn.LeakyReLU(SLOPE)


class ConvBlock(nn.Module):
    """Mirrored padding, convolution k x k without bias, batch normalisation, LeakyReLU (released: CBB)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ReflectionPad2d((kernel_size - 1) // 2),
            SpectralConv2d(in_channels, out_channels, kernel_size, bias=False),
            nn.BatchNorm2d(out_channels),
            leaky(),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.main(x)
        return out


class ResBlock(nn.Module):
    """x plus a bottleneck of a quarter of the channels; `norm` off: without batch normalisation."""

    def __init__(self, channels: int, *, norm: bool) -> None:
        super().__init__()
        inner = channels // 4

        def after(width: int, *, active: bool = True) -> list[nn.Module]:
            return [*([nn.BatchNorm2d(width)] if norm else []), *([leaky()] if active else [])]

        self.conv_block = nn.Sequential(
            SpectralPoint2d(channels, inner), *after(inner),
            nn.ReflectionPad2d(1), SpectralConv2d(inner, inner, 3), *after(inner),
            SpectralPoint2d(inner, channels), *after(channels, active=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv_block(x)
        return out


class Rescale(nn.Module):
    """Residual block, 3 x 3 convolution, then 4 x 4 of stride 2: halves the size and doubles the channels, or back."""

    def __init__(self, channels: int, *, up: bool) -> None:
        super().__init__()
        out = channels // 2 if up else channels * 2
        last = SpectralConvTranspose2d(channels, out) if up else SpectralConv2d(channels, out, 4, stride=2, padding=1)
        self.res_block = ResBlock(channels, norm=True)
        self.main = nn.Sequential(
            SpectralConv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), leaky(),
            last, nn.BatchNorm2d(out), leaky(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.main(self.res_block(x))
        return out


class TranslationHead(nn.Module):
    """Turns a change of a segmentation feature (B, C, h, w) into a scale or shift of the image feature."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.bottlenecks = nn.ModuleList(
            nn.Sequential(
                ResBlock(width, norm=False),
                SpectralPoint2d(width, width // 2),
                nn.ReLU(),
                SpectralPoint2d(width // 2, width),
            )
            for width in widths
        )

    def forward(self, changes: list[Tensor]) -> list[Tensor]:
        return [head(change) for head, change in zip(self.bottlenecks, changes, strict=True)]


def film(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Return alpha * (x - mean) / deviation + beta; mean and unbiased variance of each channel over its pixels."""
    var, mean = torch.var_mean(x, dim=(2, 3), keepdim=True)
    return alpha * ((x - mean) / (var + FILM_EPS).sqrt()) + beta
