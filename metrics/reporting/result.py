"""The result of a test: its line, its table, and the files that hold it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metrics.metric import MetricValue
from metrics.registry import arrow
from util.files import append_line, write_text
from util.opt import Opt
from util.text_table import aligned
from util.versions import current_commit, library_versions

RESULT_FILE, LINES_FILE = "result.json", "metrics.jsonl"
WIDEST = 8  # columns of a table


def result_line(
    values: Mapping[str, MetricValue],
    *,
    step: int | None,
    task: str,
    num_images: int,
    protocol: Mapping[str, Any],
) -> dict[str, Any]:
    """Return one line of `metrics.jsonl`: plain numbers under 'metrics', everything else under 'details'.

    JSON has no NaN and no infinity: a value that is none of its numbers stands as a text under 'details' alone, and
    other ones are left out of mappings and null in lists.

    Args:
        protocol: what the numbers depend on beside the metrics themselves; commit and versions are added.
    """
    details = {
        name: {"unit": v.unit, "protocol": v.protocol, "count": v.count, **v.extra}
        | ({} if math.isfinite(v.value) else {"value": str(v.value)})
        for name, v in values.items()
    }
    return {
        "metrics": _finite({name: float(v.value) for name, v in values.items()}),
        "details": _finite(details),
        "step": step,
        "task": task,
        "num_images": num_images,
        "protocol": {**_finite(protocol), "commit": current_commit(), "versions": library_versions()},
    }


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items() if not _is_lost(each)}
    return [None if _is_lost(each) else _finite(each) for each in value] if isinstance(value, list | tuple) else value


def _is_lost(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def describe_run(opt: Opt, **more: Any) -> dict[str, Any]:
    """Return the protocol of a test of a run: what every kind of test depends on, and `more`."""
    return {
        "run": opt.name,
        "model": opt.model,
        "dataset_mode": opt.dataset_mode,
        **more,
        "weights": "last" if opt.raw_weights else "averaged where the run has them",
        "precision": opt.precision,
    }


def write_result(line: Mapping[str, Any], folder: Path, run_dir: Path, *, kept: Mapping[str, Any]) -> None:
    """Write the line to the results' folder and append it to the run's `metrics.jsonl`.

    Args:
        kept: of `Evaluator.kept`, in the folder beside the line.
    """
    write_text(folder / RESULT_FILE, as_json(line, kept))
    append_result(line, run_dir)


def append_result(line: Mapping[str, Any], run_dir: Path) -> None:
    """Append the line to the `metrics.jsonl` of a run."""
    append_line(run_dir / LINES_FILE, json.dumps(line, allow_nan=False))


def as_json(line: Mapping[str, Any], more: Mapping[str, Any]) -> str:
    """Return a file's text: the line to be read by people, and on a line of its own each of `more`."""
    parts = [f' "{key}": {json.dumps(value, allow_nan=False)}' for key, value in more.items()]
    return ",\n".join([json.dumps(line, indent=1, allow_nan=False).removesuffix("\n}"), *parts]) + "\n}\n"


def format_table(rows: Sequence[tuple[str, Mapping[str, float | MetricValue]]]) -> str:
    """Return an aligned text table: one row per (label, values), one column per metric, `-` where a row lacks it.

    An arrow in the head tells the better direction; the real pictures' score follows in brackets where it is known.
    More than `WIDEST` metrics stand below each other instead, a column per row.
    """
    columns = list(dict.fromkeys(name for _, values in rows for name in values))
    head = ["", *(f"{name} {arrow(name)}" for name in columns)]
    body = [[label, *(_cell(values.get(name)) for name in columns)] for label, values in rows]
    if len(columns) > WIDEST:
        head, *body = [list(line) for line in zip(head, *body, strict=True)]
    return aligned([head, *body])


def _cell(value: float | MetricValue | None) -> str:
    if value is None:
        return "-"
    number = value.value if isinstance(value, MetricValue) else value
    text = f"{number:.4f}" if math.isfinite(number) and abs(number) < 1 else f"{number:.2f}"
    if not isinstance(value, MetricValue):
        return text
    if "ci95" in value.extra:
        low, high = value.extra["ci95"]
        text += f" [{low:.4g}, {high:.4g}]"
    elif "standard_error" in value.extra:
        text += f" ± {value.extra['standard_error']:.4f}"
    real = value.extra.get("real")
    text = text if real is None else f"{text} (real {real:.{4 if abs(real) < 1 else 2}f})"
    return f"{text} (unchanged {value.extra['unchanged']:.2f})" if "unchanged" in value.extra else text
