"""Error bars and bins from what the metrics kept, and the mean over seeds; no network runs again.

Shapes: n pictures seen, N resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from metrics.base import Metric, MetricValue
from util.errors import UserError
from util.seeds import torch_generator

EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)  # of the erased share; a bin holds its upper edge, the first also 0
LEVEL = 0.95


def with_intervals(
    metric: Metric, values: Mapping[str, MetricValue], *, count: int, resamples: int
) -> dict[str, MetricValue]:
    """Add `ci95` = [low, high] and `bootstrap` (number of resamples) to the values that can have them.

    The n pictures are drawn n times with replacement, by a fixed seed. The interval runs from the 2.5 to the 97.5 %
    quantile of the resampled values after these are shifted to have the value as their mean: a resample holds fewer
    distinct pictures, and FID grows with that.
    """
    affordable, found = metric.resamples(resamples), dict(values)
    draw = torch_generator(0, "bootstrap")
    drawn: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(affordable if count > 1 else 0):
        times = torch.bincount(torch.randint(count, (count,), generator=draw), minlength=count)
        for name, value in metric.subset(times).items():
            if name in drawn and not math.isnan(value):
                drawn[name].append(value)
    for name, all_values in drawn.items():
        if len(all_values) > 1:
            each = torch.tensor(all_values, dtype=torch.float64)
            ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
            interval = (each - each.mean() + values[name].value).quantile(ends).tolist()
            extra = {**values[name].extra, "ci95": interval, "bootstrap": len(all_values)}
            found[name] = replace(values[name], extra=extra)
    return found


def with_bins(metric: Metric, values: Mapping[str, MetricValue], *, share: Tensor) -> dict[str, MetricValue]:
    """Add `bins`: {"10-20%": {"value", "pictures"}} by the erased share (n,) of the pictures; NaN share: in no bin."""
    bins: dict[str, dict[str, Any]] = {name: {} for name in values}
    for low, high in pairwise(EDGES):
        inside = (share > low) & (share <= high) | ((share == 0) & (low == 0))
        if int(inside.sum()) >= metric.smallest_bin:
            for name, value in metric.subset(inside.long()).items():
                if name in bins and not math.isnan(value):
                    entry = {"value": value, "pictures": int(inside.sum())}
                    bins[name][f"{low:.0%}-{high:.0%}".replace("%-", "-")] = entry
    return {
        name: replace(value, extra={**value.extra, **({"bins": bins[name]} if bins[name] else {})})
        for name, value in values.items()
    }


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation (n-1; NaN for one value)."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def summarise(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, tuple[float, float, int]]]:
    """Return {task: {metric: (mean, standard deviation, number of lines)}} of lines of `metrics.jsonl`.

    A later line of the same run, task, seed and mask set replaces the earlier one: of several steps the last tested
    counts, not their mean.

    Raises:
        UserError: one task's lines hold values of other units, protocols or segmenters under one name.
    """
    latest: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for line in lines:
        protocol = line["protocol"]
        key = (line["task"], *(protocol.get(name) for name in ("run", "seed", "mask_set", "fake")))
        latest[key] = line
    grouped: dict[str, dict[str, list[float]]] = {}
    told: dict[tuple[str, str], Any] = {}
    for line in latest.values():
        for name, detail in line.get("details", {}).items():
            found = [detail.get(field) for field in ("unit", "protocol", "weights_sha256", "net", "draws")]
            if told.setdefault((line["task"], name), found) != found:
                raise UserError(
                    f"{name}, {line['task']}: {found} and {told[line['task'], name]} (unit, protocol, weights, net, "
                    "draws) are not one metric; summarise these files apart"
                )
        for name, value in line["metrics"].items():
            grouped.setdefault(line["task"], {}).setdefault(name, []).append(value)
    return {
        task: {name: (*mean_and_spread(values), len(values)) for name, values in metrics.items()}
        for task, metrics in grouped.items()
    }


def format_summary(summary: Mapping[str, Mapping[str, tuple[float, float, int]]]) -> str:
    """Return a line per task and metric: mean +- standard deviation (number of runs)."""
    lines = []
    for task, metrics in summary.items():
        for name, (mean, spread, count) in metrics.items():
            around = "" if math.isnan(spread) else f" +- {spread:.4g}"
            lines.append(f"{task:16} {name:28} {mean:.6g}{around}  ({count} run{'s' if count > 1 else ''})")
    return "\n".join(lines)
