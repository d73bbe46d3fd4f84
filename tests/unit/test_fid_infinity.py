"""`fid_infinity` against the distance of two Gaussian laws, which is known exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metrics.features.frechet import frechet_distance
from metrics.features.infinity import PARTS, WEIGHTS, fid_infinity
from metrics.influence import interval

WIDTH, SHIFT, STRETCH = 24, 0.3, 1.3
SPREAD = torch.arange(1, WIDTH + 1, dtype=torch.float64) ** -0.7  # a few directions carry most of the variance
TRUTH = float(((SHIFT * SPREAD).square() + ((STRETCH - 1) * SPREAD).square()).sum())


def sample(seed: int, n: int, *, pairs: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Draw n features of each law; pairs share half of their deviations' variance."""
    draw = torch.Generator().manual_seed(seed)
    real, other = (torch.randn(n, WIDTH, generator=draw, dtype=torch.float64) for _ in range(2))
    if pairs:
        other = (real + other) / 2**0.5
    return (STRETCH * other + SHIFT) * SPREAD, real * SPREAD, torch.arange(n) if pairs else None


@pytest.mark.parametrize("pairs", [False, True])
def test_it_is_unbiased_where_fid_is_not_and_its_intervals_cover(pairs: bool) -> None:
    """At n = 3 d, where FID itself is above the truth by half of it; within three standard errors of 200 samples."""
    repeats, n = 200, 3 * WIDTH
    found, plain, covered = [], [], 0
    for seed in range(repeats):
        generated, real, partner = sample(seed, n, pairs=pairs)
        value, *moves = fid_infinity(generated, real, partner, influence=True)
        ends = interval(value, (moves[0] + moves[1],) if pairs else tuple(moves))
        found.append(value)
        plain.append(frechet_distance(generated, real))
        covered += ends is not None and ends[0] <= TRUTH <= ends[1]
    values = torch.tensor(found)
    assert abs(float(values.mean()) - TRUTH) < 3 * float(values.std()) / repeats**0.5
    assert sum(plain) / repeats > 1.3 * TRUTH
    assert 0.90 <= covered / repeats <= 0.99


def test_the_line_is_the_least_squares_one() -> None:
    line = torch.stack([torch.ones(len(PARTS)), torch.tensor(PARTS, dtype=torch.float32)], 1)
    torch.testing.assert_close(torch.linalg.pinv(line)[0], torch.tensor(WEIGHTS))


def test_pairs_stay_together_whatever_the_order() -> None:
    """A picture that equals its truth in every pair is at distance 0 in each part, also if truths stand elsewhere."""
    _, real, _ = sample(0, 40, pairs=False)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert fid_infinity(real[order], real, order).value == pytest.approx(0, abs=1e-9)
    assert fid_infinity(real[order], real).value < -0.01  # apart, parts differ though the whole does not
