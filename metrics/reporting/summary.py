"""Mean and deviation over runs and seeds of one method, from the result lines of their tests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metrics.reporting.protocol import (
    IF_RECORDED,
    OF_A_METRIC,
    Line,
    differences,
    fields_of_seeds,
    is_count,
    protocol_fields,
    require_one_protocol,
)
from util.errors import UserError
from util.text_files import parse_json

Summary = dict[str, dict[str, tuple[float, float, int]]]


def read_lines(files: Sequence[str], flag: str = "--summarise") -> list[dict[str, Any]]:
    """Read result lines of metrics.jsonl and --json files; raises `UserError` for files without any."""
    lines = []
    for file in files:
        try:
            text = Path(file).read_text(encoding="utf-8")
            whole = file.endswith(".json")
            parsed = [parse_json(text)] if whole else [parse_json(line) for line in text.splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise UserError(f"{flag} {file}: cannot be read as result lines: {error}") from error
        if not all(map(_is_result, parsed)):
            raise UserError(f"{flag} {file}: holds no result lines (of metrics.jsonl or --json)")
        lines += parsed
    return lines


def _is_result(line: Any) -> bool:
    """Return whether a line has the form of `metrics.reporting.result.result_line`."""
    if not isinstance(line, dict) or not {"metrics", "protocol", "task", "step"} <= line.keys():
        return False
    metrics, details = line["metrics"], line.get("details", {})
    return (
        all(isinstance(part, dict) for part in (metrics, details, line["protocol"], *details.values()))
        and all(isinstance(value, int | float) for value in metrics.values())
        and isinstance(line["task"], str)
    )


def summarise(lines: Iterable[Line]) -> tuple[Summary, list[str]]:
    """Return {task: {metric: (mean, standard deviation, number of lines)}} of result lines, and notes.

    A later line of the same run, task, seed and mask set replaces the earlier one: of several steps the last tested
    counts, not their mean. Seeds may differ in their masks, and so in how many pictures have a masked value: notes say
    where counts differ.

    Raises:
        UserError: one task's lines are of several methods, or were not measured alike (other pictures, units,
            protocols, weights, segmenters).
    """
    latest: dict[tuple[Any, ...], Line] = {}
    for line in lines:
        protocol = line["protocol"]
        latest[(line["task"], *(str(protocol.get(name)) for name in ("run", "seed", "mask_set", "fake")))] = line
    tasks: dict[str, list[Line]] = {}
    for line in latest.values():
        tasks.setdefault(line["task"], []).append(line)
    notes = [note for task, found in tasks.items() for note in _compare(task, found)]
    return {task: _over_lines(found) for task, found in tasks.items()}, notes


def _over_lines(lines: Sequence[Line]) -> dict[str, tuple[float, float, int]]:
    values: dict[str, list[float]] = {}
    for line in lines:
        for name, value in line["metrics"].items():
            values.setdefault(name, []).append(value)
    return {name: (*mean_and_spread(each), len(each)) for name, each in values.items()}


def _compare(task: str, lines: Sequence[Line]) -> list[str]:
    """Return notes on counts that differ between the lines of one task; raises `UserError` for other differences."""
    rows: dict[str, Line] = {}
    for line in lines:
        name = f"{line['protocol'].get('run')}, seed {line['protocol'].get('seed')}"
        rows[f"{name}, line {len(rows) + 1}" if name in rows else name] = line
    if problems := differences({row: fields_of_seeds(line) for row, line in rows.items()}):
        raise UserError(
            f"{task}: these results are not one measurement of several runs or seeds, so they have no mean:\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + "\nSummarise such files apart, or test them again with the same flags (evaluate.py: one "
            "--name for folders of one method)."
        )
    counts = {row: {k: v for k, v in protocol_fields(line).items() if is_count(k)} for row, line in rows.items()}
    return [f"{task}: counts differ: {text}" for text in differences(counts)]


def mean_line(lines: Mapping[str, Line]) -> dict[str, Any]:
    """Return a line whose values are the means over the lines of several rows, of those that all have.

    `spread` holds their standard deviations (n-1).

    Raises:
        UserError: they were not measured under one protocol.
    """
    require_one_protocol(lines, "mean")
    first, *others = lines.values()
    shared = [name for name in first["metrics"] if all(name in line["metrics"] for line in others)]
    found = {name: mean_and_spread([line["metrics"][name] for line in lines.values()]) for name in shared}
    means, spread = ({name: pair[part] for name, pair in found.items()} for part in (0, 1))
    fields = {*OF_A_METRIC, *IF_RECORDED, "weights", "weights_sha256"}
    details = {
        name: {key: value for key, value in first.get("details", {}).get(name, {}).items() if key in fields}
        for name in shared
    }
    steps = {line["step"] for line in lines.values()}
    step = steps.pop() if len(steps) == 1 else None
    kept = {key: first[key] for key in ("task", "num_images", "protocol") if key in first}
    return {**kept, "metrics": means, "spread": spread, "details": details, "step": step}


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation (n-1; NaN for one value)."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def format_summary(summary: Mapping[str, Mapping[str, tuple[float, float, int]]]) -> str:
    """Return a line per task and metric: mean +- standard deviation (number of runs)."""
    lines = []
    for task, metrics in summary.items():
        for name, (mean, spread, count) in metrics.items():
            around = "" if math.isnan(spread) else f" +- {spread:.4g}"
            lines.append(f"{task:16} {name:28} {mean:.6g}{around}  ({count} run{'s' if count > 1 else ''})")
    return "\n".join(lines)
