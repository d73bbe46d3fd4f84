"""The data sets' edges as a network takes them, for tests whose maps are tensors."""

from __future__ import annotations

from torch import Tensor

from util.edges import mark_edges


def instance_edges(inst: Tensor) -> Tensor:
    """Return (B, 1, H, W), or (1, H, W), float32 of ids (B, H, W) or (H, W)."""
    return mark_edges(inst).unsqueeze(-3).float()
