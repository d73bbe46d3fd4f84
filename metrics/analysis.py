"""Error bars and bins from what the metrics kept, without running a network again.

Shapes: n pictures seen, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from metrics.metric import Metric, MetricValue
from util.seeds import torch_generator

EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)  # of the erased share; a bin holds its upper edge, the first also 0
LEVEL = 0.95


def draw_times(resamples: int, order: Tensor, what: str) -> Tensor:
    """Return (R,n) int32: how often each of n pictures is drawn, n times with replacement, by a seed fixed for `what`.

    Args:
        order: (n,) the pictures' places in an order that does not depend on how they were read.
    """
    count, draw = len(order), torch_generator(0, what)
    times = torch.zeros(resamples, count, dtype=torch.int32)
    for row in times:
        row[order] = torch.bincount(torch.randint(count, (count,), generator=draw), minlength=count).int()
    return times


def with_intervals(
    metric: Metric, values: Mapping[str, MetricValue], resampled: Mapping[str, Sequence[float]]
) -> dict[str, MetricValue]:
    """Add `ci95` = [low, high] and `bootstrap` (number of resamples) to the values that were `resampled`.

    The interval runs from the 2.5 to the 97.5 % quantile of the resampled values after these are shifted to have the
    value as their mean: a resample holds fewer distinct pictures, and FID grows with that. The interval is
    clipped to the metric's `limits`.
    """
    with_ci = dict(values)
    for name, drawn in resampled.items():
        known = [value for value in drawn if not math.isnan(value)]
        if name in values and len(known) > 1:
            each = torch.tensor(known, dtype=torch.float64)
            ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
            declared = metric.declared(name)
            low, high = declared.limits if declared else (-math.inf, math.inf)
            interval = (each - each.mean() + values[name].value).quantile(ends).clamp(low, high).tolist()
            extra = {**values[name].extra, "ci95": interval, "bootstrap": len(known)}
            with_ci[name] = replace(values[name], extra=extra)
    return with_ci


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
