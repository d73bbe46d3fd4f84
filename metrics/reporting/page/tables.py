"""Numbers of the report as text, for one or several methods on one task: rows of tables, bars, points of plots.

`Lines` are result lines by method, with what files keep beside them (`Evaluator.kept`), all of one protocol.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from metrics.differences import Difference, differences, verdicts
from metrics.registry import METRICS, arrow
from metrics.reporting.protocol import Line

Lines = Mapping[str, Line]


def number(value: float, sign: str = "") -> str:
    """Return a number with two to four decimals, by its size."""
    return f"{value:{sign}.2f}" if abs(value) >= 10 else f"{value:{sign}.{3 if abs(value) >= 1 else 4}f}"


def titled(name: str) -> str:
    """Return a value's name with its better direction."""
    return f"{name} {arrow(name)}"


def metrics_of(lines: Lines) -> list[str]:
    """Return the names of all values, in the order of the first line that has them."""
    return list(dict.fromkeys(name for line in lines.values() for name in line["metrics"]))


def values(lines: Lines) -> list[dict[str, Any]]:
    """For each value: that of every method, with interval and verdict, that of the real pictures, and what it is."""
    rows = []
    for name in metrics_of(lines):
        details = [line["details"].get(name, {}) for line in lines.values() if name in line["metrics"]]
        told, real = verdicts(lines, name), next((each["real"] for each in details if "real" in each), None)
        note = next((f"; {each['note']}" for each in details if "note" in each), "")
        detail = details[0]
        rows.append({
            "name": titled(name),
            "unit": "" if detail["unit"] in ("1", "distance") else f" {detail['unit']}",
            "cells": [_cell(line, name, told.get(method, "")) for method, line in lines.items()],
            "real": "" if real is None else number(real),
            "what": f"{detail['protocol']}. {detail['count']} pictures{note}",
        })  # fmt: skip
    return rows


def _cell(line: Line, name: str, verdict: str) -> dict[str, str] | None:
    if name not in line["metrics"]:
        return None
    detail, interval = line["details"][name], ""
    if "ci95" in detail:
        interval = " to ".join(number(end) for end in detail["ci95"])
    elif "standard_error" in detail:
        interval = f"standard error {number(detail['standard_error'])}"
    return {"value": number(line["metrics"][name]), "interval": interval, "verdict": verdict}


def paired_differences(lines: Lines) -> list[tuple[str, list[str | Difference]]]:
    """For each value of several methods: "best", the difference to the best, or "" where there is none to tell."""
    rows: list[tuple[str, list[str | Difference]]] = []
    for name in metrics_of(lines):
        having = {method: line for method, line in lines.items() if name in line["metrics"]}
        declared = METRICS.value(name)
        pick = min if declared is not None and declared.lower_is_better else max
        best = pick(having, key=lambda method: having[method]["metrics"][name])
        cells: list[str | Difference] = [
            "best" if method == best else (differences(line, having[best]).get(name, "") if method in having else "")
            for method, line in lines.items()
        ]
        if any(isinstance(cell, Difference) for cell in cells):
            rows.append((titled(name), cells))
    return rows


def bins(lines: Lines) -> dict[str, Any] | None:
    """Columns, rows (value, method, cells) and numbers of pictures of the values by erased share."""
    found = [
        (name, method, line["details"][name]["bins"])
        for name in metrics_of(lines)
        for method, line in lines.items()
        if line["details"].get(name, {}).get("bins")
    ]
    if not found:
        return None
    columns = list(dict.fromkeys(key for _, _, by_share in found for key in by_share))
    columns.sort(key=lambda text: int(text.split("-")[0]))
    counts = {key: max(each[key]["pictures"] for _, _, each in found if key in each) for key in columns}
    rows = [
        (titled(name), method, [number(each[key]["value"]) if key in each else "" for key in columns])
        for name, method, each in found
    ]
    return {"columns": [key.replace("-", "–") for key in columns], "rows": rows, "counts": list(counts.values())}


def precision_recall(lines: Lines) -> list[tuple[str, float, float] | None]:
    """Return (method, precision, recall) of every method, None for those that have not both; [] if none has."""
    points = [
        (method, line["metrics"]["precision"], line["metrics"]["recall"])
        if {"precision", "recall"} <= line["metrics"].keys()
        else None
        for method, line in lines.items()
    ]
    return points if any(points) else []


def classes(lines: Lines) -> list[tuple[str, list[float | None], float | None]]:
    """Return (class, IoU of each method, IoU of the real pictures), by the falling best value of a method."""
    found: list[dict[str, dict[str, float]]] = [
        next((d for d in line["details"].values() if "iou_per_class" in d), {}) for line in lines.values()
    ]
    names = dict.fromkeys(name for detail in found for name in detail.get("iou_per_class", {}))
    real: dict[str, float] = next((each for d in found if (each := d.get("iou_per_class_real"))), {})
    rows = [(name, [d.get("iou_per_class", {}).get(name) for d in found], real.get(name)) for name in names]
    return sorted(rows, key=lambda row: -max(value for value in row[1] if value is not None))


def confusion(lines: Lines) -> list[tuple[str, list[tuple[str, list[float]]]]]:
    """Return (method, rows) of the confusion matrices, in percent of each row, with the names of the rows."""
    found = []
    for method, line in lines.items():
        if kept := line.get("confusion"):
            counts, names = torch.tensor(kept["counts"]), kept["classes"]
            used = [i for i in range(len(names)) if counts[i].sum() or counts[:, i].sum()]
            share = counts[used][:, used].double() / counts[used].sum(1, keepdim=True).clamp(min=1)
            found.append((method, list(zip([names[i] for i in used], (100 * share).tolist(), strict=True))))
    return found


def protocols(lines: Lines) -> list[tuple[str, str]]:
    """Return (method, protocol as JSON)."""
    return [(method, json.dumps(line["protocol"], indent=1)) for method, line in lines.items()]


def subtitle(line: Line) -> str:
    """Return a line with data, step, settings and commit of a test."""
    protocol = line["protocol"]
    facts = [f"{line['num_images']} pictures"]
    for key, text in (("dataset_mode", "data {}"), ("split", "split {}"), ("crop_size", "{} pixels"),
                      ("mask_set", "masks {}"), ("seed", "seed {}"), ("commit", "commit {}")):  # fmt: skip
        if protocol.get(key) is not None:
            facts.append(text.format(protocol[key]))
    if line.get("step") is not None:
        facts.insert(1, f"step {line['step']}")
    return " · ".join(facts)
