"""Counts of labelled pixels by the class that a segmenter sees, and what follows from them.

Shapes: C classes, n pictures, U units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metrics.segments.segmenter import IGNORED


class Confusion:
    """Counts of pixels (C,C) int64: row = label, column = prediction. Labels of -1 are left out."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def add(self, label: Tensor, prediction: Tensor) -> Tensor:
        """Count pixels; `label` in -1..C-1 and `prediction` in 0..C-1 have one shape. Return their counts (C*C,)."""
        keep = label != IGNORED
        cells = label[keep] * self.num_classes + prediction[keep]
        counts = torch.bincount(cells, minlength=self.num_classes**2).cpu()
        self.counts += counts.view_as(self.counts)
        return counts

    def iou(self) -> Tensor:
        """Intersection over union per class (C,) float64; NaN for a class that no label pixel has."""
        hit = self.counts.diagonal().double()
        present = self.counts.sum(1)
        iou = hit / (present + self.counts.sum(0) - hit)
        return torch.where(present > 0, iou, torch.nan)

    def miou(self) -> float:
        """Mean IoU in percent over the classes that occur in the labels; NaN when no pixel was counted."""
        return 100 * float(self.iou().nanmean())

    def recall(self) -> Tensor:
        """Share of each class's pixels that is right (C,) float64; NaN for a class that no label pixel has."""
        return self.counts.diagonal().double() / self.counts.sum(1)

    def class_accuracy(self) -> float:
        """Mean of `recall` in percent; NaN when no pixel was counted."""
        return 100 * float(self.recall().nanmean())

    def accuracy(self) -> float:
        """Share of counted pixels with the right class in percent; NaN when no pixel was counted."""
        return 100 * float(self.counts.diagonal().sum() / self.counts.sum())


def score(confusion: Confusion, metric: str) -> float:
    """Return "miou", "acc" or "class_acc" in percent; NaN when no pixel was counted."""
    if metric == "miou":
        return confusion.miou()
    return confusion.accuracy() if metric == "acc" else confusion.class_accuracy()


class Tally:
    """One region of all pictures: counts of the generated and the real ones, and of each generated one (sparse)."""

    def __init__(self, num_classes: int) -> None:
        self.generated, self.real = Confusion(num_classes), Confusion(num_classes)
        self._cells: list[Tensor] = []  # of each picture: which cells of the matrix are not 0, and what they hold
        self._counts: list[Tensor] = []

    def add(self, label: Tensor, prediction: Tensor) -> None:
        """Count a generated picture."""
        counts = self.generated.add(label, prediction)
        self._cells.append(counts.nonzero().flatten())
        self._counts.append(counts[self._cells[-1]])

    def weighted(self, times: Tensor) -> Confusion:
        """Return the counts of the generated pictures, each taken `times` (n,)."""
        each = times.repeat_interleave(torch.tensor([len(cells) for cells in self._cells]))
        confusion = Confusion(self.generated.num_classes)
        confusion.counts.view(-1).index_add_(0, torch.cat(self._cells), torch.cat(self._counts) * each)
        return confusion

    def labelled(self) -> list[list[int]]:
        """Return the classes that the labels of every generated picture show."""
        return [(cells // self.generated.num_classes).unique().tolist() for cells in self._cells]

    def scores(self, metric: str) -> list[float]:
        """Return the score of every generated picture, NaN where none of its pixels counts."""
        scores = []
        for cells, counts in zip(self._cells, self._counts, strict=True):
            confusion = Confusion(self.generated.num_classes)
            confusion.counts.view(-1)[cells] = counts
            scores.append(score(confusion, metric))
        return scores

    def without(self, units: Tensor, metric: str) -> Tensor:
        """Return the score (U,) of the generated pictures without those of each unit; NaN where none of these counts.

        Args:
            units: (n,) the pictures' units.
        """
        found = torch.full((int(units.max()) + 1 if len(units) else 0,), torch.nan, dtype=torch.float64)
        for unit in units.unique().tolist():
            pictures = (units == unit).nonzero().flatten().tolist()
            rest = Confusion(self.generated.num_classes)
            rest.counts = self.generated.counts.clone()
            for i in pictures:
                rest.counts.view(-1)[self._cells[i]] -= self._counts[i]
            if any(len(self._cells[i]) for i in pictures):
                found[unit] = score(rest, metric)
        return found

    @property
    def pictures(self) -> int:
        """Number of generated pictures with a pixel that counts."""
        return sum(len(cells) > 0 for cells in self._cells)
