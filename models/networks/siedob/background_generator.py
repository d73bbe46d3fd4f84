"""SIEDOB's background generator: a gated U-Net with semantic-aware self-propagation (SIEDOB, Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.blocks.gated import GatedUNet, ToPicture
from models.networks.blocks.spm import LEAK
from models.networks.siedob.saspm import SASPM
from util.shapes import check_shape

LEVELS = ((2, 2), (4, 4), (8, 8), (8, 16))


class BackgroundGenerator(nn.Module):
    """Fills the background; objects are cut out of everything that it sees of the labels.

    Args:
        label_nc: N, number of one-hot label channels.
        ngf: base width.
        saspm: False leaves self-propagation out (ablation).
        things: labels of the classes that never lend a style: those that are made of objects.
    """

    styled: Tensor

    def __init__(self, *, label_nc: int, ngf: int = 32, saspm: bool = True, things: Sequence[int] = ()) -> None:
        super().__init__()
        self.label_nc = label_nc
        refine = (lambda width: SASPM(width, label_nc=label_nc)) if saspm else None
        self.unet = GatedUNet(3 + label_nc + 1 + 1, ngf=ngf, levels=LEVELS, refine=refine)
        self.picture = ToPicture(ngf)
        styled = torch.tensor([label not in things for label in range(label_nc)])
        self.register_buffer("styled", styled, persistent=False)

    def forward(self, image: Tensor, seg: Tensor, edge: Tensor, mask: Tensor, background: Tensor) -> Tensor:
        """Return a picture (B, 3, S, S) in (-1, 1); S a multiple of 16.

        Args:
            image: (B, 3, S, S), zero where nothing is known.
            seg: (B, N, S, S) one-hot; edge: (B, 1, S, S). Both are cut by `background` here.
            mask: (B, 1, S, S), 1 = to be generated; taken as it is, as the image is.
            background: (B, 1, S, S), 0 on objects.
        """
        check_shape(image, (None, 3, None, image.shape[2]), "image")
        check_shape(seg, (None, self.label_nc, *image.shape[2:]), "seg")
        x = torch.cat([image, seg * background, edge * background, mask], dim=1)
        x = self.unet(x, seg, background, mask, self.styled)
        return self.picture(F.leaky_relu(x, LEAK))  # one activation more than the layer before has: as released
