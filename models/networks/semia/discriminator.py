"""SemIA's discriminator (of CC-FPSE): two score maps, at a quarter and an eighth of the size, by a feature pyramid.

Without labels. Levels that the release builds and never calls are left out. Shapes: B pictures, H x W pixels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.blocks.spectral import SpectralConv2d
from models.networks.semia.blocks import Point2d, SpectralPoint2d, leaky


def _unit(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    conv = (
        SpectralPoint2d(in_channels, out_channels, bias=False)
        if kernel_size == 1
        else SpectralConv2d(in_channels, out_channels, kernel_size, stride=stride, padding=1, bias=False)
    )
    return nn.Sequential(nn.Sequential(conv), nn.InstanceNorm2d(out_channels), leaky())


class PyramidDiscriminator(nn.Module):
    """Scores and features of pictures.

    Args:
        ndf: base width.
    """

    def __init__(self, *, ndf: int = 64) -> None:
        super().__init__()
        self.enc1 = _unit(3, ndf, 3, 2)
        self.enc2 = _unit(ndf, 2 * ndf, 3, 2)
        self.enc3 = _unit(2 * ndf, 4 * ndf, 3, 2)
        self.lat2, self.lat3 = _unit(2 * ndf, 4 * ndf, 1), _unit(4 * ndf, 4 * ndf, 1)
        self.final2, self.final3 = _unit(4 * ndf, 2 * ndf, 3), _unit(4 * ndf, 2 * ndf, 3)
        self.tf = Point2d(2 * ndf, 1)

    def forward(self, pictures: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return scores [(B, 1, H/4, W/4), (B, 1, H/8, W/8)] and the features of the same sizes."""
        fine = self.enc2(self.enc1(pictures))
        coarse = self.enc3(fine)
        pyramid_coarse = self.lat3(coarse)
        raised = F.interpolate(pyramid_coarse, scale_factor=2, mode="bilinear", align_corners=True)
        pyramid_fine = raised + self.lat2(fine)
        scores = [self.tf(self.final2(pyramid_fine)), self.tf(self.final3(pyramid_coarse))]
        return scores, [fine, coarse]
