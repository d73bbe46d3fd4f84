"""Kernel Inception distance (Binkowski et al. 2018, arXiv 1801.01401, section 4): an unbiased estimate of MMD^2.

Kernel (x.y / d + 1)^3. Shapes: n and m pictures, d features, R resamples. Computed in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from util.seeds import torch_generator

SUBSETS, SUBSET_SIZE = 100, 1000
ROWS = 1024  # of a kernel matrix that are held at a time


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """Return (n,m) values of the cubic polynomial kernel."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def mmd2(x: Tensor, y: Tensor) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy; it can be below 0."""
    x, y = x.double(), y.double()
    n, m = len(x), len(y)
    xx, yy = kernel(x, x), kernel(y, y)
    within_x = (xx.sum() - xx.diagonal().sum()) / (n * (n - 1))
    within_y = (yy.sum() - yy.diagonal().sum()) / (m * (m - 1))
    return float(within_x + within_y - 2 * kernel(x, y).mean())


def kid(generated: Tensor, real: Tensor) -> tuple[float, float, int]:
    """Return mean over subsets, standard error of the full sets' value, and the size b of a subset.

    100 pairs of subsets of b = min(1000, half the smaller set) pictures are drawn without replacement by a fixed seed.
    The error follows from the subsets' spread: about the full set's value a subset's has the variance
    s^2 (1/b - 1/n), and the full set's own is s^2 / n, so the error is spread * sqrt(b / (n - b)), n the smaller set.
    """
    n = min(len(generated), len(real))
    b = min(SUBSET_SIZE, n // 2)
    draw = torch_generator(0, "kid")
    values = []
    for _ in range(SUBSETS):
        x, y = (features[torch.randperm(len(features), generator=draw)[:b]] for features in (generated, real))
        values.append(mmd2(x, y))
    spread = torch.tensor(values, dtype=torch.float64).std()
    return sum(values) / SUBSETS, float(spread) * (b / (n - b)) ** 0.5, b


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
