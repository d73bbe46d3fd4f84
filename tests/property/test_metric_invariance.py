"""No metric's value, bin or interval depends on the order in which pictures are read, on batches or on their sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from metrics.evaluator import Evaluator
from metrics.features.inception import FEATURES, InceptionFile
from metrics.features.lpips import LPIPS
from metrics.features.perceptual import Perceptual
from metrics.features.set_metrics import VARIANTS, FeatureMetrics
from metrics.folders import Loaded, batches
from metrics.metric import Metric, MetricValue
from metrics.pixels.brightness import Brightness
from metrics.pixels.reconstruction import Reconstruction
from metrics.pixels.seam import Seam
from metrics.pixels.style import Style
from metrics.registry import EDITING, METRICS
from metrics.segments.segmentation import SegmentationMetric
from metrics.segments.segmenter import Segmenter

COUNT, CPU = 18, torch.device("cpu")
SIZES = ((48, 40), (40, 56))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Projected(nn.Module):
    """Stands for Inception: a dozen random projections of the prepared picture, all of which vary."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.randn(3 * 8 * 8, 12, generator=generator(1), dtype=torch.float64)

    def features(self, x: Tensor) -> Tensor:
        found = F.adaptive_avg_pool2d(x.double(), 8).flatten(1) @ self.mix
        return F.pad(found, (0, FEATURES - 12)).float()


class Brightest(nn.Module):
    def forward(self, rgb: Tensor) -> Tensor:
        return rgb


def perceptual() -> Perceptual:
    with torch.device("meta"):
        shapes = models.alexnet().features.state_dict()
    draw = generator(9)
    backbone = {
        f"features.{key}": torch.randn(tensor.shape, generator=draw) * (2 / max(1, tensor[0].numel())) ** 0.5
        for key, tensor in shapes.items()
    }
    heads = {
        f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1, generator=draw) for k, c in enumerate((64, 192, 384, 256, 256))
    }
    files = type("Files", (), {})()
    return Perceptual(LPIPS(net="alex", backbone=backbone, heads=heads), files, device=CPU, kinds=("lpips", "div"))


def all_metrics() -> list[Metric]:
    source = InceptionFile(path=Path("weights.pth"), sha256="0123456789", torchscript=False)
    from_features: list[Metric] = [
        FeatureMetrics(
            Projected(),  # type: ignore[arg-type]
            source,
            device=CPU,
            names=tuple(members.values()),
            variant=variant,
        )
        for variant, members in VARIANTS.items()
    ]
    for metric in from_features:
        metric.smallest_bin = 4
    segmenter = Segmenter("bright", Brightest(), ("r", "g", "b"), 16, "", "", CPU)
    segmentation = SegmentationMetric(
        segmenter, table=torch.arange(3), ignore_label=None, names=tuple(SegmentationMetric.values)
    )
    reconstruction = Reconstruction(tuple(Reconstruction.values))
    return [*from_features, segmentation, reconstruction, perceptual(), Seam(), Brightness(), Style()]


def one(k: int) -> Loaded:
    """A result with two draws, of one of two sizes; its name sorts elsewhere than its number."""
    draw, (h, w) = generator(k), SIZES[k % 2]
    real, *draws = (torch.randint(0, 256, (3, h, w), generator=draw, dtype=torch.uint8) for _ in range(3))
    mask = torch.zeros(1, h, w, dtype=torch.uint8)
    mask[:, 4 : 12 + 12 * (k % 3), 3:30] = 1
    label, inst = (torch.randint(0, high, (h, w), generator=draw) for high in (3, 2))
    composed = torch.stack([torch.where(mask > 0, d // 4 + 64, real) for d in draws])
    return Loaded(f"n{5 * k % COUNT:02}", composed, real, mask, label, inst)


@pytest.fixture(scope="module")
def results() -> list[Loaded]:
    return [one(k) for k in range(COUNT)]


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return Evaluator(all_metrics(), intervals=True)


def score(evaluator: Evaluator, results: list[Loaded], batch_size: int) -> dict[str, MetricValue]:
    evaluator.reset()
    for start in range(0, len(results), batch_size):
        for pictures in batches(results[start : start + batch_size]):
            evaluator.update(pictures)
    return evaluator.compute()


@pytest.fixture(scope="module")
def expected(evaluator: Evaluator, results: list[Loaded]) -> dict[str, MetricValue]:
    return score(evaluator, results, COUNT)


def test_every_metric_and_interval_is_here(expected: dict[str, MetricValue]) -> None:
    words = {name.removesuffix("_bright" if name.endswith("_bright") else "_masked") for name in expected}
    prdc = {"precision", "recall", "density", "coverage"}
    split = {"lpips_whole": "lpips", "div_whole": "div", "style_colour": "style", "style_texture": "style"}
    assert {split.get(word, "prdc" if word in prdc else word) for word in words} == set(METRICS.names(EDITING)) - {
        "fid_infinity"
    }  # which needs thousands of pictures
    for name, value in expected.items():
        assert value.extra["bins"], name
        assert ("ci95" in value.extra) == (name not in prdc), name
        if name not in prdc:
            low, high = value.extra["ci95"]
            assert low < value.value < high, name


@settings(deadline=None, max_examples=8)
@given(st.permutations(range(COUNT)), st.sampled_from([1, 3, COUNT]))
def test_order_and_batches_change_nothing(
    evaluator: Evaluator,
    results: list[Loaded],
    expected: dict[str, MetricValue],
    order: list[int],
    batch_size: int,
) -> None:
    found = score(evaluator, [results[i] for i in order], batch_size)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        other = found[name]
        assert other.value == pytest.approx(value.value, rel=1e-5, abs=1e-7), name
        assert ("ci95" in other.extra) == ("ci95" in value.extra), name
        if "ci95" in value.extra:
            assert other.extra["ci95"] == pytest.approx(value.extra["ci95"], rel=1e-4, abs=1e-6), name
        assert other.extra["bins"].keys() == value.extra["bins"].keys(), name
        for key, entry in value.extra["bins"].items():
            same = pytest.approx(entry["value"], rel=1e-4, abs=1e-6)
            assert other.extra["bins"][key] == {"value": same, "pictures": entry["pictures"]}, name
        for kind in {"standard_error", "real", "signed"} & value.extra.keys():
            assert other.extra[kind] == pytest.approx(value.extra[kind], rel=1e-5), name
