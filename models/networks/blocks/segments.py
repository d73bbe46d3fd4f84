"""Means over segments and their inverse, as batched matrix products: no loop over instances, no atomics.

Shapes: B batch, C channels, I segments (padded), H x W pixels. `inst` (B, H, W) int64 holds ids 0..I-1.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Segments:
    """The pixels of each instance of a batch, as a (B, I, H*W) membership matrix."""

    def __init__(self, inst: Tensor, count: int) -> None:
        self.size = inst.shape[-2:]
        ids = torch.arange(count, device=inst.device)
        self.member = (inst.flatten(1)[:, None] == ids[None, :, None]).float()
        self.pixels = self.member.sum(2)  # (B, I); zero where the list is padded

    def mean(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the mean of x (B, C, H, W) over each segment, (B, I, C); zeros where a segment has no weight.

        Args:
            weight: (B, 1, H, W), how much each pixel counts; None for all alike.
        """
        # Full precision: under bf16 a sum over 65536 pixels would stop growing long before the end.
        with torch.autocast(x.device.type, enabled=False):
            flat = x.float().flatten(2)
            if weight is None:
                return self.member @ flat.mT / self.pixels.clamp(min=1)[..., None]
            weight = weight.float().flatten(2)
            total = self.member @ (flat * weight).mT
            return total / (self.member @ weight.mT).clamp(min=1)

    def paint(self, codes: Tensor) -> Tensor:
        """Give every pixel its segment's code: (B, I, C) -> (B, C, H, W)."""
        with torch.autocast(codes.device.type, enabled=False):
            return (codes.float().mT @ self.member).unflatten(2, self.size)
