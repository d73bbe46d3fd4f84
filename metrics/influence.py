"""How much each picture moves a value: what error bars and the certainty of differences are made of.

A metric tells the influence of every unit: a picture, all results of one truth, or a block of consecutive pictures of a
film. It is the jackknife's (the value without the unit) or the derivative by the unit's weight (the infinitesimal
jackknife); both are in the value's own unit and sum to 0. Nothing is drawn, so that equal pictures give equal
intervals. Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 11 and 21.

Shapes: n pictures, U units.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

LEVEL = 0.95
DIGITS = 7  # that are kept of an influence
Parts = tuple[Tensor, ...]  # (U,) of pairs, or (U,) of generated and (V,) of real pictures; NaN: without the value


def units_of(names: Sequence[str], blocks: int = 1) -> Tensor:
    """Return (n,) the unit of each picture: those of one name, or of `blocks` names in a row, are one."""
    place = {name: i // blocks for i, name in enumerate(sorted(set(names)))}
    return torch.tensor([place[name] for name in names], dtype=torch.int64)


def summed(each: Tensor, units: Tensor) -> Tensor:
    """Return the units' influences (U,) from those of pictures (n,); NaN where no picture of a unit has any."""
    count = int(units.max()) + 1 if len(units) else 0
    known = torch.zeros(count, dtype=torch.int64).index_add_(0, units, (~each.isnan()).long())
    total = torch.zeros(count, dtype=torch.float64).index_add_(0, units, each.double().nan_to_num())
    return torch.where(known > 0, total, torch.nan)


def spread(parts: Parts) -> tuple[float, float] | None:
    """Return standard error and degrees of freedom; None for a set of fewer than two units.

    Few units may carry most of the variance, as those that show a rare class: the degrees of freedom are those of a
    variance from n observations of kurtosis k, 2 n / (k - 1), at most the number of units less one.
    """
    known = [part[~part.isnan()] for part in parts]
    if min((len(part) for part in known), default=0) < 2:
        return None
    each = torch.cat([(part - part.mean()) * (len(part) / (len(part) - 1)) ** 0.5 for part in known])
    squares = each.square()
    most = float(sum(len(part) - 1 for part in known))
    excess = float(len(each) * squares.square().sum() / squares.sum() ** 2) - 1 if squares.any() else 0.0
    return float(squares.sum().sqrt()), min(most, max(1.0, 2 * len(each) / excess)) if excess > 0 else most


def interval(value: float, parts: Parts) -> tuple[float, float] | None:
    """Return the ends of the 95 % interval by Student's t; None where there is none."""
    found = spread(parts)
    if found is None or not math.isfinite(value):
        return None
    from scipy.special import stdtrit  # here and below: an evaluation without intervals is not to wait for its import

    reach = found[0] * float(stdtrit(found[1], (1 + LEVEL) / 2))
    return value - reach, value + reach


def p_value(value: float, parts: Parts) -> float | None:
    """Return how likely a value at least as far from 0 is where the truth is 0; None where there is no spread."""
    found = spread(parts)
    if found is None or not math.isfinite(value):
        return None
    error, freedom = found
    if error == 0:
        return float(value == 0)
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(value) / error))


def as_kept(sets: Mapping[str, Sequence[str]], blocks: int, values: Mapping[str, Parts]) -> dict[str, Any]:
    """Return what a result file keeps.

    Args:
        sets: names of the pictures: "pairs", or "generated" and "real".
        blocks: of `units_of`.
    """
    hashes = {}
    for which, names in sets.items():
        text = "\n".join([str(blocks), *sorted(set(names))])
        hashes[which] = hashlib.sha256(text.encode()).hexdigest()[:12]
    kept = {name: [[_rounded(v) for v in part.tolist()] for part in parts] for name, parts in values.items()}
    return {"units": hashes, "blocks": blocks, "values": kept}


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.{DIGITS}g}")


def from_kept(parts: Sequence[Sequence[float | None]]) -> Parts:
    """Return a value's influences from a result file; raises `ValueError` or `TypeError` for anything else."""
    return tuple(torch.tensor([math.nan if v is None else v for v in part], dtype=torch.float64) for part in parts)
