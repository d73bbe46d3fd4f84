"""DivSem with another style encoder: dilated convolutions at half of the picture's size in place of the U-Net."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from models import MODELS
from models.divsem_model import DivSemModel
from models.networks.blocks.enlarge import upsample2
from models.networks.blocks.gated import ConvNorm, norm_act
from models.networks.cascade.mask_aware import MaskAwareEncoder, StylePolicy
from util.flags import positive_int
from util.opt import Opt

WIDTH = 8  # of all layers, in units of --nef


class DilatedEncoder(MaskAwareEncoder):
    """Residual layers of one width, each of which looks twice as far as the one before; no skip, no further stride.

    Args:
        width: channels of every layer.
        layers: their number; layer k has dilation 2^k.
    """

    def __init__(self, *, style_dim: int, width: int, layers: int, policy: StylePolicy) -> None:
        super().__init__(style_dim=style_dim, policy=policy)
        self.head = ConvNorm(4, width, stride=2, padding_mode="replicate")
        self.body = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=2**k, dilation=2**k, padding_mode="replicate") for k in range(layers)
        )
        self.tail = nn.Conv2d(width, style_dim, 1)

    def pixel_codes(self, image: Tensor, valid: Tensor) -> Tensor:
        """As the base, in (-1, 1); pictures have even sides."""
        x = self.head(torch.cat([image * valid, valid], dim=1))
        for layer in self.body:
            x = x + norm_act(layer(x))
        return upsample2(torch.tanh(self.tail(x).float()))


@MODELS.register("divsem_dilated")
class DivSemDilatedModel(DivSemModel):
    """DivSem whose styles a `DilatedEncoder` reads; ratio, bank, cascade, losses and flags are DivSem's."""

    summary = "DivSem with a style encoder of dilated convolutions"

    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        super().modify_commandline_options(parser, is_train=is_train)
        group = parser.add_argument_group(f"model {cls.own_name()}: style encoder")
        group.add_argument("--style_layers", type=positive_int, default=5, help="dilated layers of the style encoder")

    @classmethod
    def encoder_layers(cls, opt: Opt, policy: StylePolicy) -> MaskAwareEncoder:
        return DilatedEncoder(style_dim=opt.style_dim, width=WIDTH * opt.nef, layers=opt.style_layers, policy=policy)

    @classmethod
    def tiny(cls, tmp_path: Path) -> list[str]:
        return [*super().tiny(tmp_path), "--style_layers", "2"]
