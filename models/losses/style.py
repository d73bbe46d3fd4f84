"""Style consistency: a picture made in a style must show that style (SIEDOB, L_SCC); and how far codes spread."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def style_consistency(code: Tensor, cycle: Tensor) -> Tensor:
    """Mean of 1 - cos of the angle between codes (N, D) and those read off the pictures made of them (N, D)."""
    return (1 - F.cosine_similarity(code.float(), cycle.float(), dim=1)).abs().mean()


@torch.no_grad()
def code_spread(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean cosine between codes (N, D), and the share of their variance that one direction holds.

    Both near 1: the codes lie on one ray, so that they differ in length alone. The share is a mean of the principal
    components' shares, each weighted by its 64th power; without a decomposition, which a GPU would be waited for.
    """
    codes = codes.double()  # which autocast leaves alone
    unit = F.normalize(codes, dim=1)
    pairs = len(codes) * (len(codes) - 1)
    cosine = (unit.sum(0).square().sum() - unit.square().sum()) / max(pairs, 1)
    centred = codes - codes.mean(0)
    gram = centred @ centred.T
    gram = gram / gram.trace().clamp_min(1e-30)
    power = gram
    for _ in range(6):
        power = power @ power
        power = power / power.trace().clamp_min(1e-30)
    return cosine, (gram * power).sum()
