"""Mean intersection over union and pixel accuracy of a segmenter's view of the pictures against the given labels.

One confusion matrix over all pixels of all pictures; never averaged per picture.
Shapes: B pictures, H x W pixels, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metrics.base import Distinct, Metric, MetricValue, Pictures
from metrics.segmenters import IGNORED, Segmenter
from util.errors import DataError

_WHAT = {"miou": "mean IoU over the classes in the labels", "acc": "share of labelled pixels that is right"}


class Confusion:
    """Counts of pixels (C,C) int64: row = label, column = prediction. Labels of -1 are left out."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def add(self, label: Tensor, prediction: Tensor) -> None:
        """Count pixels; `label` in -1..C-1 and `prediction` in 0..C-1 have one shape."""
        keep = label != IGNORED
        pairs = label[keep] * self.num_classes + prediction[keep]
        self.counts += torch.bincount(pairs, minlength=self.num_classes**2).view_as(self.counts).cpu()

    def iou(self) -> Tensor:
        """Intersection over union per class (C,) float64; NaN for a class that no label pixel has."""
        hit = self.counts.diagonal().double()
        present = self.counts.sum(1)
        iou = hit / (present + self.counts.sum(0) - hit)
        return torch.where(present > 0, iou, torch.nan)

    def miou(self) -> float:
        """Mean IoU in percent over the classes that occur in the labels; NaN when no pixel was counted."""
        return 100 * float(self.iou().nanmean())

    def accuracy(self) -> float:
        """Share of counted pixels with the right class in percent; NaN when no pixel was counted."""
        return 100 * float(self.counts.diagonal().sum() / self.counts.sum())


class SegmentationMetric(Metric):
    """`miou_<segmenter>` and `acc_<segmenter>` of the generated pictures; the real ones' score stands in `extra`.

    Args:
        table: the segmenter's class of each label id, see `label_table`.
        ignore_label: an id that is left out, which may lie outside the table (255).
        names: which of 'miou' and 'acc' to report.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        table: Tensor,
        ignore_label: int | None,
        names: tuple[str, ...] = ("miou", "acc"),
    ) -> None:
        super().__init__()
        self.segmenter, self.table, self.ignore_label, self.names = segmenter, table, ignore_label, names
        self.reset()

    def reset(self) -> None:
        self._distinct = Distinct()
        self.generated = Confusion(self.segmenter.num_classes)
        self.real = Confusion(self.segmenter.num_classes)
        self._count = 0

    def update(self, pictures: Pictures) -> None:
        fresh = self._distinct.new(pictures)
        label = self._classes(pictures)
        prediction = self.segmenter.predict(torch.cat([pictures.fake, pictures.real[fresh]]))
        self.generated.add(label, prediction[: len(pictures)])
        self.real.add(label[fresh], prediction[len(pictures) :])
        self._count += len(pictures)

    def compute(self) -> dict[str, MetricValue]:
        name = self.segmenter.name
        if not self.generated.counts.any():
            self.notes = [f"miou_{name}, acc_{name}: left out, no pixel has a label that {name} knows"]
            return {}
        self.notes = []
        return {f"{metric}_{name}": self._value(metric) for metric in self.names}

    def _classes(self, pictures: Pictures) -> Tensor:
        """Map label ids to the segmenter's classes; raises `DataError` for an id outside the data set's classes."""
        label = pictures.label.to(self.segmenter.device)
        ignored = torch.zeros_like(label, dtype=torch.bool) if self.ignore_label is None else label == self.ignore_label
        outside = ((label < 0) | (label >= len(self.table))) & ~ignored
        if bool(outside.any()):
            picture, row, column = outside.nonzero()[0].tolist()
            raise DataError(
                f"{pictures.name[picture]}: label {int(label[picture, row, column])} lies outside "
                f"0..{len(self.table) - 1}; "
                "leave it out with --ignore_label ID or change it with --label_map OLD:NEW"
            )
        inside = torch.where(ignored, 0, label)
        return torch.where(ignored, IGNORED, self.table.to(label.device)[inside])

    def _value(self, metric: str) -> MetricValue:
        score = Confusion.miou if metric == "miou" else Confusion.accuracy
        generated, real = score(self.generated), score(self.real)
        extra = {
            "real": real,
            "num_real": len(self._distinct),
            "pixels": int(self.generated.counts.sum()),
            "ignore_label": self.ignore_label,
            "segmenter": self.segmenter.name,
            "weights": self.segmenter.weights,
            "weights_sha256": self.segmenter.sha256,
            **(self.segmenter.notes or {}),
        }
        if metric == "miou":
            extra["iou_per_class"] = self._per_class(self.generated)
            extra["iou_per_class_real"] = self._per_class(self.real)
        protocol = (
            f"{_WHAT[metric]}, one confusion matrix over all pixels; {self.segmenter.name} at "
            f"{self.segmenter.short_side} pixels short side, logits scaled back bilinearly"
        )
        return MetricValue(generated, "%", protocol, self._count, extra)

    def _per_class(self, confusion: Confusion) -> dict[str, float]:
        iou = zip(self.segmenter.class_names, confusion.iou().tolist(), strict=True)
        return {name: round(100 * value, 3) for name, value in iou if value == value}
