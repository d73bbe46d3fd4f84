"""Patches cut out of whole feature maps: the plain form of `PatchFeatures.patches`."""

from __future__ import annotations

import torch
from torch import Tensor

from models.losses.patch import SCALES, Corners, PatchFeatures


def cut(maps: list[Tensor], corners: Corners) -> list[Tensor]:
    """Return the patches (n, C, size, size) of maps (1, C, H, W) at their corners."""
    return [
        torch.cat([x[:, :, r : r + scale.size, c : c + scale.size] for r, c in own])
        for x, own, scale in zip(maps, corners, SCALES, strict=True)
    ]


class WholeMaps(PatchFeatures):
    """Features whose patches are cut out of the whole maps; for networks that stand for VGG."""

    def patches(self, picture: Tensor, corners: Corners) -> list[Tensor]:
        return cut(self(picture), corners)
