"""Intervals and p-values keep what they promise: repeated samples of known laws, with fixed seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.special import stdtr
from torch import Tensor

from metrics.differences import compare, differences
from metrics.features.frechet import frechet_distance, frechet_influence
from metrics.features.kid import kid
from metrics.influence import Parts, as_kept, interval, p_value, spread, summed, units_of
from metrics.segments.confusion import Tally
from util.errors import UserError

CLASSES = 5
OFTEN = torch.tensor([1.0, 0.9, 0.6, 0.3, 0.15])  # how many pictures show a class
Measured = tuple[float, Parts]


def covered(measure: Callable[[torch.Generator], Measured], repeats: int, truth: float | None = None) -> float:
    """Return how many of the intervals of repeated samples hold the truth; None: the mean of the values."""
    found = [measure(torch.Generator().manual_seed(seed)) for seed in range(repeats)]
    centre = sum(value for value, _ in found) / repeats if truth is None else truth
    ends = [interval(*each) for each in found]
    assert None not in ends
    return sum(pair is not None and pair[0] <= centre <= pair[1] for pair in ends) / repeats


def features(draw: torch.Generator, n: int) -> Tensor:
    """Features (n,48) like a network's: above 0, skewed, a few directions carry most of the variance."""
    scale = torch.arange(1, 49, dtype=torch.float64) ** -0.7
    return ((torch.randn(n, 48, generator=draw, dtype=torch.float64) + 0.3) * scale).relu()


def fid(x: Tensor, y: Tensor, paired: bool) -> Measured:
    parts = frechet_influence(x, y)
    return frechet_distance(x, y), (parts[0] + parts[1],) if paired else parts


def kernel(x: Tensor, y: Tensor, paired: bool) -> Measured:
    value, *parts = kid(x, y, torch.arange(len(x)) if paired else None)
    return value, (parts[0] + parts[1],) if paired else tuple(parts)


@pytest.mark.parametrize("measure", [fid, kernel])
@pytest.mark.parametrize("law", ["pairs", "one law", "apart"])
def test_intervals_of_distances_cover(measure: Callable[[Tensor, Tensor, bool], Measured], law: str) -> None:
    """FID's is about the biased value at n = 40, which has fewer pictures than features."""

    def sample(draw: torch.Generator) -> Measured:
        real, other = features(draw, 40), features(draw, 40)
        if law == "pairs":
            return measure(0.7 * real + 0.3 * (other + 0.2), real, True)
        return measure(other + (0.3 if law == "apart" else 0), real, False)

    assert 0.90 <= covered(sample, 300) <= 0.99


def counts(draw: torch.Generator, n: int) -> Tensor:
    """Confusion matrices (n,C,C) of pictures: rare classes, and skill that differs from picture to picture."""
    shows = torch.rand(n, CLASSES, generator=draw) < OFTEN
    size = shows * torch.rand(n, CLASSES, generator=draw) ** 2 * 2000
    right = torch.rand(n, CLASSES, generator=draw) * 0.6 + 0.4 * torch.rand(n, 1, generator=draw)
    hit, missed = size * right, size * (1 - right) / CLASSES
    return (torch.diag_embed(hit) + missed[:, :, None].expand(-1, -1, CLASSES)).long()


def tally(each: Tensor) -> Tally:
    made = Tally(CLASSES)
    for picture in each:
        made.generated.counts += picture
        made._cells.append(picture.flatten().nonzero().flatten())
        made._counts.append(picture.flatten()[made._cells[-1]])
    return made


@pytest.mark.parametrize("metric", ["miou", "class_accuracy"])
def test_intervals_of_a_mean_over_classes_cover_the_value_of_all_pictures(metric: str) -> None:
    n, asked = 30, {"class_accuracy": "class_acc"}.get(metric, metric)
    truth = getattr(tally(counts(torch.Generator().manual_seed(99), 20000)).generated, metric)()

    def sample(draw: torch.Generator) -> Measured:
        made = tally(counts(draw, n))
        without = made.without(torch.arange(n), asked)
        return getattr(made.generated, metric)(), ((without.nanmean() - without) * (n - 1) / n,)

    assert 0.90 <= covered(sample, 200, truth) <= 0.99


def test_blocks_widen_the_interval_of_a_film() -> None:
    """Ten frames in a row are alike: as pictures of their own they would promise a third of the spread."""

    def sample(draw: torch.Generator, blocks: int) -> Measured:
        each = torch.randn(30, generator=draw, dtype=torch.float64).repeat_interleave(10)
        each = each + 0.3 * torch.randn(300, generator=draw, dtype=torch.float64)
        units = units_of([f"{i:03}" for i in range(300)], blocks)
        return float(each.mean()), (summed((each - each.mean()) / 300, units),)

    assert 0.90 <= covered(lambda draw: sample(draw, 10), 300, 0.0) <= 0.99
    assert covered(lambda draw: sample(draw, 1), 300, 0.0) < 0.6


