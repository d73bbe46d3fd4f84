"""The Frechet distance against closed forms, its own second form and SciPy's matrix square root."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from metrics.features.frechet import frechet_distance, trace_sqrt_cholesky, trace_sqrt_svd
from util.errors import UserError

QUICK = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)
widths = st.integers(1, 12)
counts = st.integers(2, 40)  # above and below the width: singular and regular covariances


def features(seed: int, n: int, d: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix + torch.rand(d, generator=generator)


@QUICK
@given(seeds, counts, counts, widths)
def test_symmetric_not_negative_and_blind_to_order(seed: int, n: int, m: int, d: int) -> None:
    a, b = features(seed, n, d), features(seed + 1, m, d)
    distance = frechet_distance(a, b)
    scale = float(a.square().sum() + b.square().sum())
    assert distance >= 0
    assert frechet_distance(b, a) == pytest.approx(distance, abs=1e-9 * scale)
    assert frechet_distance(a.flip(0), b.roll(1, 0)) == pytest.approx(distance, abs=1e-9 * scale)


@QUICK
@given(seeds, counts, widths, st.floats(-3, 3))
def test_zero_on_itself_and_the_square_of_a_shift(seed: int, n: int, d: int, shift: float) -> None:
    a = features(seed, n, d)
    scale = float(a.square().sum()) + 1
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9 * scale)
    assert frechet_distance(a, a + shift) == pytest.approx(d * shift**2, abs=1e-9 * scale)


@QUICK
@given(seeds, counts, widths, st.floats(0.1, 4))
def test_scaling_about_the_mean(seed: int, n: int, d: int, factor: float) -> None:
    a = features(seed, n, d)
    scaled = a.mean(0) + factor * (a - a.mean(0))
    variance = float((a - a.mean(0)).square().sum()) / (n - 1)
    assert frechet_distance(a, scaled) == pytest.approx((1 - factor) ** 2 * variance, rel=1e-7, abs=1e-9)


@QUICK
@given(seeds, st.integers(1, 10))
def test_both_forms_and_scipy_agree_at_full_rank(seed: int, d: int) -> None:
    a, b = features(seed, 8 * d + 8, d), features(seed + 1, 5 * d + 9, d)
    root_a, root_b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b))
    by_cholesky = trace_sqrt_cholesky(root_a, root_b)
    assert by_cholesky is not None
    assert float(by_cholesky) == pytest.approx(float(trace_sqrt_svd(root_a, root_b)), rel=1e-7)
    cov_a, cov_b = (np.cov(x.numpy(), rowvar=False).reshape(d, d) for x in (a, b))
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(
        cov_a + cov_b - 2 * np.real(sqrtm(cov_a @ cov_b))
    )
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6, abs=1e-8)


@QUICK
@given(seeds, st.integers(3, 8))
def test_a_feature_that_never_varies_takes_the_exact_form(seed: int, d: int) -> None:
    a, b = features(seed, 40, d), features(seed + 1, 50, d)
    dead_a, dead_b = (torch.cat([x, torch.zeros(len(x), 1, dtype=x.dtype)], 1) for x in (a, b))
    assert trace_sqrt_cholesky(dead_a - dead_a.mean(0), dead_b - dead_b.mean(0)) is None
    assert frechet_distance(dead_a, dead_b) == pytest.approx(frechet_distance(a, b), rel=1e-7, abs=1e-9)


def test_diagonal_gaussians_have_the_textbook_value() -> None:
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64) * (3 / 4) ** 0.5  # covariance 1
    a = corners * torch.tensor([2.0, 3.0])
    b = corners * torch.tensor([5.0, 1.0]) + torch.tensor([1.0, -2.0])
    assert frechet_distance(a, b) == pytest.approx((2 - 5) ** 2 + (3 - 1) ** 2 + 1 + 4)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_pictures_are_refused(n: int) -> None:
    enough = torch.rand(5, 4)
    with pytest.raises(UserError, match=f"at least two real pictures, got {n}"):
        frechet_distance(enough, torch.rand(n, 4))
    with pytest.raises(UserError, match="generated"):
        frechet_distance(torch.rand(n, 4), enough)


def test_features_that_are_not_finite_are_refused() -> None:
    bad = torch.rand(5, 4)
    bad[2, 1] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        frechet_distance(bad, torch.rand(5, 4))
