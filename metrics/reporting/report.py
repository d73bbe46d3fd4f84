"""`report.html`: the numbers of a test with its pictures, in one file that needs no network and runs no script."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from metrics.evaluator import Evaluator
from metrics.registry import arrow
from metrics.reporting.report_parts import STYLE, Thumbnails, bars, grid, heat_map, number, table
from util.files import write_text
from util.images import read_image, read_labels_coloured

ROWS, EXTREMES = 8, 4  # pictures of the overview; best and worst ones per metric
Load = Callable[[str], Mapping[str, np.ndarray]]


def write_report(
    line: Mapping[str, Any],
    evaluator: Evaluator,
    folder: Path,
    *,
    title: str,
    load: Load | None = None,
    sets: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    notes: Sequence[str] | None = None,
) -> Path:
    """Write `<folder>/report.html` and return its path.

    Args:
        line: of `metrics.evaluator.result_line`.
        evaluator: after `compute`.
        folder: of the results.
        title: of the page.
        load: gives the pictures (H,W,3) uint8 of a name by title, among them "result"; default: from the folders that
            test.py writes.
        sets: pictures by title and name, shown where there are no pairs.
        notes: what is missing and why; default: the evaluator's.
    """
    load = load or (lambda name: load_results(folder, name))
    thumbnails = Thumbnails()
    sections = [
        ("Values", values_table(line)),
        ("By erased share", bins_table(line["details"])),
        ("Pictures", strips(sets, thumbnails) if sets else overview(evaluator, load, thumbnails)),
        ("Best and worst", extremes(evaluator, load, thumbnails)),
        ("Classes", classes(line["details"])),
        ("Confusion", confusion(evaluator)),
        ("Notes", note_list(evaluator.notes if notes is None else notes)),
        ("Protocol", f"<pre>{escape(json.dumps(line['protocol'], indent=1))}</pre>"),
    ]
    present = [(head, text) for head, text in sections if text]
    anchors = "".join(f'<a href="#{head.split()[0]}">{head}</a>' for head, _ in present)
    body = "".join(f'<section id="{head.split()[0]}"><h2>{head}</h2>{text}</section>' for head, text in present)
    path = folder / "report.html"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(
        path,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}{thumbnails.css()}</style></head><body>'
        f"<header><h1>{escape(title)}</h1><p>{subtitle(line)}</p><nav>{anchors}</nav></header>"
        f"<main>{body}</main></body></html>\n",
    )
    return path


def load_results(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Return input, labels, the first draws and the real picture that test.py saved."""
    real, mask = (read_image(folder / kind / f"{name}.png") for kind in ("real", "mask"))
    labels = read_labels_coloured(folder / "label" / f"{name}.png")
    draws = [folder / kind / f"{name}.png" for kind in ("fake", "fake_2", "fake_3")]
    results = {f"result {k}".removesuffix(" 1"): read_image(p) for k, p in enumerate(draws, start=1) if p.is_file()}
    return {"input": np.where(mask > 0, 128, real).astype(np.uint8), "labels": labels, **results, "real": real}


def subtitle(line: Mapping[str, Any]) -> str:
    """Return a line with data, step, settings and commit of the test."""
    protocol = line["protocol"]
    facts = [f"{line['num_images']} pictures"]
    for key, text in (("dataset_mode", "data {}"), ("split", "split {}"), ("crop_size", "{} pixels"),
                      ("mask_set", "masks {}"), ("seed", "seed {}"), ("commit", "commit {}")):  # fmt: skip
        if protocol.get(key) is not None:
            facts.append(text.format(protocol[key]))
    if line.get("step") is not None:
        facts.insert(1, f"step {line['step']}")
    return escape(" · ".join(facts))


def values_table(line: Mapping[str, Any]) -> str:
    """Value, interval, score of the real pictures, and what it is."""
    rows = []
    for name, value in line["metrics"].items():
        detail = line["details"][name]
        interval = ""
        if "ci95" in detail:
            interval = " to ".join(number(end) for end in detail["ci95"])
        elif "standard_error" in detail:
            interval = f"standard error {number(detail['standard_error'])}"
        real = number(detail["real"]) if "real" in detail else ""
        note = f"; {detail['note']}" if "note" in detail else ""
        what = f"{detail['protocol']}. {detail['count']} pictures{note}"
        unit = "" if detail["unit"] in ("1", "distance") else f" {detail['unit']}"
        shown = f"<b>{number(value)}</b>{unit}"
        rows.append([f"{escape(name)} {arrow(name)}", shown, interval, real, f"<small>{escape(what)}</small>"])
    return table(["", "value", "95 % interval", "real pictures", "what"], rows)


