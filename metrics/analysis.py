"""Error bars and bins from what the metrics kept, without running a network again.

Shapes: n pictures seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from torch import Tensor

from metrics.influence import Parts, interval
from metrics.metric import Metric, MetricValue

EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)  # of the erased share; a bin holds its upper edge, the first also 0


def with_intervals(
    metric: Metric, values: Mapping[str, MetricValue], influence: Mapping[str, Parts]
) -> dict[str, MetricValue]:
    """Add `ci95` = [low, high], clipped to the metric's `limits`, to the values whose pictures' influence is known."""
    with_ci = dict(values)
    for name, parts in influence.items():
        if name in values and (ends := interval(values[name].value, parts)) is not None:
            declared = metric.declared(name)
            low, high = declared.limits if declared else (-math.inf, math.inf)
            clipped = [min(max(end, low), high) for end in ends]
            with_ci[name] = replace(values[name], extra={**values[name].extra, "ci95": clipped})
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
