"""Precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991), density and coverage (Naeem et al. 2020).

The latter is arXiv 2002.09797. A picture's ball reaches to its k-th nearest neighbour in the same set.
Shapes: n generated, m real pictures, d features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

PRDC = ("precision", "recall", "density", "coverage")
K_PRECISION, K_DENSITY = 3, 5  # the papers' own
ROWS = 1024  # of a distance matrix that are held at a time
FRACTIONS = 2**20  # of the longest feature, what distances are rounded to: 30 times the error for equal pictures


@dataclass(frozen=True)
class Manifolds:
    """What each picture adds to the four values.

    Args:
        in_real: (n,) bool, a generated picture lies in some real one's ball (k = 3).
        in_generated: (m,) bool, a real picture lies in some generated one's ball (k = 3).
        balls: (n,) int64, real balls (k = 5) around a generated picture.
        covered: (m,) bool, a real picture's ball (k = 5) holds a generated one.
    """

    in_real: Tensor
    in_generated: Tensor
    balls: Tensor
    covered: Tensor


def manifolds(generated: Tensor, real: Tensor) -> Manifolds:
    """Compare features (n,d) and (m,d), at most `ROWS` rows of distances at a time, in float64.

    Each set needs more than `K_DENSITY` pictures.
    """
    largest = max(float(features.double().norm(dim=1).max()) for features in (generated, real))
    scale = 2.0 ** -math.frexp(largest)[1]
    generated, real = generated.double() * scale, real.double() * scale
    of_real, of_generated = _radii(real), _radii(generated)
    in_real = torch.zeros(len(generated), dtype=torch.bool)
    balls = torch.zeros(len(generated), dtype=torch.int64)
    in_generated, covered = [], []
    for rows, (narrow, wide) in zip(real.split(ROWS), (r.T for r in of_real.split(ROWS)), strict=True):
        across = _distances(rows, generated)
        in_real |= (across <= narrow[:, None]).any(0)
        in_generated.append((across <= of_generated[:, 0]).any(1))
        inside = across < wide[:, None]
        balls += inside.sum(0)
        covered.append(inside.any(1))
    return Manifolds(in_real, torch.cat(in_generated), balls, torch.cat(covered))


def prdc(generated: Tensor, real: Tensor) -> dict[str, float]:
    """Return the four values of features (n,d) and (m,d); each set needs more than `K_DENSITY` pictures."""
    found = manifolds(generated, real)
    means = (found.in_real, found.in_generated, found.balls.double() / K_DENSITY, found.covered)
    return {name: float(each.double().mean()) for name, each in zip(PRDC, means, strict=True)}


def _distances(rows: Tensor, others: Tensor) -> Tensor:
    """Return the distances of features of norm 1 at most, in units of 1 / `FRACTIONS`.

    Where both sets hold a picture, it lies on the rim of a ball, and the last bits of a matrix product, which differ
    between processors and with the order of the pictures, would decide whether it counts as inside.
    """
    return torch.cdist(rows, others).mul(FRACTIONS).round()


def _radii(features: Tensor) -> Tensor:
    """Return (n,2) distances to the `K_PRECISION`-th and `K_DENSITY`-th nearest other picture."""
    nearest = [_distances(rows, features).topk(K_DENSITY + 1, largest=False).values for rows in features.split(ROWS)]
    return torch.cat(nearest)[:, [K_PRECISION, K_DENSITY]]  # column 0 is the picture itself
