"""Edges of an instance map."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Ids = TypeVar("Ids", np.ndarray, Tensor)


def mark_edges(inst: Ids) -> Ids:
    """Return (..., H, W) booleans: pixels whose id differs from a 4-neighbour's. Arrays are kept arrays.

    Samples are made with arrays: on 256 x 256 pixels PyTorch's threads cost more than they save.
    """
    edge = inst != inst  # nowhere, of the same kind as inst
    across = inst[..., :, 1:] != inst[..., :, :-1]
    edge[..., :, 1:] |= across
    edge[..., :, :-1] |= across
    down = inst[..., 1:, :] != inst[..., :-1, :]
    edge[..., 1:, :] |= down
    edge[..., :-1, :] |= down
    return edge


def instance_edges(inst: Tensor) -> Tensor:
    """Mark pixels whose id differs from at least one of their 4-neighbours; both sides of a boundary are marked.

    Args:
        inst: (H, W) or (B, H, W), integer ids.

    Returns:
        (1, H, W) or (B, 1, H, W) float32 in {0, 1}; not multiplied by a mask.
    """
    return mark_edges(inst).unsqueeze(-3).to(torch.float32)
