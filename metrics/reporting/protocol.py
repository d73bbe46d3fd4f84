"""Which result lines may share a table: those measured under one protocol.

A line is what `metrics.reporting.result.result_line` makes and `metrics.jsonl` holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from util.errors import UserError

Line = Mapping[str, Any]
OF_THE_TEST = (
    "dataset_mode", "split", "split_size", "mask_set", "seed", "draw", "crop_size", "load_size", "reference",
    "real_set", "weights", "precision", "test_cuts", "object_classes",
)  # fmt: skip
OF_THE_NETWORK = ("weights", "precision")  # not known of pictures from elsewhere
OF_A_METRIC = ("unit", "protocol", "count", "segmenter", "ignore_label", "num_generated", "num_real", "net", "draws")
IF_RECORDED = ("label_nc", "transformers")  # of a metric too; older lines do not have them
COUNTS = ("count", "num_generated", "num_real")
OF_A_SEED = ("seed", "mask_set")
UNNAMED = "fake"  # what scripts/evaluate.py calls pictures without --name


def columns(line: Line) -> dict[str, str]:
    """Return the line's metrics as {column: full name}; one column holds a metric of whatever segmenter."""
    return {_column(name, _detail(line, name)): name for name in line["metrics"]}


def _detail(line: Line, name: str) -> Mapping[str, Any]:
    detail: Mapping[str, Any] = line.get("details", {}).get(name, {})
    return detail


def _column(name: str, detail: Mapping[str, Any]) -> str:
    segmenter = detail.get("segmenter")
    return name.removesuffix(f"_{segmenter}") if segmenter else name


def protocol_fields(line: Line) -> dict[str, Any]:
    """Return what must agree between two lines of a table; a metric's fields are called `<column>: <field>`."""
    fields = {"task": line["task"], "num_images": line.get("num_images")}
    outside = OF_THE_NETWORK if {"as_run", "pack"} & line["protocol"].keys() else ()
    fields |= {name: line["protocol"].get(name) for name in OF_THE_TEST if name not in outside}
    for column, name in columns(line).items():
        detail = _detail(line, name)
        further = [field for field in detail if field.endswith("sha256") or field in IF_RECORDED]
        fields |= {f"{column}: {field}": detail.get(field) for field in (*OF_A_METRIC, *further)}
    return fields


def is_count(field: str) -> bool:
    """Return whether a field of `protocol_fields` is how many pictures a metric had."""
    return field.rpartition(": ")[2] in COUNTS


def fields_of_seeds(line: Line) -> dict[str, Any]:
    """Return what must agree between runs and seeds of one method: all but the seed, its masks, and their counts.

    Masks of another seed leave other pictures without a masked value, so that a metric's counts may differ.
    """
    fields = {k: v for k, v in protocol_fields(line).items() if k not in OF_A_SEED and not is_count(k)}
    recorded = {"method": method_of(line), "its flags": _flags_of(line)}
    return {**{k: v for k, v in recorded.items() if v is not None}, **fields}


def _flags_of(line: Line) -> str | None:
    """Return the flags of a run's method that differ from their defaults; None: not recorded."""
    flags: Mapping[str, Any] | None = line["protocol"].get("method_flags")
    return None if flags is None else ", ".join(f"{name} {value}" for name, value in flags.items()) or "as by default"


def method_of(line: Line) -> str | None:
    """Return what was measured: a run's method, or the name or folder of other pictures; None: not recorded."""
    protocol = line["protocol"]
    if (folders := protocol.get("fake")) is None:
        model: str | None = protocol.get("model")
        return model
    name = protocol.get("run")
    return str(folders) if name in (None, UNNAMED) else str(name)


def differences(fields_of: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence per field that is not the same in all rows which have it (row -> field -> value)."""
    problems = []
    for field in dict.fromkeys(field for fields in fields_of.values() for field in fields):
        rows_of: dict[str, list[str]] = {}
        for row, fields in fields_of.items():
            if field in fields:
                rows_of.setdefault(str(fields[field]), []).append(row)
        if len(rows_of) > 1:
            problems.append(f"{field}: " + "; ".join(f"{value} ({', '.join(rows)})" for value, rows in rows_of.items()))
    return problems


def require_one_protocol(lines: Mapping[str, Line], where: str) -> None:
    """Raise `UserError` naming rows and fields if the lines (by row) were not measured alike.

    A row without a metric is not compared in that metric's column.
    """
    if problems := differences({row: protocol_fields(line) for row, line in lines.items()}):
        raise UserError(
            f"{where}: the rows were not measured under one protocol, so no table holds them all:\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + "\nTest them again with the same flags (scripts/run_experiment.py does), or give them different groups."
        )


def describe_protocol(line: Line) -> list[str]:
    """Return sentences for the foot of a table."""
    sentences = [_pictures(line)]
    for name in line["metrics"]:
        detail = _detail(line, name)
        sha = detail.get("weights_sha256")
        weights = f"; weights {detail.get('weights')}, sha256 {sha[:12]}" if sha else ""
        real = f"; real pictures {detail['real']:.2f}" if "real" in detail else ""
        real += f"; the source unchanged {detail['unchanged']:.2f}" if "unchanged" in detail else ""
        labels = f"; {detail['label_nc']} label ids" if "label_nc" in detail else ""
        library = f"; transformers {detail['transformers']}" if "transformers" in detail else ""
        sentences.append(
            f"{name}: {detail.get('protocol')}; {detail.get('count')} pictures{labels}{weights}{library}{real}"
        )
    return sentences


def _pictures(line: Line) -> str:
    """Say which pictures were measured; what the line does not know is left out."""
    known = {name: value for name, value in line["protocol"].items() if value is not None}

    def if_known(name: str, text: str) -> str:
        return text.format(known[name]) if name in known else ""

    count = f"{line['num_images']}{if_known('split_size', ' of {}')} pictures"
    data = if_known("dataset_mode", " of {}") or if_known("real", " of {}")
    pictures = f"{count}{data}{if_known('split', ', split {}')}{if_known('crop_size', ', {} pixels')}"
    draws = (if_known("mask_set", "masks {}"), if_known("seed", "seed {}"), if_known("draw", "{}"))
    cuts, objects = if_known("test_cuts", "cuts: {}"), if_known("object_classes", "objects: {}")
    parts = (pictures, cuts, objects, ", ".join(filter(None, draws)), if_known("reference", "reference: {}"))
    return "; ".join(filter(None, parts))
