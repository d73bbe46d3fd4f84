"""Is one method better than another on the same pictures? The difference of every value, with interval and p-value.

Two results of one protocol share pictures, and what makes a picture hard moves both: their influences are subtracted
picture by picture before the spread is taken, as in a paired t-test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from metrics.influence import LEVEL, Parts, from_kept, interval, p_value
from metrics.registry import METRICS
from metrics.reporting.protocol import Line, protocol_fields
from metrics.reporting.protocol import differences as unlike
from metrics.reporting.summary import read_lines
from util.errors import UserError

INFLUENCE = "influence"  # key of a result file


@dataclass(frozen=True)
class Difference:
    """A value of the first result less that of the second.

    Args:
        value: the difference; low, high: its 95 % interval.
        p: how likely it is to be so large if the methods were alike.
        better: whether the first is better by `value` (the sign against the metric's direction).
    """

    value: float
    low: float
    high: float
    p: float
    better: bool

    @property
    def certain(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.p < 1 - LEVEL


def differences(first: Line, second: Line) -> dict[str, Difference]:
    """Compare two results of one protocol by the influences that their files keep.

    Values that one of them lacks, that have no error bar (precision, recall, density, coverage), or that were measured
    on other pictures are left out.

    Args:
        first, second: result lines with the key "influence" (`result.json`, or evaluate.py's --json).

    Raises:
        UserError: the key does not hold influences.
    """
    kept = [_kept(line) for line in (first, second)]
    found = {}
    for name in kept[0]:
        if name in kept[1] and name in first["metrics"] and name in second["metrics"]:
            parts = _paired(*(values[name] for values in kept))
            value = first["metrics"][name] - second["metrics"][name]
            ends, p = interval(value, parts), p_value(value, parts)
            if ends is not None and p is not None:
                declared = METRICS.value(name)
                lower = declared is not None and declared.lower_is_better
                found[name] = Difference(value, *ends, p, better=value < 0 if lower else value > 0)
    return found


def verdicts(lines: Mapping[str, Line], name: str) -> dict[str, str]:
    """Return what a value says of each row: "best" (certainly better than all others), "tie" (not certainly worse than
    the best value), or "worse"; rows that cannot be compared with the row of the best value are left out.

    Args:
        lines: by row.
        name: of the value.
    """
    having = {row: line for row, line in lines.items() if name in line["metrics"]}
    declared = METRICS.value(name)
    if len(having) < 2 or declared is None:
        return {}
    pick = min if declared.lower_is_better else max
    best = pick(having, key=lambda row: having[row]["metrics"][name])
    found = {}
    for row, line in having.items():
        if row != best and (told := differences(having[best], line).get(name)):
            found[row] = "worse" if told.certain else "tie"
    if found:
        found[best] = "tie" if "tie" in found.values() or len(found) < len(having) - 1 else "best"
    return found


def compare(line: Line, files: Sequence[str], rows: list[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Return lines that tell how certain the differences of a result to those in files are; add these to `rows`.

    Args:
        line: with the key "influence".
        files: of --against.
        rows: of a table.

    Raises:
        UserError: a file holds no result, another protocol's or one of other pictures.
    """
    told = []
    for file in files:
        for other in read_lines([file], "--against"):
            name = str(other["protocol"].get("run"))
            if problems := unlike({"--fake": protocol_fields(line), file: protocol_fields(other)}):
                raise UserError(f"--against {file}: was not measured like --fake:\n  " + "\n  ".join(problems))
            if not (found := differences(line, other)):
                raise UserError(
                    f"--against {file}: it keeps no influences of these pictures (and --blocks); measure it again, "
                    "and name its result.json or the file of --json"
                )
            rows.append((name, other["metrics"]))
            told += ["", f"less {name}, 95 % interval, p-value", *map(_told, found.items())]
    return told


def _told(entry: tuple[str, Difference]) -> str:
    name, found = entry
    verdict = ("better" if found.better else "worse") if found.certain else "tie"
    return f"{name:28} {found.value:+10.4g}  [{found.low:.4g}, {found.high:.4g}]  p = {found.p:.2g}  {verdict}"


def _kept(line: Line) -> dict[str, dict[str, Tensor]]:
    """Return {value: {pictures' hash: influences}} of a line."""
    kept: Mapping[str, Any] = line.get(INFLUENCE, {})
    try:
        hashes = [f"{which} {units}" for which, units in kept.get("units", {}).items()]
        return {
            name: dict(zip(hashes, from_kept(parts), strict=True)) for name, parts in kept.get("values", {}).items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        run = line["protocol"].get("run")
        raise UserError(f"{run}: its result file holds no influences ({error!r}); measure it again") from error


def _paired(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Parts:
    """Subtract what is of the same pictures; generated sets of other pictures vary independently."""
    shared = first.keys() & second.keys()
    if not shared:
        return ()
    alike = [first[key] - second[key] for key in first if key in shared]
    return (*alike, *(part for each in (first, second) for key, part in each.items() if key not in shared))
