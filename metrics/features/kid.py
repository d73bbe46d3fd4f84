"""Kernel Inception distance (Binkowski et al. 2018, arXiv 1801.01401, section 4): an unbiased estimate of MMD^2.

Kernel (x.y / d + 1)^3. Shapes: n and m pictures, d features. Computed in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ROWS = 1024  # of a kernel matrix that are held at a time


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """Return (n,m) values of the cubic polynomial kernel."""
    return (x @ y.T / x.shape[1] + 1) ** 3


class KID(NamedTuple):
    """The estimate (it can be below 0), and how much each generated (n,) and real (m,) picture moves it.

    The influences are the jackknife's; where both sets have one distribution, its error is up to sqrt(2) too large.
    """

    value: float
    generated: Tensor
    real: Tensor


def kid(generated: Tensor, real: Tensor, partner: Tensor | None = None) -> KID:
    """Return the unbiased estimate of the squared maximum mean discrepancy of features (n,d) and (m,d).

    All pairs of pictures enter, so that the value depends on no order.

    Args:
        partner: (n,) each generated picture's truth among the real ones, where these are pairs: the two then come and
            go together, and their own kernel value with them, once.
    """
    x, y = generated.double(), real.double()
    n, m = len(x), len(y)
    of_x, of_y = _row_sums(x, x, same=True), _row_sums(y, y, same=True)
    across_x, across_y = _row_sums(x, y), _row_sums(y, x)
    value = of_x.sum() / (n * (n - 1)) + of_y.sum() / (m * (m - 1)) - 2 * across_x.sum() / (n * m)
    moves = [_jackknife(of_x, across_x, m), _jackknife(of_y, across_y, n)]
    if partner is not None:
        own = ((x * y[partner]).sum(1) / x.shape[1] + 1) ** 3
        moves[0] = moves[0] + 2 * (own - own.mean()) / (n * m)
    return KID(float(value), *moves)


def _row_sums(x: Tensor, y: Tensor, *, same: bool = False) -> Tensor:
    """Return (n,) sums of the kernel over y, the diagonal left out where x and y are the `same` pictures."""
    sums = []
    for start in range(0, len(x), ROWS):
        values = kernel(x[start : start + ROWS], y)
        if same:
            values.diagonal(start).zero_()
        sums.append(values.sum(1))
    return torch.cat(sums)


def _jackknife(within: Tensor, across: Tensor, others: int) -> Tensor:
    """Return the influences (n,) of one set's pictures, from sums within it and across to `others`; NaN for n < 3."""
    n = len(within)
    if n < 3:
        return torch.full((n,), torch.nan, dtype=torch.float64)
    without = (within.sum() - 2 * within) / ((n - 1) * (n - 2)) - 2 * (across.sum() - across) / ((n - 1) * others)
    return (n - 1) / n * (without.mean() - without)
