"""The model card of an exported run, in the form of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from data.records import CLASSES_FILE, read_class_table
from metrics.registry import METRICS, arrow
from metrics.reporting.result import LINES_FILE
from metrics.reporting.summary import read_lines
from util.opt import Opt

CARD_FILE = "README.md"


def model_card(
    folder: Path, about: Sequence[str], *, tags: Sequence[str], step: int, graphs: Mapping[str, float]
) -> str:  # fmt: skip
    """Return the text.

    Args:
        folder: the export, with result lines.
        about: paragraphs on what it is and how it is used.
        tags: of the hub, beside "pytorch".
        step: that the weights were trained for.
        graphs: what differs between the network's pictures and those of each graph.
    """
    lines = read_lines([str(folder / LINES_FILE)], "results") if (folder / LINES_FILE).is_file() else []
    newest = [line for line in {line["task"]: line for line in lines}.values() if line["step"] == step]
    head = {
        "library_name": "semedit",
        "pipeline_tag": "image-to-image",
        "tags": [*tags, "pytorch"],
        **({"model-index": [{"name": folder.name, "results": [as_result(line) for line in newest]}]} if newest else {}),
    }
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {folder.name}",
        *about,
        *([results_table(newest)] if newest else []),
        *([graphs_text(graphs)] if graphs else []),
        "**Licence**: to be stated by whoever publishes these weights; the data that they were trained on may bind it.",
    ]
    return "\n\n".join(parts) + "\n"


def about_editing(
    folder: Path, opt: Opt, *, summary: str, step: int, class_names: Sequence[str] | None
) -> list[str]:  # fmt: skip
    """Return the paragraphs on a method that edits scenes; `class_names` are for where there is no classes.json."""
    table = read_class_table(folder / CLASSES_FILE)
    names = list(table.names if table is not None else class_names or [])
    return [
        f"{summary}. Given a picture of {opt.crop_size} x {opt.crop_size} pixels (larger ones are edited in windows), "
        "an edited label map, an instance map and a mask, it fills the masked pixels so that they follow the labels "
        f"and fit the rest. Trained for {step} steps on `{opt.dataset_mode}`.",
        "```python\nimport semedit\n\n"
        f'editor = semedit.load("{folder.name}")\n'
        'pictures = editor.fill("photo.png", "labels.png", "instances.png", "mask.png", n=5, seed=0)\n```',
        f"**Classes**, by id: {', '.join(f'{i} {name}' for i, name in enumerate(names))}.",
    ]


def as_result(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result line as an entry of the hub's index."""
    protocol = line["protocol"]
    return {
        "task": {"type": "image-to-image", "name": line["task"]},
        "dataset": {"type": protocol["dataset_mode"], "name": protocol["dataset_mode"], "split": protocol["split"]},
        "metrics": [{"type": METRICS.asked_name(name), "name": name, "value": round(value, 6)}
                    for name, value in line["metrics"].items()],
    }  # fmt: skip


def results_table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the results as Markdown, a row per task."""
    columns = list(dict.fromkeys(name for line in lines for name in line["metrics"]))
    rows = [["task", "pictures", "masks", *(f"{name} {arrow(name)}" for name in columns)]]
    rows.append(["---"] * len(rows[0]))
    for line in lines:
        values = [f"{line['metrics'][name]:.4g}" if name in line["metrics"] else "" for name in columns]
        rows.append([line["task"], str(line["num_images"]), str(line["protocol"].get("mask_set", "")), *values])
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"**Results**, by `test.py` under the protocols in `{LINES_FILE}`:\n\n{body}"


def graphs_text(graphs: Mapping[str, float]) -> str:
    """Return what the graphs take and how they were checked."""
    files = ", ".join(f"`generator.{kind}` ({value:.1e})" for kind, value in graphs.items())
    return (
        f"**Graphs**: {files}; in brackets the largest difference from the network, of values in [-1, 1]. Inputs: "
        "image (1, 3, S, S) in [-1, 1]; seg (1, N, S, S) one-hot and edge (1, 1, S, S), both zero outside the mask; "
        "mask (1, 1, S, S), 1 = generated; with styles also inst (1, S, S) int64 with ids below I >= 2, and codes "
        "(1, I, D) for the instances of which nothing is visible. Output: the picture."
    )
