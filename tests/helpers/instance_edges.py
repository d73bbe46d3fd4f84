"""The data sets' edges as a network takes them, for tests whose maps are tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from data.edges import mark_edges


def instance_edges(inst: Tensor) -> Tensor:
    """Return (B, 1, H, W), or (1, H, W), float32 of ids (B, H, W) or (H, W)."""
    return torch.from_numpy(mark_edges(inst.numpy())).unsqueeze(-3).to(torch.float32)
