"""Mean intersection over union and pixel accuracy of a segmenter's view of the pictures against the given labels.

One confusion matrix over all pixels of all pictures; never averaged per picture.
Shapes: B pictures, H x W pixels, C classes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from metrics.declaration import Flag, LeftOutError, Setup, Value
from metrics.influence import Parts
from metrics.metric import Metric, MetricValue
from metrics.pictures import Distinct, Pictures
from metrics.registry import EDITING, METRICS
from metrics.segments.confusion import Tally, score
from metrics.segments.segmenter import IGNORED, Segmenter, label_table
from metrics.segments.segmenters import LOADING_FLAGS, read_segmenter
from util.errors import DataError
from util.opt import Opt

MASKED = "_masked"
NO_CEILING = "without the real pictures' score, as these do not show what the labels ask for"
NO_SEGMENTER = (
    "mIoU and accuracy left out: name a segmenter with --segmenter RUN|streets|espnet_camvid|espnet_cityscapes|"
    "hf:ID|export:FILE; "
    "`python scripts/train_segmenter.py --dataset_mode MODE --dataroot DIR --name RUN` trains one."
)
_PER_CLASS = "accuracy of each class and the confusion matrix"
SEGMENTER_FLAGS = (
    Flag("per_class", {"action": argparse.BooleanOptionalAction, "default": False, "help": _PER_CLASS}),
    *LOADING_FLAGS,
)


@METRICS.register
class SegmentationMetric(Metric):
    """`miou_<segmenter>`, `acc_<segmenter>`, `class_acc_<segmenter>` of the generated pictures, whole or masked pixels.

    The real pictures' score is in `extra`. Counts of every picture are kept (sparse), for bins and intervals.

    Args:
        table: the segmenter's class of each label id, see `label_table`.
        ignore_label: an id that is left out, which may lie outside the table (255).
        names: which of `values` to report.
        per_class: add the confusion matrix and the accuracy of each class.
    """

    values = {
        "miou": Value("%", "mean IoU over the classes in the labels", limits=(0, 100)),
        "acc": Value("%", "share of labelled pixels that is right", limits=(0, 100)),
        "class_acc": Value(
            "%", "mean over the classes in the labels of the share of their pixels that is right", limits=(0, 100)
        ),
        f"miou{MASKED}": Value("%", "mean IoU over the classes in the labels of masked pixels", limits=(0, 100)),
        f"acc{MASKED}": Value("%", "share of labelled masked pixels that is right", limits=(0, 100)),
    }
    asked = {EDITING: tuple(values)}
    needs = {name: ("labels", "masks") if name.endswith(MASKED) else ("labels",) for name in values}
    flags = SEGMENTER_FLAGS
    place = 20

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        table: Tensor,
        ignore_label: int | None,
        names: tuple[str, ...] = ("miou", "acc"),
        per_class: bool = False,
    ) -> None:
        super().__init__()
        self.per_class = per_class
        self.segmenter, self.table, self.ignore_label, self.names = segmenter, table, ignore_label, names
        self.reset()

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        opt, ignored = setup.opt, setup.ignore_label
        if not opt.segmenter:
            raise LeftOutError(NO_SEGMENTER)
        net = read_segmenter(opt, setup.device)
        known = max([net.num_classes - 1, *(net.label_map or {})]) + 1  # a class map tells the highest label id
        count = known if setup.label_nc is None else setup.label_nc
        table = label_table(net, label_nc=count, ignore_label=ignored, class_names=setup.class_names)
        wanted = tuple(name for name in cls.values if name in names)
        return [cls(net, table=table, ignore_label=ignored, names=wanted, per_class=opt.per_class)]

    @classmethod
    def check(cls, names: tuple[str, ...], opt: Opt) -> None:
        if opt.segmenter:
            read_segmenter(opt, torch.device("cpu"))

    @classmethod
    def declared(cls, value: str) -> Value | None:
        """Return what is declared of `<value>_<segmenter>`, or of a column of whatever segmenter."""
        longest_first = sorted(cls.values.items(), key=lambda item: -len(item[0]))
        return next((known for name, known in longest_first if f"{value}_".startswith(f"{name}_")), None)

    @property
    def label_nc(self) -> int:
        """Number of label ids that may occur."""
        return len(self.table)

    def confusion(self) -> tuple[tuple[str, ...], Tensor] | None:
        counts = self.whole.generated.counts
        return (self.segmenter.class_names, counts) if counts.any() else None

    def shown_classes(self) -> list[list[str]]:
        tally = self.masked if self.masked.pictures else self.whole
        return [[self.segmenter.class_names[i] for i in classes] for classes in tally.labelled()]

    def reset(self) -> None:
        self._distinct = Distinct()
        self.seen = 0
        self.whole, self.masked = (Tally(self.segmenter.num_classes) for _ in range(2))

    def update(self, pictures: Pictures) -> None:
        if pictures.label is None:
            raise DataError(f"{pictures.name[0]}: mIoU and accuracy need label maps")
        fresh = self._distinct.new(pictures) if pictures.has_truth else []
        label = self._classes(pictures)
        prediction = self.segmenter.predict(torch.cat([pictures.fake, pictures.real[fresh]]))
        self.seen += len(pictures)
        mask = torch.zeros_like(label) if pictures.mask is None else pictures.mask[:, 0].to(label.device)
        for tally, labels in ((self.whole, label), (self.masked, torch.where(mask > 0, label, IGNORED))):
            for truth, predicted in zip(labels, prediction, strict=False):
                tally.add(truth, predicted)
            tally.real.add(labels[fresh], prediction[len(pictures) :])

    def _tally(self, metric: str) -> Tally:
        return self.masked if metric.endswith(MASKED) else self.whole

    def compute(self) -> dict[str, MetricValue]:
        known = [metric for metric in self.names if self._tally(metric).pictures]
        lacking = [metric for metric in self.names if metric not in known]
        where = "" if any(metric in lacking for metric in self.names if not metric.endswith(MASKED)) else "masked "
        self.notes = []
        if lacking:
            what = f"no {where}pixel has a label that {self.segmenter.name} knows"
            self.notes.append(f"{self._listed(lacking)}: left out, {what}")
        if known and not len(self._distinct):
            self.notes.append(f"{self._listed(known)}: {NO_CEILING}")
        return {f"{metric}_{self.segmenter.name}": self._value(metric) for metric in known}

    def subset(self, times: Tensor) -> dict[str, float]:
        values = {}
        for metric in self.names:
            confusion = self._tally(metric).weighted(times)
            if confusion.counts.any():
                values[f"{metric}_{self.segmenter.name}"] = score(confusion, metric.removesuffix(MASKED))
        return values

    def influence(self, units: Tensor, real_units: Tensor | None = None) -> dict[str, Parts]:
        """Return the jackknife's influences: a class may vanish with the only unit that shows it."""
        found: dict[str, Parts] = {}
        for metric in self.names:
            without = self._tally(metric).without(units, metric.removesuffix(MASKED))
            known = int((~without.isnan()).sum())
            if known > 1:
                found[f"{metric}_{self.segmenter.name}"] = ((without.nanmean() - without) * (known - 1) / known,)
        return found

    def per_picture(self) -> dict[str, list[float]]:
        return {
            f"{metric}_{self.segmenter.name}": self._tally(metric).scores(metric.removesuffix(MASKED))
            for metric in self.names
        }

    def _listed(self, metrics: Sequence[str]) -> str:
        return ", ".join(f"{metric}_{self.segmenter.name}" for metric in metrics)

    def _classes(self, pictures: Pictures) -> Tensor:
        """Map label ids to the segmenter's classes; raises `DataError` for an id outside the data set's classes."""
        assert pictures.label is not None
        label = pictures.label.to(self.segmenter.device)
        ignored = torch.zeros_like(label, dtype=torch.bool) if self.ignore_label is None else label == self.ignore_label
        outside = ((label < 0) | (label >= len(self.table))) & ~ignored
        if bool(outside.any()):
            picture, row, column = outside.nonzero()[0].tolist()
            raise DataError(
                f"{pictures.name[picture]}: label {int(label[picture, row, column])} lies outside "
                f"0..{len(self.table) - 1}; leave it out with --ignore_label ID or change it with --label_map OLD:NEW"
            )
        inside = torch.where(ignored, 0, label)
        return torch.where(ignored, IGNORED, self.table.to(label.device)[inside])

    def _value(self, metric: str) -> MetricValue:
        tally, stem = self._tally(metric), metric.removesuffix(MASKED)
        generated, real = score(tally.generated, stem), score(tally.real, stem)
        extra = {
            **({"real": real} if len(self._distinct) else {}),
            "num_real": len(self._distinct),
            "pixels": int(tally.generated.counts.sum()),
            "label_nc": len(self.table),
            "ignore_label": self.ignore_label,
            "segmenter": self.segmenter.name,
            "weights": self.segmenter.weights,
            "weights_sha256": self.segmenter.sha256,
            **(self.segmenter.notes or {}),
        }
        if stem == "miou":
            extra["iou_per_class"] = self._per_class(tally.generated.iou())
            extra["iou_per_class_real"] = self._per_class(tally.real.iou())
        if self.per_class and metric == self.names[0]:
            extra["acc_per_class"] = self._per_class(tally.generated.recall())
            counts = tally.generated.counts
            extra["pixels_per_class"] = dict(zip(self.segmenter.class_names, counts.sum(1).tolist(), strict=True))
            extra["confusion"] = counts.tolist()
        pixels = "masked pixels" if tally is self.masked else "pixels"
        protocol = (
            f"{self.values[metric].protocol}, one confusion matrix over all {pixels}; {self.segmenter.name} at "
            f"{self.segmenter.short_side} pixels short side, logits scaled back bilinearly"
        )
        count = tally.pictures if tally is self.masked else self.seen
        return MetricValue(generated, "%", protocol, count, extra)

    def _per_class(self, shares: Tensor) -> dict[str, float]:
        named = zip(self.segmenter.class_names, shares.tolist(), strict=True)
        return {name: round(100 * value, 3) for name, value in named if value == value}


def class_table(values: Mapping[str, MetricValue]) -> str:
    """Return a line per class of what --per_class asks for: IoU, that on real pictures, accuracy, pixels; else ''."""
    extra = next((value.extra for value in values.values() if "acc_per_class" in value.extra), None)
    if extra is None:
        return ""
    columns = {"iou": "iou_per_class", "real": "iou_per_class_real", "acc": "acc_per_class"}
    lines = [f"{'class':24}{''.join(f'{name:>9}' for name in columns)}{'pixels':>12}"]
    for name, pixels in extra["pixels_per_class"].items():
        numbers = (extra.get(key, {}).get(name) for key in columns.values())
        cells = "".join(f"{'-' if number is None else f'{number:.2f}':>9}" for number in numbers)
        lines.append(f"{name:24}{cells}{pixels:12}")
    return "\n".join(lines)
