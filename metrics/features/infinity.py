"""FID at infinitely many pictures, by extrapolation (Chong and Forsyth 2020, arXiv 1911.07023, section 3).

With more pictures than features, FID's bias is linear in 1 / n. Both sets are split into p = 1, 2 and 3 disjoint parts,
so that the parts are p times as biased as the whole, and the line through their mean values is followed to p = 0. The
paper draws subsets of the generated set alone, against the whole real one, whose own bias then stays.
Shapes: n and m pictures, d features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metrics.features.frechet import frechet_distance, frechet_influence

PARTS = (1, 2, 3)
WEIGHTS = (4 / 3, 1 / 3, -2 / 3)  # of the least-squares line's value at 0, by those of PARTS


class Extrapolated(NamedTuple):
    """The value (it can be below 0), and how much each generated (n,) and real (m,) picture moves it."""

    value: float
    generated: Tensor
    real: Tensor


def fid_infinity(
    generated: Tensor, real: Tensor, partner: Tensor | None = None, *, influence: bool = False
) -> Extrapolated:
    """Return FID of features (n,d) and (m,d), extrapolated to infinitely many pictures.

    Which part a picture is in follows from its row alone.

    Args:
        partner: (n,) each generated picture's truth among the real ones, where these are pairs: both are in one part.
        influence: compute these too; else they are 0.
    """
    draw = torch.Generator().manual_seed(0)
    order = torch.randperm(len(real), generator=draw)
    apart = torch.randperm(len(generated), generator=draw)
    value = 0.0
    moves = [torch.zeros(len(features), dtype=torch.float64) for features in (generated, real)]
    for parts, weight in zip(PARTS, WEIGHTS, strict=True):
        place = torch.empty_like(order)
        place[order] = torch.arange(len(real)) * parts // len(real)  # the part of each real picture
        for k in range(parts):
            reals = (place == k).nonzero().flatten()
            chosen = apart.tensor_split(parts)[k] if partner is None else (place[partner] == k).nonzero().flatten()
            value += weight / parts * frechet_distance(generated[chosen], real[reals])
            if influence:
                found = frechet_influence(generated[chosen], real[reals])
                for move, rows, each in zip(moves, (chosen, reals), found, strict=True):
                    move[rows] += weight / parts * each
    return Extrapolated(value, *moves)
