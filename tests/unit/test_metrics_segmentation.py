"""mIoU, accuracy, label tables and the loading of segmenters."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from metrics.pictures import Pictures
from metrics.registry import METRICS
from metrics.segments.confusion import Confusion
from metrics.segments.released import CITYSCAPES_CLASSES
from metrics.segments.segmentation import SegmentationMetric, class_table
from metrics.segments.segmenter import IGNORED, Segmenter, label_table
from metrics.segments.segmenters import load_segmenter
from metrics.segments.unet import build_segmenter_net
from util.errors import DataError, UserError

CPU = torch.device("cpu")


class RedIsTheClass(nn.Module):
    """Logits that make the class of a pixel its red value (at most `n - 1`)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        return -(rgb[:, :1] - torch.arange(self.n).view(1, -1, 1, 1)).abs()


def red_segmenter(n: int = 3, short_side: int = 8, **options: object) -> Segmenter:
    names = tuple(f"c{i}" for i in range(n))
    return Segmenter(
        "red",
        RedIsTheClass(n),
        names,
        short_side=short_side,
        weights="red.pth",
        sha256="00",
        device=CPU,
        **options,  # type: ignore[arg-type]
    )


def painted(classes: torch.Tensor) -> torch.Tensor:
    picture = torch.zeros(len(classes), 3, *classes.shape[1:], dtype=torch.uint8)
    picture[:, 0] = classes.to(torch.uint8)
    return picture


def as_pictures(fake: torch.Tensor, real: torch.Tensor, label: torch.Tensor, names: list[str]) -> Pictures:
    mask = torch.ones(len(names), 1, *label.shape[1:], dtype=torch.bool)
    return Pictures(fake=painted(fake), real=painted(real), mask=mask, label=label, name=names)


def test_confusion_against_counts_by_hand() -> None:
    confusion = Confusion(4)
    confusion.add(torch.tensor([0, 0, 0, 1, 1, IGNORED, 2]), torch.tensor([0, 0, 1, 1, 3, 0, 2]))
    assert confusion.iou().tolist()[:3] == pytest.approx([2 / 3, 1 / 3, 1])
    assert math.isnan(confusion.iou()[3])  # predicted, but in no label: not averaged
    assert confusion.miou() == pytest.approx(100 * 2 / 3)
    assert confusion.accuracy() == pytest.approx(100 * 4 / 6)


def test_metric_scores_generated_and_real_pictures_in_one_run() -> None:
    label = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    wrong = label.clone()
    wrong[:, :2] = (label[:, :2] + 1) % 3
    metric = SegmentationMetric(red_segmenter(), table=torch.arange(3), ignore_label=None)
    metric.update(as_pictures(wrong, label, label, ["a", "b"]))
    values = metric.compute()
    assert values["acc_red"].value == pytest.approx(75)
    assert values["acc_red"].extra["real"] == 100
    assert values["miou_red"].extra["real"] == 100
    assert values["miou_red"].value < 75
    assert set(values["miou_red"].extra["iou_per_class"]) == {"c0", "c1", "c2"}


def test_several_draws_count_a_real_picture_once() -> None:
    label = torch.zeros(2, 8, 8, dtype=torch.int64)
    metric = SegmentationMetric(red_segmenter(), table=torch.arange(3), ignore_label=None)
    metric.update(as_pictures(label, label, label, ["a", "a"]))
    metric.update(as_pictures(label[:1], label[:1], label[:1], ["b"]))
    value = metric.compute()["acc_red"]
    assert (value.count, value.extra["num_real"], int(metric.whole.real.counts.sum())) == (3, 2, 128)


def test_the_sum_over_batches_is_one_confusion_matrix() -> None:
    generator = torch.Generator().manual_seed(3)
    label, fake = (torch.randint(0, 3, (6, 8, 8), generator=generator) for _ in range(2))
    names = [str(i) for i in range(6)]
    one, many = (SegmentationMetric(red_segmenter(), table=torch.arange(3), ignore_label=None) for _ in range(2))
    one.update(as_pictures(fake, label, label, names))
    for i in (3, 0, 5, 1, 2, 4):
        many.update(as_pictures(fake[i : i + 1], label[i : i + 1], label[i : i + 1], names[i : i + 1]))
    assert torch.equal(one.whole.generated.counts, many.whole.generated.counts)


