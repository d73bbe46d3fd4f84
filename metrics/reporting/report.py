"""`report.html`: the numbers of a test with its pictures, in one file that needs no network and runs no script."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from metrics.evaluator import Evaluator
from metrics.registry import arrow
from metrics.reporting.thumbnails import SIDE, Thumbnail, Thumbnails
from util.files import write_text
from util.images import read_image, read_labels_coloured

ROWS, EXTREMES = 8, 4  # pictures of the overview; best and worst ones per metric
TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
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
        line: of `metrics.reporting.result.result_line`.
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
    details = line["details"]
    pictures = ("strips", strips(sets, thumbnails)) if sets else ("overview", overview(evaluator, load, thumbnails))
    sections = [
        ("Values", "values", values(line)),
        ("By erased share", "bins", bins(details)),
        ("Pictures", *pictures),
        ("Best and worst", "extremes", extremes(evaluator, load, thumbnails)),
        ("Classes", "classes", classes(details)),
        ("Confusion", "confusion", confusion(evaluator)),
        ("Notes", "notes", evaluator.notes if notes is None else notes),
        ("Protocol", "protocol", json.dumps(line["protocol"], indent=1)),
    ]
    page = TEMPLATES.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle(line),
        sections=[section for section in sections if section[-1]],
        pictures=thumbnails.pictures,
    )
    path = folder / "report.html"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, f"{page}\n")
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
    return " · ".join(facts)


def number(value: float) -> str:
    """Return a number with two to four decimals, by its size."""
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.{3 if abs(value) >= 1 else 4}f}"


def values(line: Mapping[str, Any]) -> list[dict[str, str]]:
    """Value, interval, score of the real pictures, and what it is."""
    rows = []
    for name, value in line["metrics"].items():
        detail = line["details"][name]
        interval = ""
        if "ci95" in detail:
            interval = " to ".join(number(end) for end in detail["ci95"])
        elif "standard_error" in detail:
            interval = f"standard error {number(detail['standard_error'])}"
        note = f"; {detail['note']}" if "note" in detail else ""
        rows.append({
            "name": f"{name} {arrow(name)}", "value": number(value), "interval": interval,
            "unit": "" if detail["unit"] in ("1", "distance") else f" {detail['unit']}",
            "real": number(detail["real"]) if "real" in detail else "",
            "what": f"{detail['protocol']}. {detail['count']} pictures{note}",
        })  # fmt: skip
    return rows


def bins(details: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The head, then a row per metric, a column per bin, then the numbers of pictures."""
    columns = list(dict.fromkeys(key for detail in details.values() for key in detail.get("bins", {})))
    columns.sort(key=lambda text: int(text.split("-")[0]))
    rows, counts = [], dict.fromkeys(columns, 0)
    for name, detail in details.items():
        by_share = detail.get("bins", {})
        if by_share:
            cells = (number(by_share[key]["value"]) if key in by_share else "" for key in columns)
            rows.append([f"{name} {arrow(name)}", *cells])
        for key, entry in by_share.items():
            counts[key] = max(counts[key], entry["pictures"])
    if not rows:
        return []
    head = ["", *(key.replace("-", "–") for key in columns)]
    return [head, *rows, ["pictures", *map(str, counts.values())]]


def overview(evaluator: Evaluator, load: Load, thumbnails: Thumbnails) -> list[dict[str, Thumbnail]]:
    """Pictures spread over the set, a row each, by title."""
    names = list(dict.fromkeys(evaluator.names))
    return [
        {title: thumbnails.add(picture, f"{title} of {name}") for title, picture in load(name).items()}
        for name in names[:: -(-len(names) // ROWS) or 1]
    ]


def strips(sets: Mapping[str, Mapping[str, np.ndarray]], thumbnails: Thumbnails) -> dict[str, dict[str, Thumbnail]]:
    """Some pictures of each of two unpaired sets, by title and name."""
    return {
        title: {name: thumbnails.add(picture, f"{title}: {name}") for name, picture in pictures.items()}
        for title, pictures in sets.items()
    }


def extremes(
    evaluator: Evaluator, load: Load, thumbnails: Thumbnails
) -> dict[str, dict[str, dict[str, list[Thumbnail]]]]:
    """For each metric of single pictures: the best and the worst, by caption."""

    def pair(pictures: Mapping[str, np.ndarray], caption: str) -> list[Thumbnail]:
        shown = [title for title in ("result", "real") if title in pictures]
        return [thumbnails.add(pictures[title], f"{title} of {caption}", 2 * SIDE // 3) for title in shown]

    metrics = {}
    for metric, values in evaluator.per_picture().items():
        known = {name: value for name, value in zip(evaluator.names, values, strict=True) if not math.isnan(value)}
        order = sorted(known, key=lambda name: known[name], reverse=arrow(metric) == "↑")
        few = min(EXTREMES, len(order) // 2)
        if not few:
            continue
        ends = {"best": order[:few], "worst": order[-few:][::-1]}
        captions = {name: f"{name}: {number(value)}" for name, value in known.items()}
        metrics[f"{metric} {arrow(metric)}"] = {
            end: {captions[name]: pair(load(name), captions[name]) for name in names} for end, names in ends.items()
        }
    return metrics


def classes(details: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, float, float | None]]:
    """The IoU of each class, generated and real, by falling value."""
    for detail in details.values():
        if "iou_per_class" in detail:
            real = detail.get("iou_per_class_real", {})
            rows = [(name, value, real.get(name)) for name, value in detail["iou_per_class"].items()]
            return sorted(rows, key=lambda row: -row[1])
    return []


def confusion(evaluator: Evaluator) -> list[tuple[str, list[float]]]:
    """The confusion matrix in percent of each row, with the names of the rows."""
    names_and_counts = evaluator.confusion()
    if names_and_counts is None:
        return []
    names, counts = names_and_counts
    used = [i for i in range(len(names)) if counts[i].sum() or counts[:, i].sum()]
    share = counts[used][:, used].double() / counts[used].sum(1, keepdim=True).clamp(min=1)
    return list(zip([names[i] for i in used], (100 * share).tolist(), strict=True))
