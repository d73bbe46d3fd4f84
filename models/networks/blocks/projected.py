"""Patch discriminators of frozen features (Projected GANs, Sauer et al. 2021, Sec. 3), in the place of those of pixels.

Features of several depths are mixed by random convolutions that are never trained, so that no discriminator can rely on
a few channels or one depth: across channels, and from the coarsest map upwards across scales. Each mixed map has a
discriminator of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.blocks.discriminator import PatchDiscriminator, num_discriminator_layers
from models.networks.blocks.scales import resize_nearest, stage_sizes

SMALLEST = 4  # pixels of a side of a map that is judged


class RandomMixing(nn.Module):
    """The random convolutions: buffers, so that a run's checkpoint holds them and no optimiser does.

    Args:
        channels: of the maps, fine to coarse, each half as large as the one before.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        for i, count in enumerate(channels):
            self.register_buffer(f"across_channels_{i}", _random(count, count, 1))
        for i, (count, coarser) in enumerate(pairwise(channels)):
            self.register_buffer(f"across_scales_{i}", _random(count, coarser, 3))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return mixed maps of the same shapes, given the first so many; each has in it what the coarser ones hold."""
        mixed = [F.conv2d(x, self.get_buffer(f"across_channels_{i}")) for i, x in enumerate(maps)]
        for i in reversed(range(len(mixed) - 1)):
            coarser = F.conv2d(mixed[i + 1], self.get_buffer(f"across_scales_{i}"), padding=1)
            size = mixed[i].shape[-2:]
            mixed[i] = mixed[i] + F.interpolate(coarser, size=size, mode="bilinear", align_corners=False)
        return mixed


class ProjectedDiscriminator(nn.Module):
    """A patch discriminator per stage and depth of its features, of labels and mixed features.

    Called as `MultiScaleDiscriminator`, with features in the place of pictures.

    Args:
        channels: of a picture's feature maps, which have a half, a quarter, ... of its size.
    """

    def __init__(
        self, *, label_nc: int, crop_size: int, ndf: int, channels: Sequence[int], multi_scale: bool = True
    ) -> None:
        super().__init__()
        self.mixing = RandomMixing(channels)
        self.scales = nn.ModuleList()
        for size in stage_sizes(crop_size, multi_scale=multi_scale):
            sides = [(count, size >> depth) for depth, count in enumerate(channels, start=1)]
            self.scales.append(
                nn.ModuleList(
                    PatchDiscriminator(label_nc + count, ndf=ndf, num_layers=num_discriminator_layers(side))
                    for count, side in sides
                    if side >= SMALLEST
                )
            )

    def forward(self, segs: list[Tensor], *features: list[list[Tensor]]) -> list[list[list[Tensor]]]:
        """Judge each set of pictures' features under the same labels.

        Args:
            segs: as of `MultiScaleDiscriminator`.
            features: sets, each a list over the scales of a picture's maps, fine to coarse.

        Returns:
            outputs[set][scale][layer]; the last layer's are the scores (B, K) of all depths together.
        """
        judged = []
        for heads, seg, *ofs in zip(self.scales, segs, *features, strict=True):
            assert isinstance(heads, nn.ModuleList)
            mixed = [self.mixing(maps[: len(heads)]) for maps in ofs]
            of_heads = [
                head.judge(resize_nearest(seg, maps[0].shape[-1]), list(maps))
                for head, *maps in zip(heads, *mixed, strict=True)
            ]
            judged.append([_joined(outputs) for outputs in zip(*of_heads, strict=True)])
        return [list(row) for row in zip(*judged, strict=True)]


def _joined(outputs: Sequence[list[Tensor]]) -> list[Tensor]:
    """Return the hidden maps of all heads, then their scores side by side."""
    hidden = [layer for layers in outputs for layer in layers[:-1]]
    return [*hidden, torch.cat([layers[-1].flatten(1) for layers in outputs], dim=1)]


def _random(out_channels: int, in_channels: int, side: int) -> Tensor:
    """Return weights that keep the variance (Kaiming's initialisation)."""
    return nn.init.kaiming_normal_(torch.empty(out_channels, in_channels, side, side), nonlinearity="linear")
