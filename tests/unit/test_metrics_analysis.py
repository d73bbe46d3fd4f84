"""Intervals, bins and summaries; the feature cache; the regions of fid_region."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_disks import fill, small_disk
from torch import Tensor, nn

from metrics.analysis import with_bins, with_intervals
from metrics.evaluator import Evaluator
from metrics.features.cache import FeatureCache, default_cache_dir
from metrics.features.frechet import frechet_distance
from metrics.features.inception import InceptionFile
from metrics.features.region import region_box
from metrics.features.set_metrics import FeatureMetrics
from metrics.metric import Metric
from metrics.pictures import Pictures
from metrics.pixels.reconstruction import Reconstruction
from metrics.reporting.summary import format_summary, mean_and_spread, summarise
from metrics.segments.segmentation import SegmentationMetric
from metrics.segments.segmenter import Segmenter
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


def reconstruction_metric() -> Reconstruction:
    return Reconstruction(("l1_masked", "psnr_masked", "ssim_masked"))


def feature_metric(**settings: object) -> FeatureMetrics:
    source = InceptionFile(path=Path("weights.pth"), sha256="0123456789", torchscript=False)
    return FeatureMetrics(FourNumbers(), source, device=torch.device("cpu"), **settings)  # type: ignore[arg-type]


def segmentation_metric() -> SegmentationMetric:
    segmenter = Segmenter("bright", Brightest(), ("r", "g", "b"), 16, "", "", torch.device("cpu"))
    return SegmentationMetric(segmenter, table=torch.arange(3), ignore_label=None, names=("miou", "acc", "class_acc"))


@pytest.mark.parametrize("make", [segmentation_metric, reconstruction_metric, feature_metric])
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
    each = 0.5 + 0.1 * torch.randn(400, generator=torch.Generator().manual_seed(1))
    metric.each["l1_whole"] = [*each.tolist(), math.nan]
    value = with_intervals(metric, metric.compute(), metric.influence(torch.arange(401)))["l1_whole"]
    error = np.std(metric.each["l1_whole"][:400], ddof=1) / 20
    ends = (value.value - 1.97 * error, value.value + 1.97 * error)
    assert value.extra["ci95"] == pytest.approx(ends, abs=0.02 * error)


def test_intervals_of_features_surround_the_values_without_the_network() -> None:
    metric = feature_metric(names=("fid", "kid", "prdc"))
    metric.update(pictures(30))
    values, calls = metric.compute(), metric.net.calls
    values = with_intervals(metric, values, metric.influence(torch.arange(30)))
    assert metric.net.calls == calls
    assert [name for name, value in values.items() if "ci95" in value.extra] == ["fid", "kid"]
    for name in ("fid", "kid"):
        low, high = values[name].extra["ci95"]
        assert low < values[name].value < high, name


def test_bins_hold_each_picture_once() -> None:
    metric, shares = Reconstruction(("l1_masked",)), [0.0, 0.1, 0.11, 0.45, 0.5, 0.75, 1.0]
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
    each = metric.each["l1_masked"]
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
    found, notes = summarise(lines)
    assert notes == []
    assert found["class"]["fid"] == pytest.approx((4.0, math.sqrt(2), 2))  # the first line was measured again
    assert found["brush"]["fid"][2] == 1
    assert "4 +- 1.414  (2 runs)" in format_summary(found)
    later = {**line("a", 0, "class", 1.0), "step": 9}
    assert summarise([*lines, later])[0]["class"]["fid"] == pytest.approx((3.0, math.sqrt(8), 2))  # a step is no run
    assert math.isnan(mean_and_spread([1.0])[1])


def test_ablations_of_one_method_have_no_mean() -> None:
    def line(run: str, **flags: object) -> dict[str, object]:
        return {"task": "class", "step": 5, "metrics": {"fid": 1.0}, "protocol": {"run": run, "model": "m", **flags}}

    usual, again = (line(run, method_flags={"ngf": 8}) for run in "ab")
    ablation = line("c", method_flags={"ngf": 8, "multi_scale": False})
    older = line("d")  # says nothing of flags
    assert summarise([usual, again, older])[0]["class"]["fid"][2] == 3
    with pytest.raises(
        UserError, match=r"its flags: ngf 8 \(a, seed None\); ngf 8, multi_scale False \(c, seed None\)"
    ):
        summarise([usual, ablation, older])
    with pytest.raises(UserError, match="its flags: as by default"):
        summarise([line("e", method_flags={}), usual])


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_images", 9), ("protocol/crop_size", 64), ("protocol/real_set", "other"), ("details/fid/unit", "%"),
     ("details/fid/weights_sha256", "other"), ("details/fid/label_nc", 35), ("details/fid/transformers", "5.1")],
)  # fmt: skip
def test_seeds_of_other_protocols_have_no_mean(field: str, value: object) -> None:
    def line(seed: int, field: str = "", value: object = None, count: int = 8) -> dict[str, object]:
        detail = {"unit": "distance", "protocol": "p", "count": count, "label_nc": 34, "transformers": "5.0",
                  "weights_sha256": "a"}  # fmt: skip
        protocol = {"run": "r", "seed": seed, "mask_set": f"m{seed}", "crop_size": 32, "real_set": "x"}
        made = {"task": "class", "step": 5, "num_images": 8, "metrics": {"fid": 1.0}, "protocol": protocol}
        made["details"] = {"fid": detail}
        place = made
        *path, last = field.split("/")
        for part in path:
            place = place[part]
        if field:
            place[last] = value
        return made

    name = field.rpartition("/")[2]
    with pytest.raises(UserError, match=rf"(?s)class: .*no mean.*{name}: .*\(r, seed 0\).*\(r, seed 1\)"):
        summarise([line(0), line(1, field, value)])
    found, notes = summarise([line(0), line(1), line(2, count=7)])  # masks of another seed: fewer pictures have a value
    assert found["class"]["fid"][2] == 3
    assert notes == ["class: counts differ: fid: count: 8 (r, seed 0, r, seed 1); 7 (r, seed 2)"]


def test_pictures_are_read_from_the_cache_and_a_broken_file_is_made_again(tmp_path: Path) -> None:
    first, batch = feature_metric(cache_dir=tmp_path), pictures(5)
    first.update(batch)
    assert first.net.calls == 10
    second = feature_metric(cache_dir=tmp_path)
    second.update(batch)
    assert second.net.calls == 0
    assert torch.equal(second.sets().real, first.sets().real)
    assert torch.equal(second.sets().generated, first.sets().generated)
    assert second.cache is not None and second.cache.found == 10
    second.compute()
    assert not any("kept" in note for note in second.notes)
    cut, changed, older, *_ = sorted(tmp_path.rglob("*.f32"))
    cut.write_bytes(cut.read_bytes()[:-1])
    data = bytearray(changed.read_bytes())
    data[2] ^= 1
    changed.write_bytes(data)
    older.write_bytes(older.read_bytes()[: 4 * 2048])
    third = feature_metric(cache_dir=tmp_path)
    third.update(batch)
    assert third.net.calls == 3
    assert torch.equal(third.sets().real, first.sets().real)
    third.compute()
    assert "3 kept features were damaged" in third.notes[0]
    again = feature_metric(cache_dir=tmp_path)
    again.update(batch)
    assert again.net.calls == 0
    other = feature_metric(cache_dir=tmp_path, variant="clean")
    other.update(batch)
    assert other.net.calls == 10  # another preparation has other features
    assert FeatureCache(tmp_path, width=2048).get(b"unknown") is None


def test_a_full_disk_ends_the_keeping_and_not_the_scoring(tmp_path: Path) -> None:
    batch = pictures(5)
    expected = feature_metric()
    expected.update(batch)
    with small_disk(tmp_path):
        fill(tmp_path, free=3 << 12)  # a folder takes none of a tmpfs, a file of features three pages
        metric = feature_metric(cache_dir=tmp_path)
        metric.update(batch)
        assert torch.equal(metric.sets().real, expected.sets().real)
        metric.compute()
        assert "could not be kept ([Errno 28]" in metric.notes[0] and "--cache_dir DIR" in metric.notes[0]
        files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "filler"]
        assert [path.suffix for path in files] == [".f32"]
        (tmp_path / "filler").unlink()
        again = feature_metric(cache_dir=tmp_path)
        again.update(batch)
        again.compute()
        assert again.cache is not None and again.cache.found == 1
        assert not any("kept" in note for note in again.notes)


def test_the_cache_lies_in_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "somewhere"))
    assert default_cache_dir() == tmp_path / "somewhere" / "semedit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert default_cache_dir() == tmp_path / ".cache" / "semedit"


def test_sets_without_pairs_give_the_same_distance() -> None:
    paired, sets = feature_metric(), feature_metric()
    batch = pictures(8)
    paired.update(batch)
    named = dict(zip(batch.name, batch.fake, strict=True))
    sets.add_sets(fake={name: named[name] for name in batch.name[:3]}, real={})
    rest = {name: named[name] for name in batch.name[3:]}
    sets.add_sets(fake=rest, real=dict(zip(batch.name, batch.real, strict=True)))
    assert sets.compute()["fid"].value == pytest.approx(paired.compute()["fid"].value)
    assert sets.subset(torch.ones(8, dtype=torch.int64)) == {}
    generated, real = sets.influence(torch.arange(8), torch.arange(8))["fid"]
    assert torch.allclose(generated + real, paired.influence(torch.arange(8))["fid"][0])
    found = sets.sets()
    assert sets.compute()["fid"].value == pytest.approx(frechet_distance(found.generated, found.real))


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
    sets = metric.sets()
    expected = frechet_distance(sets.generated[:2], sets.real[:2])
    assert metric.subset(torch.tensor([1, 5, 1, 0]))["fid_region"] == pytest.approx(expected, rel=1e-4)
    assert metric.influence(torch.arange(4))["fid_region"][0].isnan().tolist() == [False, True, False, False]
