"""KID, precision, recall, density, coverage and influences on FID: properties, plain oracles, closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.features import kid as kid_module
from metrics.features import manifold as manifold_module
from metrics.features.frechet import frechet_influence
from metrics.features.kid import kid
from metrics.features.manifold import K_DENSITY, K_PRECISION, manifolds, prdc

QUICK = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)


def features(seed: int, n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weighted_distance(a: torch.Tensor, b: torch.Tensor, weights: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Frechet distance of weighted rows, the plain way; covariances keep the factor n / (n - 1)."""
    means, covariances = [], []
    for x, weight in zip((a, b), weights, strict=True):
        mean = weight @ x / weight.sum()
        means.append(mean)
        covariances.append(((x - mean).T * weight) @ (x - mean) / weight.sum() * len(x) / (len(x) - 1))
    product = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    shift = (means[0] - means[1]).square().sum()
    return float(shift + covariances[0].trace() + covariances[1].trace() - 2 * product)


@QUICK
@given(seeds, st.integers(8, 20), st.integers(8, 20), st.integers(1, 5))
def test_the_influence_on_the_distance_is_its_derivative_by_the_weights(seed: int, n: int, m: int, d: int) -> None:
    a, b = features(seed, n, d), features(seed + 1, m, d) + 0.5
    found = frechet_influence(a, b)
    assert [float(each.sum()) for each in found] == pytest.approx([0, 0], abs=1e-9)
    for which, i in ((0, 0), (1, m - 1)):
        ends = []
        for step in (1e-4, -1e-4):
            weights = (torch.ones(n, dtype=torch.float64), torch.ones(m, dtype=torch.float64))
            weights[which][i] += step
            ends.append(weighted_distance(a, b, weights))
        assert float(found[which][i]) == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-3, abs=1e-5)


@QUICK
@given(seeds, st.integers(2, 9), st.integers(2, 9), st.integers(1, 5))
def test_mmd_is_the_plain_double_sum_and_symmetric(seed: int, n: int, m: int, d: int) -> None:
    x, y = features(seed, n, d), features(seed + 1, m, d)

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(((a * b).sum() / d + 1) ** 3)

    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = sum(k(a, b) for a in x for b in y) / (n * m)
    assert kid(x, y)[0] == pytest.approx(xx + yy - 2 * xy, rel=1e-9, abs=1e-9)
    assert kid(y, x)[0] == pytest.approx(kid(x, y)[0], rel=1e-9, abs=1e-12)


@QUICK
@given(seeds, st.integers(3, 12), st.integers(3, 12), st.integers(1, 5))
def test_the_influence_on_kid_is_the_plain_jackknifes_in_any_order(seed: int, n: int, m: int, rows: int) -> None:
    sets = (features(seed, n, 4), features(seed + 1, m, 4) + 0.5)
    draw = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(size, generator=draw) for size in (n, m)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kid_module, "ROWS", rows)
        value, *found = kid(*(x[order] for x, order in zip(sets, orders, strict=True)))
    assert value == pytest.approx(kid(*sets).value, rel=1e-9, abs=1e-9)
    for which, size in enumerate((n, m)):
        without = []
        for i in orders[which].tolist():
            left = list(sets)
            left[which] = torch.cat([sets[which][:i], sets[which][i + 1 :]])
            without.append(kid(*left).value)
        expected = [(size - 1) / size * (sum(without) / size - each) for each in without]
        assert found[which].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_pair_moves_kid_as_its_removal_does() -> None:
    """To the order of 1 / n; were a pair's own kernel value counted with both pictures, it would be far off."""
    n = 40
    y = features(0, n, 4) * 3
    x = y + 0.1 * features(1, n, 4)
    _, a, b = kid(x, y, torch.arange(n))
    kept = [[j for j in range(n) if j != i] for i in range(n)]
    without = torch.tensor([kid(x[rows], y[rows]).value for rows in kept], dtype=torch.float64)
    exact = (n - 1) / n * (without.mean() - without)
    _, c, d = kid(x, y)
    assert float((a + b - exact).norm()) < 0.1 * float(exact.norm()) < 0.5 * float((c + d - exact).norm())


def test_kid_is_unbiased() -> None:
    found = [kid(features(s, 120, 6), features(s + 1000, 120, 6) + 1.0).value for s in range(40)]
    values = torch.tensor(found, dtype=torch.float64)
    truth = kid(features(5000, 3000, 6), features(6000, 3000, 6) + 1.0).value
    assert float(values.mean()) == pytest.approx(truth, abs=3 * float(values.std()) / 40**0.5 + 0.1)


@QUICK
@given(seeds, st.integers(6, 14), st.integers(6, 14), st.floats(0, 3))
def test_prdc_is_its_definition(seed: int, n: int, m: int, shift: float) -> None:
    fake, real = features(seed, n, 3) + shift, features(seed + 1, m, 3)

    def radius(of: torch.Tensor, i: int, k: int) -> float:
        return sorted(float((of[i] - other).norm()) for j, other in enumerate(of) if j != i)[k - 1]

    def inside(point: torch.Tensor, of: torch.Tensor, i: int, k: int) -> bool:
        return float((point - of[i]).norm()) <= radius(of, i, k)

    found = prdc(fake, real)
    assert found["precision"] == pytest.approx(
        sum(any(inside(f, real, i, K_PRECISION) for i in range(m)) for f in fake) / n
    )
    assert found["recall"] == pytest.approx(
        sum(any(inside(r, fake, i, K_PRECISION) for i in range(n)) for r in real) / m
    )
    hits = [[inside(f, real, i, K_DENSITY) for f in fake] for i in range(m)]
    assert found["density"] == pytest.approx(sum(map(sum, hits)) / (K_DENSITY * n))
    assert found["coverage"] == pytest.approx(sum(map(any, hits)) / m)


def test_pictures_that_both_sets_hold_are_judged_alike_in_any_order() -> None:
    draw = torch.Generator().manual_seed(0)
    real = torch.randn(300, 256, generator=draw).abs()
    real = torch.cat([real, *[real[:30]] * 4])  # repeats, too
    fake = real[:200]
    found = manifolds(fake, real)
    for _ in range(5):
        p, q = (torch.randperm(len(x), generator=draw) for x in (fake, real))
        other = manifolds(fake[p], real[q])
        assert torch.equal(other.balls, found.balls[p])
        assert torch.equal(other.covered, found.covered[q])
        assert torch.equal(other.in_real, found.in_real[p])
        assert torch.equal(other.in_generated, found.in_generated[q])


@QUICK
@given(seeds, st.integers(6, 20))
def test_a_set_covers_itself(seed: int, n: int) -> None:
    x = features(seed, n, 4)
    found = prdc(x.flip(0), x)
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)
    far = prdc(x + 1e3, x)
    assert (far["precision"], far["recall"], far["density"], far["coverage"]) == (0, 0, 0, 0)


@QUICK
@given(seeds, st.integers(6, 20), st.integers(6, 20), st.integers(1, 7))
def test_manifolds_in_pieces_are_the_whole_ones(seed: int, n: int, m: int, rows: int) -> None:
    fake, real = features(seed, n, 3) + 0.5, features(seed + 1, m, 3)
    whole = manifolds(fake, real)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifold_module, "ROWS", rows)
        parts = manifolds(fake, real)
    for name, value in vars(whole).items():
        assert torch.equal(value, getattr(parts, name)), name
