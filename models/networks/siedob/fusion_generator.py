"""SIEDOB's fusion network: harmonises the pasted objects with the background (SIEDOB, Sec. 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.networks.blocks.gated import GatedUNet, ToPicture

LEVELS = ((2, 2), (4, 4), (8, 8))


class FusionGenerator(nn.Module):
    """A gated U-Net that adds a correction under the mask.

    Args:
        ngf: base width.
    """

    def __init__(self, *, ngf: int = 32) -> None:
        super().__init__()
        self.unet = GatedUNet(3 + 1 + 1, ngf=ngf, levels=LEVELS)
        self.picture = ToPicture(ngf)

    def forward(self, image: Tensor, mask: Tensor, edge: Tensor) -> Tensor:
        """Return a picture (B, 3, S, S) in (-2, 2), equal to `image` where the mask is 0; S a multiple of 8.

        Args:
            image: (B, 3, S, S), the recomposed picture.
            mask: (B, 1, S, S), 1 = generated; edge: (B, 1, S, S) of the instances under the mask.
        """
        return self.picture(self.unet(torch.cat([image, mask, edge], dim=1))) * mask + image
