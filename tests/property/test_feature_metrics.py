"""KID, precision, recall, density, coverage and resampled FID: properties, plain oracles, closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.features import kid as kid_module
from metrics.features import manifold as manifold_module
from metrics.features.frechet import Resampled, frechet_distance
from metrics.features.kid import kid, resampled_mmd2
from metrics.features.manifold import K_DENSITY, K_PRECISION, manifolds, prdc

QUICK = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)


def features(seed: int, n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@QUICK
@given(seeds, st.integers(2, 30), st.integers(2, 30), st.integers(2, 32))
def test_resampled_distance_is_that_of_the_repeated_rows(seed: int, n: int, m: int, d: int) -> None:
    a, b = features(seed, n, d), features(seed + 1, m, d) + 0.5
    draw = torch.Generator().manual_seed(seed)
    times = [torch.randint(0, 4, (size,), generator=draw) for size in (n, m)]
    for each in times:
        each[:2] += 1
    expected = frechet_distance(*(x.repeat_interleave(each, 0) for x, each in zip((a, b), times, strict=True)))
    assert Resampled(a, b).distance(*times) == pytest.approx(expected, rel=1e-6, abs=1e-8)
    assert math.isnan(Resampled(a, b).distance(torch.zeros_like(times[0]), times[1]))


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
def test_the_error_of_kid_is_the_plain_jackknife_in_any_order(seed: int, n: int, m: int, rows: int) -> None:
    x, y = features(seed, n, 4), features(seed + 1, m, 4) + 0.5
    variance = 0.0
    for one, other in ((x, y), (y, x)):
        size = len(one)
        kept = [[j for j in range(size) if j != i] for i in range(size)]
        without = torch.tensor([resampled_mmd2(one, other, torch.bincount(torch.tensor(each), minlength=size)[None],
                                               torch.ones(1, len(other))) for each in kept])  # fmt: skip
        variance += float((size - 1) / size * (without - without.mean()).square().sum())
    draw = torch.Generator().manual_seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kid_module, "ROWS", rows)
        value, error = kid(x[torch.randperm(n, generator=draw)], y[torch.randperm(m, generator=draw)])
    assert value == pytest.approx(kid(x, y)[0], rel=1e-9, abs=1e-9)
    assert error == pytest.approx(variance**0.5, rel=1e-6, abs=1e-9)


def test_kid_is_unbiased_and_its_error_has_the_right_size() -> None:
    """Between two samples of one distribution: mean 0, and the error bar is about the spread of repeated estimates."""
    found = [kid(features(s, 120, 6), features(s + 1000, 120, 6) + 1.0) for s in range(40)]
    values, errors = (torch.tensor(x, dtype=torch.float64) for x in zip(*found, strict=True))
    truth, _ = kid(features(5000, 3000, 6), features(6000, 3000, 6) + 1.0)
    assert float(values.mean()) == pytest.approx(truth, abs=3 * float(values.std()) / 40**0.5 + 0.1)
    assert 0.5 < float(errors.mean() / values.std()) < 2


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


def draw_times(seed: int, resamples: int, n: int) -> torch.Tensor:
    chosen = torch.randint(n, (resamples, n), generator=torch.Generator().manual_seed(seed))
    return torch.stack([torch.bincount(row, minlength=n) for row in chosen])


@QUICK
@given(seeds, st.integers(3, 12), st.integers(3, 12), st.integers(1, 5))
def test_resampled_mmd_is_the_sum_over_all_pairs_of_two_pictures(seed: int, n: int, m: int, rows: int) -> None:
    """Each repeat is a term of its own, but no picture is paired with itself; in whatever pieces it is computed."""
    x, y = features(seed, n, 4), features(seed + 1, m, 4) + 0.5
    times_x, times_y = draw_times(seed, 3, n), draw_times(seed + 1, 3, m)
    times_x[0], times_y[0] = 1, 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kid_module, "ROWS", rows)
        found = resampled_mmd2(x, y, times_x, times_y)
    assert float(found[0]) == pytest.approx(kid(x, y)[0], rel=1e-9, abs=1e-9)

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(((a * b).sum() / 4 + 1) ** 3)

    def within(of: torch.Tensor, chosen: list[int]) -> float:
        terms = [k(of[i], of[j]) for i in chosen for j in chosen if i != j]
        return sum(terms) / len(terms) if terms else math.nan

    for r in (1, 2):
        a, b = (torch.arange(len(t[r])).repeat_interleave(t[r]).tolist() for t in (times_x, times_y))
        across = sum(k(x[i], y[j]) for i in a for j in b) / (len(a) * len(b))
        expected = within(x, a) + within(y, b) - 2 * across
        assert float(found[r]) == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("shift", [0.3, 1.0])
def test_the_resamples_spread_is_that_of_repeated_estimates(shift: float) -> None:
    """KID's interval has the right width where the sets differ; without a bias from the repeats."""
    sets = [(features(s, 80, 6), features(s + 1000, 80, 6) + shift) for s in range(60)]
    truth = torch.tensor([kid(x, y)[0] for x, y in sets]).std()
    found = [resampled_mmd2(x, y, draw_times(s, 60, 80), draw_times(s + 99, 60, 80)) for s, (x, y) in enumerate(sets)]
    assert 0.75 < float(torch.stack([each.std() for each in found]).mean() / truth) < 1.35
    bias = torch.stack([each.mean() - kid(x, y)[0] for each, (x, y) in zip(found, sets, strict=True)])
    assert abs(float(bias.mean())) < 0.1 * float(truth)


@QUICK
@given(seeds, st.integers(6, 20), st.integers(6, 20), st.integers(1, 7))
def test_manifolds_in_pieces_are_the_whole_ones_and_count_as_told(seed: int, n: int, m: int, rows: int) -> None:
    fake, real = features(seed, n, 3) + 0.5, features(seed + 1, m, 3)
    whole = manifolds(fake, real)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifold_module, "ROWS", rows)
        parts = manifolds(fake, real)
    for name, value in vars(whole).items():
        assert torch.equal(value, getattr(parts, name)), name
    times, real_times = draw_times(seed, 2, n), draw_times(seed + 1, 2, m)
    found = whole.weighted(times, real_times)
    for r in range(2):
        chosen, others = (torch.arange(len(t[r])).repeat_interleave(t[r]) for t in (times, real_times))
        assert float(found["precision"][r]) == pytest.approx(float(whole.in_real[chosen].double().mean()))
        assert float(found["density"][r]) == pytest.approx(float(whole.balls[chosen].double().mean()) / K_DENSITY)
        assert float(found["recall"][r]) == pytest.approx(float(whole.in_generated[others].double().mean()))
        assert float(found["coverage"][r]) == pytest.approx(float(whole.covered[others].double().mean()))
