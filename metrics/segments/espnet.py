"""ESPNet (Mehta et al. 2018, arXiv 1803.06815) with p=2, q=8 and the light decoder.

An independent street-scene segmenter of 0.4 M parameters, released for CamVid and for Cityscapes; parameter names
are those of the released files.
Shapes: B pictures, C classes, H and W divisible by 8.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-3
DILATIONS = (1, 2, 4, 8, 16)


class ESPNet(nn.Module):
    """Logits (B,C,H,W) of RGB pictures (B,3,H,W) float in [0, 255].

    Args:
        num_classes: C.
        mean, std: of the training pictures, in the order blue, green, red, 0..255.
        fuse_pooled: the last convolution takes the 19 channels of level 1 joined with the pooled picture (CamVid file)
            instead of level 1's own 16 (Cityscapes file).
    """

    def __init__(self, *, num_classes: int, mean: tuple[float, ...], std: tuple[float, ...], fuse_pooled: bool) -> None:
        super().__init__()
        c = num_classes
        self.fuse_pooled = fuse_pooled
        self.mean: Tensor
        self.std: Tensor
        self.encoder = _Encoder(c)
        self.level3_C = _conv(131, c, 1)
        self.br = nn.BatchNorm2d(c, eps=EPS)
        self.conv = nn.Sequential(_conv_part((19 if fuse_pooled else 16) + c, c, 3) | _norm_part(c))
        self.up_l3 = nn.Sequential(nn.ConvTranspose2d(c, c, 2, stride=2, bias=False))
        self.combine_l2_l3 = nn.Sequential(_norm(2 * c), _Block(2 * c, c, residual=False))
        self.up_l2 = nn.Sequential(nn.ConvTranspose2d(c, c, 2, stride=2, bias=False), _norm(c))
        self.classifier = nn.ConvTranspose2d(c, c, 2, stride=2, bias=False)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        x = (rgb.flip(1) - self.mean) / self.std / 255  # BGR; divided by both, as the released networks were trained
        level1, pooled, level2, level3 = self.encoder(x)
        deep = self.up_l3(self.br(level3))
        middle = self.up_l2(self.combine_l2_l3(torch.cat([self.level3_C(level2), deep], 1)))
        logits: Tensor = self.classifier(self.conv(torch.cat([middle, pooled if self.fuse_pooled else level1], 1)))
        return logits


class _Encoder(nn.Module):
    """(B,3,H,W) -> level 1 (B,16,H/2), the same with the pooled picture (B,19,H/2), level 2 (B,131,H/4), (B,C,H/8)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.level1 = nn.Sequential(_conv_part(3, 16, 3, stride=2) | _norm_part(16))
        self.b1 = _norm(19)
        self.level2_0 = _DownSampler(19, 64)
        self.level2 = nn.Sequential(*(_Block(64, 64) for _ in range(2)))
        self.b2 = _norm(131)
        self.level3_0 = _DownSampler(131, 128)
        self.level3 = nn.Sequential(*(_Block(128, 128) for _ in range(8)))
        self.b3 = _norm(256)
        self.classifier = _conv(256, num_classes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        half = F.avg_pool2d(x, 3, stride=2, padding=1)
        quarter = F.avg_pool2d(half, 3, stride=2, padding=1)
        level1 = self.level1(x)
        pooled = self.b1(torch.cat([level1, half], 1))
        down2 = self.level2_0(pooled)
        level2 = self.b2(torch.cat([self.level2(down2), down2, quarter], 1))
        down3 = self.level3_0(level2)
        return level1, pooled, level2, self.classifier(self.b3(torch.cat([down3, self.level3(down3)], 1)))


class _Pyramid(nn.Module):
    """The efficient spatial pyramid without its normalisation: a reduction, five dilated convolutions, running sums."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int) -> None:
        super().__init__()
        n = channels_out // 5
        self.c1 = _conv(channels_in, n, 3 if stride == 2 else 1, stride=stride)
        self.d1 = _conv(n, channels_out - 4 * n, 3)
        self.d2, self.d4, self.d8, self.d16 = (_conv(n, n, 3, dilation=d) for d in DILATIONS[1:])

    def pyramid(self, x: Tensor) -> Tensor:
        reduced = self.c1(x)
        parts = [self.d1(reduced), self.d2(reduced)]
        for dilated in (self.d4, self.d8, self.d16):
            parts.append(parts[-1] + dilated(reduced))
        return torch.cat(parts, 1)


class _Block(_Pyramid):
    def __init__(self, channels_in: int, channels_out: int, *, residual: bool = True) -> None:
        super().__init__(channels_in, channels_out, stride=1)
        self.bn = _norm(channels_out)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.pyramid(x)
        out: Tensor = self.bn(x + y if self.residual else y)
        return out


class _DownSampler(_Pyramid):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, stride=2)
        self.bn = nn.BatchNorm2d(channels_out, eps=EPS)
        self.act = nn.PReLU(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.pyramid(x)))
        return out


def _conv_part(
    channels_in: int, channels_out: int, size: int, *, stride: int = 1, dilation: int = 1
) -> OrderedDict[str, nn.Module]:
    padding = (size - 1) // 2 * dilation
    conv = nn.Conv2d(channels_in, channels_out, size, stride, padding, dilation, bias=False)
    return OrderedDict[str, nn.Module](conv=conv)


def _norm_part(channels: int) -> OrderedDict[str, nn.Module]:
    return OrderedDict[str, nn.Module](bn=nn.BatchNorm2d(channels, eps=EPS), act=nn.PReLU(channels))


def _conv(channels_in: int, channels_out: int, size: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(_conv_part(channels_in, channels_out, size, stride=stride, dilation=dilation))


def _norm(channels: int) -> nn.Sequential:
    return nn.Sequential(_norm_part(channels))