def test_few_units_that_carry_the_variance_count_few() -> None:
    even, one = torch.tensor([1.0, -1.0] * 20), torch.tensor([1.0, *[-1 / 39] * 39])
    assert spread((even,)) == pytest.approx(((40 * 40 / 39) ** 0.5, 39))
    assert spread((one,)) == pytest.approx((torch.sum(one.square()).mul(40 / 39).sqrt().item(), 2.16), rel=0.01)
    assert spread((torch.tensor([1.0, torch.nan]),)) is None
    assert interval(float("inf"), (even,)) is None and interval(3.0, ()) is None
    assert units_of(["b", "a", "b", "c"], 2).tolist() == [0, 0, 0, 1]
    assert summed(torch.tensor([1.0, torch.nan, 2.0, torch.nan]), torch.tensor([0, 0, 0, 1])).isnan().tolist() == [
        False,
        True,
    ]


@pytest.mark.parametrize("measure", [fid, kernel])
def test_methods_of_one_law_differ_by_chance_in_one_of_twenty_tests(
    measure: Callable[[Tensor, Tensor, bool], Measured],
) -> None:
    """Both fill the same pictures equally well; a third, worse one is found out."""
    alike = found_out = 0
    for seed in range(300):
        draw = torch.Generator().manual_seed(seed)
        real = features(draw, 40)
        first, second = (measure(0.7 * real + 0.3 * features(draw, 40) + 0.2, real, True) for _ in range(2))
        worse = measure(0.7 * real + 0.3 * features(draw, 40) + 0.4, real, True)
        p = [p_value(first[0] - other[0], (first[1][0] - other[1][0],)) for other in (second, worse)]
        alike += p[0] is not None and p[0] < 0.05
        found_out += p[1] is not None and p[1] < 0.05
    assert 0.02 <= alike / 300 <= 0.08
    assert found_out / 300 > 0.9


def line(run: str, value: float, each: Tensor, names: list[str], metric: str = "l1_whole") -> dict[str, Any]:
    kept = as_kept({"pairs": names}, 1, {metric: (each,)})
    return {
        "metrics": {metric: value}, "details": {}, "task": "t", "step": None, "num_images": len(names),
        "protocol": {"run": run}, "influence": json.loads(json.dumps(kept)),
    }  # fmt: skip


def test_the_difference_of_means_is_the_paired_t_test() -> None:
    draw, names = torch.Generator().manual_seed(3), [f"p{i}" for i in range(50)]
    hard = torch.randn(50, generator=draw, dtype=torch.float64)
    scores = [hard + 0.1 * torch.randn(50, generator=draw, dtype=torch.float64) + shift for shift in (0.0, 0.05)]
    lines = [line(str(k), float(s.mean()), (s - s.mean()) / 50, names) for k, s in enumerate(scores)]
    found = differences(*lines)["l1_whole"]
    apart = scores[0] - scores[1]
    error = float(apart.std() / 50**0.5)
    assert found.value == pytest.approx(float(apart.mean()))
    assert found.p == pytest.approx(2 * stdtr(49, -abs(found.value) / error), rel=0.1)
    assert found.high - found.low == pytest.approx(4.02 * error, rel=0.01)
    assert found.better == (found.value < 0) and found.certain == (found.low * found.high > 0)
    other = differences(*lines[::-1])["l1_whole"]
    assert (other.value, other.low, other.high, other.p) == pytest.approx(
        (-found.value, -found.high, -found.low, found.p)
    )
    assert other.better != found.better


def test_what_is_not_of_the_same_pictures_is_not_compared(tmp_path: Path) -> None:
    names, each = ["a", "b", "c"], torch.tensor([0.1, -0.2, 0.1])
    mine, rows = line("mine", 1.0, each, names), []
    file = tmp_path / "theirs.json"
    for fault in (line("theirs", 2.0, each, ["a", "b", "d"]), {**line("theirs", 2.0, each, names), "influence": {}}):
        assert differences(mine, fault) == {}
        file.write_text(json.dumps(fault))
        with pytest.raises(UserError, match=r"--against .*theirs.json: it keeps no influences of these pictures"):
            compare(mine, [str(file)], rows)
    file.write_text(json.dumps({**line("theirs", 2.0, each, names), "num_images": 4}))
    with pytest.raises(UserError, match=r"(?s)not measured like --fake:.*num_images: 3 \(--fake\); 4"):
        compare(mine, [str(file)], rows)
    with pytest.raises(UserError, match="theirs: its result file holds no influences"):
        differences(mine, {**line("theirs", 2.0, each, names), "influence": {"units": 3}})
    file.write_text(json.dumps(line("theirs", 2.0, each * 0.9, names)))
    told = compare(mine, [str(file)], rows)
    assert rows == [("theirs", {"l1_whole": 2.0})]
    assert told[1] == "less theirs, 95 % interval, p-value" and told[2].endswith("better")
