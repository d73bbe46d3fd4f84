"""`report.html`: the numbers of tests with their pictures, in one file that reads nothing from a network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from metrics.reporting.page import tables
from metrics.reporting.page.gallery import Gallery, Result
from metrics.reporting.page.thumbnails import Thumbnails
from metrics.reporting.protocol import require_one_protocol
from util.errors import UserError
from util.files import write_text
from util.images import read_image, read_labels_coloured

COLOURS = 8  # of methods, in report.css
PAGE = Path(__file__).parent / "page"
TEMPLATES = Environment(loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined)


def write_report(
    results: Sequence[Result],
    folder: Path,
    *,
    title: str,
    sets: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> Path:
    """Write `<folder>/report.html` and return its path.

    Args:
        results: of one or several methods on one or several tasks; those of one task on the same pictures.
        folder: made if it is not there.
        title: of the page.
        sets: pictures by title and name, shown where there are no pairs.

    Raises:
        UserError: two results have one name and task, or results of one task were not measured alike.
    """
    tasks = by_task(results)
    thumbnails = Thumbnails()
    galleries = {task: Gallery(methods, thumbnails) for task, methods in tasks.items()}
    script = (PAGE / "report.js").read_text(encoding="utf-8")
    sections = make_sections(tasks, galleries, sets or {})
    data = {
        "tasks": [{"name": task, **gallery.data()} for task, gallery in galleries.items()],
        "sizes": thumbnails.sizes,
    }
    page = TEMPLATES.get_template("report.html.j2").render(
        title=title,
        subtitles=list(dict.fromkeys(tables.subtitle(result.line) for result in results)),
        tasks=list(tasks),
        sections=sections,
        number=tables.number,
        colours={name: place % COLOURS for place, name in enumerate(dict.fromkeys(each.name for each in results))},
        data=data,
        pictures=thumbnails.pictures,
        style=Markup((PAGE / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    path = folder / "report.html"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, f"{page}\n")
    return path


def by_task(results: Sequence[Result]) -> dict[str, dict[str, Result]]:
    """Return the results by task and method; raises `UserError` if those of a task cannot stand side by side."""
    tasks: dict[str, dict[str, Result]] = {}
    for result in results:
        methods = tasks.setdefault(str(result.line["task"]), {})
        if result.name in methods:
            raise UserError(f"{result.name}, {result.line['task']}: given twice; measure one under another name")
        methods[result.name] = result
    for task, methods in tasks.items():
        require_one_protocol({name: result.line for name, result in methods.items()}, task)
    return tasks


def make_sections(
    tasks: Mapping[str, Mapping[str, Result]],
    galleries: Mapping[str, Gallery],
    sets: Mapping[str, Mapping[str, np.ndarray]],
) -> list[tuple[str, str, list[tuple[int, list[str], Any]]]]:
    """Return head, macro of the template, and (task's place, methods, content) of every section that has any."""
    kinds: dict[str, tuple[str, list[Any]]] = {
        head: (macro, [])
        for head, macro in (
            ("Values", "values"), ("Differences", "differences"), ("Precision and recall", "precision_recall"),
            ("By erased share", "bins"), ("Classes", "classes"), ("Confusion", "confusion"), ("Each picture", "browse"),
            ("Pictures", "strips" if sets else "overview"), ("Best and worst", "extremes"), ("Notes", "notes"),
            ("Protocol", "protocols"),
        )
    }  # fmt: skip
    for place, (task, methods) in enumerate(tasks.items()):
        lines, gallery = {name: result.line for name, result in methods.items()}, galleries[task]
        overview = gallery.overview()
        contents = {
            "Values": tables.values(lines),
            "Differences": tables.paired_differences(lines),
            "Precision and recall": tables.precision_recall(lines),
            "By erased share": tables.bins(lines),
            "Classes": tables.classes(lines),
            "Confusion": tables.confusion(lines),
            "Each picture": place == 0 and any(each.names for each in galleries.values()),  # one table for all tasks
            "Pictures": gallery.strips(sets) if sets else overview and {"titles": gallery.titles(), "rows": overview},
            "Best and worst": gallery.extremes(),
            "Notes": [(name, result.notes) for name, result in methods.items() if result.notes],
            "Protocol": tables.protocols(lines),
        }
        for head, content in contents.items():
            if content:
                kinds[head][1].append((place, list(methods), content))
    return [(head, macro, parts) for head, (macro, parts) in kinds.items() if parts]


def load_results(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Return input, labels, the first draws and the real picture that test.py saved."""
    real, mask = (read_image(folder / kind / f"{name}.png") for kind in ("real", "mask"))
    labels = read_labels_coloured(folder / "label" / f"{name}.png")
    draws = [folder / kind / f"{name}.png" for kind in ("fake", "fake_2", "fake_3")]
    results = {f"result {k}".removesuffix(" 1"): read_image(p) for k, p in enumerate(draws, start=1) if p.is_file()}
    return {"input": np.where(mask > 0, 128, real).astype(np.uint8), "labels": labels, **results, "real": real}