def bins_table(details: Mapping[str, Mapping[str, Any]]) -> str:
    """One row per metric, one column per bin."""
    columns = list(dict.fromkeys(key for detail in details.values() for key in detail.get("bins", {})))
    columns.sort(key=lambda text: int(text.split("-")[0]))
    rows, counts = [], dict.fromkeys(columns, 0)
    for name, detail in details.items():
        bins = detail.get("bins", {})
        if bins:
            rows.append([f"{escape(name)} {arrow(name)}"])
            rows[-1] += [number(bins[key]["value"]) if key in bins else "" for key in columns]
        for key, entry in bins.items():
            counts[key] = max(counts[key], entry["pictures"])
    if not rows:
        return ""
    return table(["", *(key.replace("-", "–") for key in columns)], [*rows, ["pictures", *map(str, counts.values())]])


def overview(evaluator: Evaluator, load: Load, thumbnails: Thumbnails) -> str:
    """Pictures from all over the set, a row each."""
    rows, titles = [], []
    names = list(dict.fromkeys(evaluator.names))
    for name in names[:: -(-len(names) // ROWS) or 1]:
        pictures = load(name)
        titles = list(pictures)
        rows.append([thumbnails.box(picture, f"{title} of {name}") for title, picture in pictures.items()])
    return grid(titles, rows) if rows else ""


def strips(sets: Mapping[str, Mapping[str, np.ndarray]], thumbnails: Thumbnails) -> str:
    """Some pictures of each of two unpaired sets."""
    parts = []
    for title, pictures in sets.items():
        shown = (
            f"<figure>{thumbnails.box(picture, f'{title}: {name}')}<figcaption>{escape(name)}</figcaption></figure>"
            for name, picture in pictures.items()
        )
        parts.append(f'<p>{escape(title)}</p><div class="strip">{"".join(shown)}</div>')
    return "".join(parts)


def extremes(evaluator: Evaluator, load: Load, thumbnails: Thumbnails) -> str:
    """For each metric that single pictures have: the best and the worst."""
    parts: list[str] = []
    for metric, values in evaluator.per_picture().items():
        known = {name: value for name, value in zip(evaluator.names, values, strict=True) if not math.isnan(value)}
        order = sorted(known, key=lambda name: known[name], reverse=arrow(metric) == "↑")
        if len(order) < 2:
            continue
        few = min(EXTREMES, len(order) // 2)
        strips = []
        for word, chosen in (("best", order[:few]), ("worst", order[-few:][::-1])):
            figures = [thumbnails.pair(load(name), f"{name}: {number(known[name])}") for name in chosen]
            strips.append(f'<div class="strip"><span>{word}</span>{"".join(figures)}</div>')
        opened = "" if parts else " open"
        parts.append(f"<details{opened}><summary>{escape(metric)} {arrow(metric)}</summary>{''.join(strips)}</details>")
    told = (
        "<p>Left the result, right the real picture; below, its name and its own value. Open a metric to see them.</p>"
    )
    return told + "".join(parts) if parts else ""


def classes(details: Mapping[str, Mapping[str, Any]]) -> str:
    """Bars of the IoU of each class, generated and real."""
    for detail in details.values():
        if "iou_per_class" in detail:
            real = detail.get("iou_per_class_real", {})
            rows = [(name, value, real.get(name)) for name, value in detail["iou_per_class"].items()]
            told = (
                "<p>IoU in percent, by falling value; the mark is the same segmenter's score on the real pictures.</p>"
            )
            return told + bars(sorted(rows, key=lambda row: -row[1]))
    return ""


def confusion(evaluator: Evaluator) -> str:
    """The confusion matrix in shares of each row."""
    found = evaluator.confusion()
    if found is None:
        return ""
    names, counts = found
    used = [i for i in range(len(names)) if counts[i].sum() or counts[:, i].sum()]
    share = counts[used][:, used].double() / counts[used].sum(1, keepdim=True).clamp(min=1)
    told = "<p>Row: class of the label; column: class that the segmenter sees in the result; percent of the row.</p>"
    return told + heat_map([names[i] for i in used], (100 * share).tolist())


def note_list(notes: Sequence[str]) -> str:
    """What is missing and why."""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<ul>{items}</ul>" if items else ""
