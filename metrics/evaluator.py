"""All metrics over one stream of pictures, their result line and their table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from metrics.base import Metric, MetricValue, Pictures
from metrics.fid import FID
from metrics.inception import load_inception
from metrics.reconstruction import RECONSTRUCTION, Reconstruction
from metrics.segmentation import SegmentationMetric
from metrics.segmenters import label_table, load_segmenter
from util.errors import UserError
from util.registry import did_you_mean

SEGMENTATION = ("miou", "acc")
METRICS = ("fid", *SEGMENTATION, *RECONSTRUCTION)
DEFAULT_METRICS = ",".join(METRICS)
LOWER_IS_BETTER = ("fid", "l1")
NO_SEGMENTER = (
    "mIoU and accuracy left out: name a segmenter with --segmenter RUN|streets|espnet_camvid|espnet_cityscapes; "
    "`python scripts/train_segmenter.py --dataset_mode MODE --dataroot DIR --name RUN` trains one."
)


class Evaluator:
    """Feeds each batch to every metric once. `notes` tells the reader what is missing from the table and why."""

    def __init__(self, metrics: Sequence[Metric], *, notes: Sequence[str] = ()) -> None:
        self.metrics = list(metrics)
        self._notes = list(notes)

    @property
    def notes(self) -> list[str]:
        """Notes of the set-up and, after `compute`, of the metrics."""
        return self._notes + [note for metric in self.metrics for note in metric.notes]

    def reset(self) -> None:
        """Forget all pictures."""
        for metric in self.metrics:
            metric.reset()

    def update(self, pictures: Pictures) -> None:
        """Take a batch."""
        for metric in self.metrics:
            metric.update(pictures)

    def compute(self) -> dict[str, MetricValue]:
        """Return the values of all metrics by name."""
        return {name: value for metric in self.metrics for name, value in metric.compute().items()}


def parse_metrics(text: str) -> list[str]:
    """Split --metrics at commas (`none` gives none); raises `UserError` for an unknown name, with the nearest ones."""
    names = [name.strip() for name in text.split(",") if name.strip() not in ("", "none")]
    for name in names:
        if name not in METRICS:
            raise UserError(f"--metrics '{name}' is unknown.{did_you_mean(name, METRICS)} Known: {', '.join(METRICS)}")
    return list(dict.fromkeys(names))


def build_evaluator(
    names: Sequence[str],
    *,
    device: torch.device,
    inception_weights: str | None,
    segmenter: str | None,
    segmenter_weights: str | None,
    checkpoints_dir: str,
    label_nc: int,
    ignore_label: int | None,
    class_names: list[str] | None = None,
) -> Evaluator:
    """Load what `names` (see `parse_metrics`) need and return the evaluator.

    Raises:
        UserError: unknown name, missing Inception weights, a segmenter that is missing or has other classes.
    """
    names = parse_metrics(",".join(names))
    metrics: list[Metric] = []
    notes: list[str] = []
    if "fid" in names:
        metrics.append(FID(*load_inception(inception_weights), device=device))
    if wanted := tuple(name for name in SEGMENTATION if name in names):
        if segmenter:
            net = load_segmenter(segmenter, weights=segmenter_weights, checkpoints_dir=checkpoints_dir, device=device)
            table = label_table(net, label_nc=label_nc, ignore_label=ignore_label, class_names=class_names)
            metrics.append(SegmentationMetric(net, table=table, ignore_label=ignore_label, names=wanted))
        else:
            notes.append(NO_SEGMENTER)
    if wanted := tuple(name for name in RECONSTRUCTION if name in names):
        metrics.append(Reconstruction(wanted))
    return Evaluator(metrics, notes=notes)


def result_line(
    values: Mapping[str, MetricValue], *, step: int, task: str, num_images: int, protocol: Any
) -> dict[str, Any]:
    """Return one line of `metrics.jsonl`: plain numbers under 'metrics', everything else under 'details'."""
    details = {
        name: {"unit": v.unit, "protocol": v.protocol, "count": v.count, **v.extra} for name, v in values.items()
    }
    return {
        "metrics": {name: float(v.value) for name, v in values.items()},
        "details": details,
        "step": step,
        "task": task,
        "num_images": num_images,
        "protocol": protocol,
    }


def format_table(rows: Sequence[tuple[str, Mapping[str, float | MetricValue]]]) -> str:
    """Return an aligned text table: one row per (label, values), one column per metric, `-` where a row lacks it.

    An arrow in the head tells the better direction; the real pictures' score follows in brackets where it is known.
    """
    columns = list(dict.fromkeys(name for _, values in rows for name in values))
    head = ["", *(f"{name} {'↓' if name.split('_')[0] in LOWER_IS_BETTER else '↑'}" for name in columns)]
    body = [[label, *(_cell(values.get(name)) for name in columns)] for label, values in rows]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in [head, *body]]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def _cell(value: float | MetricValue | None) -> str:
    if value is None:
        return "-"
    number = value.value if isinstance(value, MetricValue) else value
    text = f"{number:.4f}" if math.isfinite(number) and abs(number) < 1 else f"{number:.2f}"
    real = value.extra.get("real") if isinstance(value, MetricValue) else None
    return text if real is None else f"{text} (real {real:.2f})"
