"""Style consistency: a picture made in a style must show that style (SIEDOB, L_SCC)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def style_consistency(code: Tensor, cycle: Tensor) -> Tensor:
    """Mean of 1 - cos of the angle between codes (N, D) and those read off the pictures made of them (N, D)."""
    return (1 - F.cosine_similarity(code.float(), cycle.float(), dim=1)).abs().mean()
