"""DivSem's style encoder: a U-Net from a picture and its validity to a code per pixel (DivSem, Sec. 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.networks.blocks.gated import ConvNorm, ConvNormUp
from models.networks.blocks.recompute import through
from models.networks.cascade.mask_aware import PAPER, MaskAwareEncoder, StylePolicy


def style_conv(in_channels: int, out_channels: int, *, stride: int = 1) -> ConvNorm:
    """Return a 3x3 layer with replicated borders."""
    return ConvNorm(in_channels, out_channels, stride=stride, padding_mode="replicate")


def style_up(in_channels: int, out_channels: int) -> ConvNormUp:
    """Return such a layer at twice the size, with a skip."""
    return ConvNormUp(in_channels, out_channels, padding_mode="replicate")


class StyleEncoder(MaskAwareEncoder):
    """Layers of `MaskAwareEncoder`; pictures have sides that are multiples of 16.

    Args:
        nef: width of the first layer; the others are its multiples (16 gives the released widths).
    """

    def __init__(self, *, style_dim: int = 128, nef: int = 16, policy: StylePolicy = PAPER) -> None:
        super().__init__(style_dim=style_dim, policy=policy)
        self.enc1 = style_conv(4, nef)
        self.enc2 = style_conv(nef, 2 * nef, stride=2)
        self.enc3 = style_conv(2 * nef, 4 * nef, stride=2)
        self.enc4 = style_conv(4 * nef, 8 * nef, stride=2)
        self.enc5 = style_conv(8 * nef, 16 * nef, stride=2)
        self.enc6 = style_conv(16 * nef, 32 * nef)
        self.dec5 = style_up((32 + 8) * nef, 32 * nef)
        self.dec4 = style_up((32 + 4) * nef, 16 * nef)
        self.dec3 = style_up((16 + 2) * nef, 16 * nef)
        self.dec2 = style_up((16 + 1) * nef, 16 * nef)
        self.dec1 = nn.Conv2d(16 * nef, style_dim, 3, padding=1, padding_mode="replicate", bias=False)

    def pixel_codes(self, image: Tensor, valid: Tensor) -> Tensor:
        """As the base, in (-1, 1)."""
        e1 = through(self.enc1, torch.cat([image * valid, valid], dim=1))
        e2 = through(self.enc2, e1)
        e3 = through(self.enc3, e2)
        e4 = through(self.enc4, e3)
        x = through(self.enc6, through(self.enc5, e4))
        for layer, skip in ((self.dec5, e4), (self.dec4, e3), (self.dec3, e2), (self.dec2, e1)):
            x = through(layer, x, skip)
        return torch.tanh(self.dec1(x).float())
