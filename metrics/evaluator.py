"""All metrics over one stream of pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metrics.analysis import with_bins, with_intervals
from metrics.declaration import LeftOutError, Setup
from metrics.influence import Parts, as_kept, units_of
from metrics.metric import Metric, MetricValue
from metrics.pictures import Pictures
from metrics.registry import METRICS
from util.errors import UserError

KEPT = ("per_picture", "pictures", "confusion", "influence")  # beside a line in a result file, see `Evaluator.kept`


class Evaluator:
    """Feeds each batch to every metric once. `notes` say what is missing from the table and why.

    Args:
        intervals: add 95 % intervals to the values.
        blocks: so many pictures in a row, by name, vary together (frames of a film).

    `names` and `share` (erased share, NaN without a mask) of the pictures seen are kept for bins and for reports.
    """

    def __init__(
        self, metrics: Sequence[Metric], *, notes: Sequence[str] = (), intervals: bool = False, blocks: int = 1
    ) -> None:
        self.metrics, self.intervals, self.blocks = list(metrics), intervals, blocks
        self._notes = list(notes)
        self.names: list[str] = []
        self.share: list[float] = []

    @property
    def notes(self) -> list[str]:
        """Notes of the set-up and, after `compute`, of the metrics."""
        return self._notes + [note for metric in self.metrics for note in metric.notes]

    def reset(self) -> None:
        """Forget all pictures."""
        self.names, self.share = [], []
        for metric in self.metrics:
            metric.reset()

    def update(self, pictures: Pictures) -> None:
        """Take a batch."""
        self.names += pictures.name
        none = torch.full((len(pictures),), torch.nan)
        self.share += (none if pictures.mask is None else (pictures.mask > 0).double().mean((1, 2, 3))).tolist()
        for metric in self.metrics:
            metric.update(pictures)

    def add_sets(self, *, fake: Mapping[str, Tensor], real: Mapping[str, Tensor]) -> None:
        """Take unpaired generated and real pictures (3,H,W) uint8 by name, for the metrics that read such."""
        for metric in self.metrics:
            metric.add_sets(fake=fake, real=real)

    def compute(self) -> dict[str, MetricValue]:
        """Return the values of all metrics by name, with bins by erased share and, if asked for, intervals."""
        found: dict[str, MetricValue] = {}
        share = torch.tensor(self.share, dtype=torch.float64)
        for metric in self.metrics:
            values = metric.compute()
            if values and bool((share >= 0).any()):
                values = with_bins(metric, values, share=share)
            if values and self.intervals:
                values = with_intervals(metric, values, self._influence(metric))
            found |= values
        return found

    def _influence(self, metric: Metric) -> dict[str, Parts]:
        return metric.influence(*(units_of(names, self.blocks) for names in metric.apart or [self.names]))

    def influence(self) -> dict[str, Any]:
        """Return how much each picture moves each value, in the form that result files keep."""
        apart = next((found for metric in self.metrics if (found := metric.apart)), None)
        sets = dict(zip(("generated", "real"), apart, strict=True)) if apart else {"pairs": self.names}
        values: dict[str, Parts] = {}
        for metric in self.metrics:
            values |= self._influence(metric)
        return as_kept(sets, self.blocks, values)

    def per_picture(self) -> dict[str, list[float]]:
        """Return the values of single pictures, in the order of `names`."""
        return {name: values for metric in self.metrics for name, values in metric.per_picture().items()}

    def kept(self) -> dict[str, Any]:
        """Return what result files keep beside the line, for reports and comparisons.

        "per_picture": the values of single pictures; "pictures": what is known of these, whatever the method: erased
        share and classes; "confusion": class names and matrix; "influence". None stands for what is no finite number.
        """
        each = {name: _finite(values) for name, values in self.per_picture().items()}
        pictures: dict[str, Any] = {"erased": _finite(self.share)}
        classes = next((found for metric in self.metrics if (found := metric.shown_classes()) is not None), None)
        kept: dict[str, Any] = {
            "per_picture": {"names": self.names, **each},
            "pictures": pictures if classes is None else pictures | {"classes": classes},
        }
        if (confusion := self.confusion()) is not None:
            kept["confusion"] = {"classes": list(confusion[0]), "counts": confusion[1].tolist()}
        return {**kept, "influence": self.influence()}

    @property
    def smallest_side(self) -> int:
        """The smallest side, in pixels, that every metric here accepts."""
        return max((metric.smallest_side for metric in self.metrics), default=1)

    @property
    def label_nc(self) -> int | None:
        """Number of label ids that may occur; None where no metric reads labels."""
        return next((metric.label_nc for metric in self.metrics if metric.label_nc is not None), None)

    def confusion(self) -> tuple[tuple[str, ...], Tensor] | None:
        """Return class names and the confusion matrix (C,C) of the generated pictures, where a segmenter ran."""
        return next((found for metric in self.metrics if (found := metric.confusion()) is not None), None)


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def build_evaluator(names: Sequence[str], setup: Setup, *, required: bool = True) -> Evaluator:
    """Load what `names` (see `MetricRegistry.parse`) need and return the evaluator.

    Args:
        required: an unavailable network is an error; otherwise its metrics are left out with a note.

    Raises:
        UserError: missing weights, a segmenter that is missing or has other classes, nothing to compute.
    """
    metrics: list[Metric] = []
    notes: list[str] = []
    for kind, chosen in METRICS.members(names):
        try:
            metrics += kind.load(chosen, setup)
        except LeftOutError as error:
            notes.append(str(error))
        except UserError as error:
            if required:
                raise
            notes.append(f"{', '.join(chosen)}: left out: {error}")
    if names and not metrics:
        raise UserError("; ".join([f"--metrics {','.join(names)}: none of these can be had", *notes]))
    opt = setup.opt
    return Evaluator(metrics, notes=notes, intervals=opt.intervals or opt.bootstrap > 0, blocks=opt.blocks)