@pytest.mark.parametrize("ignored", [2, 255])
def test_the_ignored_label_is_left_out(ignored: int) -> None:
    label = torch.zeros(1, 8, 8, dtype=torch.int64)
    label[:, :4] = ignored
    segmenter = red_segmenter()
    table = label_table(segmenter, label_nc=3, ignore_label=ignored)
    metric = SegmentationMetric(segmenter, table=table, ignore_label=ignored)
    metric.update(as_pictures(torch.zeros_like(label), torch.zeros_like(label), label, ["a"]))
    assert metric.compute()["acc_red"].extra["pixels"] == 32
    assert metric.compute()["miou_red"].value == 100


def test_a_label_outside_the_classes_names_the_picture() -> None:
    label = torch.full((1, 8, 8), 7)
    metric = SegmentationMetric(red_segmenter(), table=torch.arange(3), ignore_label=255)
    with pytest.raises(DataError, match=r"street_1: label 7 .*--ignore_label"):
        metric.update(as_pictures(torch.zeros_like(label), torch.zeros_like(label), label, ["street_1"]))


def test_published_numbers_of_whole_pictures_do_not_stand_beside_masked_ones() -> None:
    assert not METRICS.gives("miou", "miou_masked_streets")
    assert METRICS.gives("miou", "miou_streets") and METRICS.gives("miou_masked", "miou_masked_streets")
    assert METRICS.gives("fid", "fid") and not METRICS.gives("fid", "fid_clean")
    assert METRICS.gives("psnr", "psnr_whole")  # of a stylised picture


def test_only_ignored_pixels_leave_the_values_out() -> None:
    label = torch.full((1, 8, 8), 255)
    metric = SegmentationMetric(red_segmenter(), table=torch.arange(3), ignore_label=255)
    metric.update(as_pictures(label * 0, label * 0, label, ["a"]))
    assert metric.compute() == {}
    assert "left out" in metric.notes[0]


def test_predict_works_at_the_networks_scale_and_answers_at_the_pictures_size() -> None:
    seen: list[tuple[int, ...]] = []

    class Spy(RedIsTheClass):
        def forward(self, rgb: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(rgb.shape))
            return super().forward(rgb)

    segmenter = Segmenter("spy", Spy(2), ("a", "b"), short_side=360, weights="", sha256="", device=CPU)
    out = segmenter.predict(torch.zeros(9, 3, 256, 341, dtype=torch.uint8))
    assert out.shape == (9, 256, 341)
    assert out.dtype == torch.int64
    assert seen == [(8, 3, 360, 480), (1, 3, 360, 480)]


def test_cityscapes_label_ids_become_train_ids() -> None:
    names = CITYSCAPES_CLASSES
    segmenter = Segmenter(
        "espnet_cityscapes", nn.Identity(), names, short_side=512, weights="", sha256="", device=CPU, void=19
    )
    table = label_table(segmenter, label_nc=35, ignore_label=None)
    official = {"road": 7, "sky": 23, "person": 24, "rider": 25, "car": 26, "train": 31, "bicycle": 33, "pole": 17}
    assert all(names[table[label]] == name for name, label in official.items())
    assert (table != IGNORED).sum() == 19
    assert label_table(segmenter, label_nc=19, ignore_label=None).tolist() == list(range(19))
    assert label_table(segmenter, label_nc=20, ignore_label=None).tolist() == [*range(19), IGNORED]
    generic = [f"class {i}" for i in range(34)]
    assert torch.equal(label_table(segmenter, label_nc=34, ignore_label=None, class_names=generic), table[:34])
    for count, given in ((151, None), (182, None), (34, [f"thing {i}" for i in range(34)])):  # ADE20K, COCO-Stuff
        with pytest.raises(UserError, match="their ids do not mean the same"):
            label_table(segmenter, label_nc=count, ignore_label=None, class_names=given)


