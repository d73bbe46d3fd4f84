"""Intervals, bins and summaries; the feature cache; the regions of fid_region."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metrics.analysis import format_summary, mean_and_spread, summarise, with_bins, with_intervals
from metrics.base import Metric, Pictures
from metrics.evaluator import Evaluator
from metrics.feature_cache import FeatureCache, default_cache_dir
from metrics.feature_metrics import FeatureMetrics, region_box
from metrics.fid import frechet_distance
from metrics.inception import InceptionFile
from metrics.reconstruction import Reconstruction
from metrics.segmentation import SegmentationMetric
from metrics.segmenters import Segmenter
from util.errors import UserError


def draw(seed: int, *shape: int, high: int = 256) -> Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def pictures(n: int, *, seed: int = 0, shares: list[float] | None = None) -> Pictures:
    mask = torch.zeros(n, 1, 16, 20)
    for i, share in enumerate(shares or [0.5] * n):
        mask[i].view(-1)[: round(share * 320)] = 1
    names = [f"p{seed}_{i}" for i in range(n)]
    label = draw(seed + 2, n, 16, 20, high=3).long()
    return Pictures(draw(seed, n, 3, 16, 20), draw(seed + 1, n, 3, 16, 20), mask, label, names)


class Brightest(nn.Module):
    """Class of a pixel: its strongest colour."""

    def forward(self, rgb: Tensor) -> Tensor:
        return rgb


class FourNumbers(nn.Module):
    """Stands for Inception: 2048 numbers of which few vary."""

    calls = 0

    def features(self, x: Tensor) -> Tensor:
        self.calls += len(x)
        means = x.double().mean((2, 3)).float()
        return torch.cat([means, means[:, :1] * means[:, 1:2], torch.zeros(len(x), 2044)], 1)


def feature_metric(**settings: object) -> FeatureMetrics:
    source = InceptionFile(path=Path("weights.pth"), sha256="0123456789", torchscript=False)
    return FeatureMetrics(FourNumbers(), source, device=torch.device("cpu"), **settings)  # type: ignore[arg-type]


def segmentation_metric() -> SegmentationMetric:
    segmenter = Segmenter("bright", Brightest(), ("r", "g", "b"), 16, "", "", torch.device("cpu"))
    return SegmentationMetric(segmenter, table=torch.arange(3), ignore_label=None, names=("miou", "acc", "class_acc"))


@pytest.mark.parametrize("make", [segmentation_metric, Reconstruction, feature_metric])
def test_a_subset_is_what_its_pictures_alone_would_give(make: type[Metric]) -> None:
    """Also: the value does not depend on the order or the batch size."""
    everything, part, single = make(), make(), make()
    batch = pictures(9)

    def some(indices: list[int]) -> Pictures:
        assert batch.mask is not None and batch.label is not None
        names = [batch.name[i] for i in indices]
        return Pictures(batch.fake[indices], batch.real[indices], batch.mask[indices], batch.label[indices], names)

    everything.update(batch)
    for i in (8, 0, 3, 1, 2, 7, 6, 5, 4):
        single.update(some([i]))
    part.update(some([1, 4, 5, 8]))
    times = torch.tensor([0, 1, 0, 0, 1, 1, 0, 0, 1])
    expected = part.compute()
    assert everything.subset(times) == pytest.approx({name: value.value for name, value in expected.items()}, rel=1e-4)
    for name, value in single.compute().items():
        assert value.value == pytest.approx(everything.compute()[name].value, rel=1e-4)


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    metric = Reconstruction(("l1_whole",))
    metric.values["l1_whole"] = torch.randn(400, generator=torch.Generator().manual_seed(1)).tolist()
    value = with_intervals(metric, metric.compute(), count=400, resamples=2000)["l1_whole"]
    low, high = value.extra["ci95"]
    error = np.std(metric.values["l1_whole"], ddof=1) / 20
    assert (low, high) == pytest.approx((value.value - 1.96 * error, value.value + 1.96 * error), abs=0.2 * error)
    assert value.extra["bootstrap"] == 2000


def test_the_interval_of_fid_surrounds_it_and_its_cost_is_bounded() -> None:
    metric = feature_metric(names=("fid", "kid", "prdc"))
    metric.update(pictures(30))
    values = with_intervals(metric, metric.compute(), count=30, resamples=1000)
    low, high = values["fid"].extra["ci95"]
    assert low < values["fid"].value < high
    assert values["fid"].extra["bootstrap"] == 200
    assert all("ci95" not in value.extra for name, value in values.items() if name != "fid")


def test_bins_hold_each_picture_once() -> None:
    metric, shares = Reconstruction(("l1",)), [0.0, 0.1, 0.11, 0.45, 0.5, 0.75, 1.0]
    evaluator = Evaluator([metric])
    evaluator.update(pictures(7, shares=shares))
    assert evaluator.share == pytest.approx(shares, abs=0.01)
    bins = with_bins(metric, metric.compute(), share=torch.tensor(shares))["l1_masked"].extra["bins"]
    assert {key: entry["pictures"] for key, entry in bins.items()} == {
        "0-10%": 2,
        "10-20%": 1,
        "40-50%": 2,
        "50-100%": 2,
    }
    each = metric.values["l1_masked"]
    assert bins["0-10%"]["value"] == pytest.approx(each[1])  # the empty mask has no value
    assert bins["50-100%"]["value"] == pytest.approx((each[5] + each[6]) / 2)
    assert evaluator.compute()["l1_masked"].extra["bins"].keys() == bins.keys()


def test_seeds_are_summarised_by_task() -> None:
    def line(run: str, seed: int, task: str, fid: float) -> dict[str, object]:
        return {"task": task, "step": 5, "metrics": {"fid": fid}, "protocol": {"run": run, "seed": seed}}

    lines = [
        line("a", 0, "class", 9.0),
        line("a", 0, "class", 3.0),
        line("b", 1, "class", 5.0),
        line("a", 0, "brush", 1.0),
    ]
    found = summarise(lines)
    assert found["class"]["fid"] == pytest.approx((4.0, math.sqrt(2), 2))  # the first line was measured again
    assert found["brush"]["fid"][2] == 1
    assert "4 +- 1.414  (2 runs)" in format_summary(found)
    later = {**line("a", 0, "class", 1.0), "step": 9}
    assert summarise([*lines, later])["class"]["fid"] == pytest.approx((3.0, math.sqrt(8), 2))  # a step is no run
    with pytest.raises(UserError, match=r"(?s)fid, class: .*not one metric"):
        summarise([{**one, "details": {"fid": {"protocol": str(one["metrics"])}}} for one in lines])
    assert math.isnan(mean_and_spread([1.0])[1])


def test_real_pictures_are_read_from_the_cache_and_a_broken_file_is_made_again(tmp_path: Path) -> None:
    first, batch = feature_metric(cache_dir=tmp_path), pictures(5)
    first.update(batch)
    assert first.net.calls == 10
    second = feature_metric(cache_dir=tmp_path)
    second.update(batch)
    assert second.net.calls == 5
    assert torch.equal(second.real, first.real)
    assert second.cache is not None and second.cache.found == 5
    broken = next(tmp_path.rglob("*.f32"))
    broken.write_bytes(b"short")
    third = feature_metric(cache_dir=tmp_path)
    third.update(batch)
    assert third.net.calls == 6
    assert torch.equal(third.real, first.real)
    other = feature_metric(cache_dir=tmp_path, variant="clean")
    other.update(batch)
    assert other.net.calls == 10  # another preparation has other features
    assert FeatureCache(tmp_path, width=2048).get(b"unknown") is None


def test_the_cache_lies_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache_dir() == Path("/somewhere/semedit")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "semedit"


def test_sets_without_pairs_give_the_same_distance() -> None:
    paired, sets = feature_metric(), feature_metric()
    batch = pictures(8)
    paired.update(batch)
    sets.add_sets(fake=list(batch.fake[:3]), real=[])
    sets.add_sets(fake=list(batch.fake[3:]), real=list(batch.real))
    assert sets.compute()["fid"].value == pytest.approx(paired.compute()["fid"].value)
    assert sets.subset(torch.ones(8, dtype=torch.int64)) == {}
    assert sets.compute()["fid"].value == pytest.approx(frechet_distance(sets.generated, sets.real))


@pytest.mark.parametrize(
    ("rows", "columns", "box"),
    [
        (slice(10, 60), slice(20, 90), (10, 60, 20, 90)),
        (slice(50, 54), slice(0, 2), (36, 68, 0, 32)),  # grown to 32 about its middle, shifted into the picture
        (slice(0, 64), slice(99, 100), (0, 64, 68, 100)),
    ],
)
def test_the_region_is_the_box_around_the_mask(rows: slice, columns: slice, box: tuple[int, ...]) -> None:
    mask = torch.zeros(1, 70, 100)
    mask[:, rows, columns] = 1
    assert region_box(mask) == box


def test_pictures_without_a_mask_have_no_region() -> None:
    metric = feature_metric(variant="region")
    batch = pictures(4, shares=[0.5, 0.0, 0.5, 1.0])
    metric.update(batch)
    assert metric.compute()["fid_region"].count == 3
    assert region_box(torch.zeros(1, 9, 9)) is None
    assert region_box(torch.ones(1, 9, 9)) == (0, 9, 0, 9)
    found = metric.subset(torch.tensor([1, 5, 1, 0]))["fid_region"]
    assert found == pytest.approx(frechet_distance(metric.generated[:2], metric.real[:2]), rel=1e-4)
