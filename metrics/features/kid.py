"""Kernel Inception distance (Binkowski et al. 2018, arXiv 1801.01401, section 4): an unbiased estimate of MMD^2.

Kernel (x.y / d + 1)^3. Shapes: n and m pictures, d features, R resamples. Computed in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 1024  # of a kernel matrix that are held at a time


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """Return (n,m) values of the cubic polynomial kernel."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def kid(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """Return the unbiased estimate of the squared maximum mean discrepancy (it can be below 0) and its standard error.

    All pairs of pictures enter, so that the value depends on no order. The error is the jackknife's over the pictures
    of each set: how much the value changes without one of them; NaN for sets of less than three. Where both sets have
    one distribution it is up to sqrt(2) too large.
    """
    x, y = generated.double(), real.double()
    n, m = len(x), len(y)
    of_x, of_y, across_x, across_y = (
        _row_sums(x, x, same=True),
        _row_sums(y, y, same=True),
        _row_sums(x, y),
        _row_sums(y, x),
    )
    value = of_x.sum() / (n * (n - 1)) + of_y.sum() / (m * (m - 1)) - 2 * across_x.sum() / (n * m)
    variance = _jackknife(of_x, across_x, m) + _jackknife(of_y, across_y, n)
    return float(value), float(variance**0.5)


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
    """Return the variance of the estimate over one set's n pictures, from sums within it and across to `others`."""
    n = len(within)
    if n < 3:
        return torch.tensor(torch.nan, dtype=torch.float64)
    without = (within.sum() - 2 * within) / ((n - 1) * (n - 2)) - 2 * (across.sum() - across) / ((n - 1) * others)
    return (n - 1) / n * (without - without.mean()).square().sum()


def resampled_mmd2(x: Tensor, y: Tensor, times_x: Tensor, times_y: Tensor) -> Tensor:
    """Return (R,) estimates with the rows of x counted `times_x` (R,n) and those of y `times_y` (R,m) times.

    All pictures enter, not subsets. A picture is never paired with itself, its repeats included: k(x, x) is larger than
    any other value, and would bias every resample upwards. Resamples with fewer than two distinct pictures are NaN.
    """
    x, y, times_x, times_y = (t.double() for t in (x, y, times_x, times_y))
    within = _mean_kernel(x, x, times_x, times_x, same=True) + _mean_kernel(y, y, times_y, times_y, same=True)
    return within - 2 * _mean_kernel(x, y, times_x, times_y, same=False)


def _mean_kernel(x: Tensor, y: Tensor, times_x: Tensor, times_y: Tensor, *, same: bool) -> Tensor:
    """Weighted means (R,) of the kernel, the diagonal left out where x and y are the `same` pictures."""
    total = torch.zeros(len(times_x), dtype=torch.float64)
    for start in range(0, len(x), ROWS):
        values = kernel(x[start : start + ROWS], y)
        if same:
            values.diagonal(start).zero_()
        total += (times_x[:, start : start + ROWS] @ values * times_y).sum(1)
    pairs = times_x.sum(1) * times_y.sum(1)
    return total / (pairs - (times_x * times_y).sum(1) if same else pairs)