def test_other_classes_are_refused() -> None:
    with pytest.raises(UserError, match="knows 3 classes"):
        label_table(red_segmenter(), label_nc=5, ignore_label=None)
    with pytest.raises(UserError, match="do not mean the same"):
        label_table(red_segmenter(), label_nc=3, ignore_label=None, class_names=["sky", "road", "car"])


def write_run(folder: Path, **changes: object) -> None:
    folder.mkdir(parents=True)
    net = build_segmenter_net(arch="unet", width=2, num_classes=2)
    save_file(net.state_dict(), folder / "segmenter.safetensors")
    card = {"arch": "unet", "width": 2, "class_names": ["a", "b"], "short_side": 16, "real_test": {"miou": 50.0}}
    (folder / "segmenter.yaml").write_text(yaml.safe_dump(card | changes))


def test_a_trained_run_is_found_by_name(tmp_path: Path) -> None:
    write_run(tmp_path / "mine")
    segmenter = load_segmenter("mine", weights=None, checkpoints_dir=str(tmp_path), device=CPU)
    assert (segmenter.name, segmenter.class_names, segmenter.notes) == (
        "mine",
        ("a", "b"),
        {"when_trained": {"miou": 50.0}},
    )
    assert segmenter.predict(torch.zeros(1, 3, 20, 24, dtype=torch.uint8)).shape == (1, 20, 24)


@pytest.mark.parametrize(
    ("spec", "weights", "message"),
    [
        ("espnet_camvit", None, "Did you mean 'espnet_camvid'"),
        ("espnet_camvid", None, "Fetch https://.*--segmenter_weights FILE"),
        ("espnet_camvid", "nowhere.pth", "nowhere.pth: no such file"),
        ("min", None, "Did you mean 'mine'"),
        ("mine", "nowhere.safetensors", "nowhere.safetensors: no such file"),
        ("other_width", None, "does not fit UNet"),
        ("no_card", None, "not a segmenter's card"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, spec: str, weights: str | None, message: str) -> None:
    write_run(tmp_path / "mine")
    write_run(tmp_path / "other_width", width=3)
    write_run(tmp_path / "no_card", class_names=None)
    with pytest.raises(UserError, match=message):
        load_segmenter(spec, weights=weights, checkpoints_dir=str(tmp_path), device=CPU)


@pytest.mark.parametrize("arch", ["unet", "lraspp"])
def test_segmenter_networks_keep_the_size(arch: str) -> None:
    net = build_segmenter_net(arch=arch, width=4, num_classes=5).eval()
    assert net(torch.rand(1, 3, 40, 32) * 255).shape == (1, 5, 40, 32)


def test_the_table_of_classes_holds_what_the_confusion_matrix_says() -> None:
    label = torch.zeros(1, 8, 8, dtype=torch.int64)
    label[:, 4:] = 1
    fake = label.clone()
    fake[:, 6:] = 0
    settings = {"table": torch.arange(3), "ignore_label": None, "names": ("miou", "acc", "class_acc")}
    metric = SegmentationMetric(red_segmenter(), per_class=True, **settings)  # type: ignore[arg-type]
    metric.update(as_pictures(fake, label, label, ["a"]))
    values = metric.compute()
    assert values["class_acc_red"].value == pytest.approx(75)
    assert values["miou_red"].extra["confusion"] == [[32, 0, 0], [16, 16, 0], [0, 0, 0]]
    assert [line.split() for line in class_table(values).splitlines()] == [
        ["class", "iou", "real", "acc", "pixels"],
        ["c0", "66.67", "100.00", "100.00", "32"],
        ["c1", "50.00", "100.00", "50.00", "32"],
        ["c2", "-", "-", "-", "0"],
    ]
    assert metric.per_picture()["acc_red"] == [75]
    assert class_table({}) == ""
