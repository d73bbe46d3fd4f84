"""Pictures of the report: an overview, the best and the worst, and all that the page's script can open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metrics.registry import arrow
from metrics.reporting.page.tables import number, titled
from metrics.reporting.page.thumbnails import SIDE, Thumbnail, Thumbnails
from metrics.reporting.protocol import Line

ROWS, EXTREMES = 8, 4  # pictures of the overview; best and worst ones per metric, of several methods half as many each
OPENED = 64  # pictures of a task that can be opened beside these: enough to browse, few enough to mail the page
RESULT, REAL = "result", "real"
Load = Callable[[str], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Result:
    """The test of a method on one task.

    Args:
        name: of the method.
        line: of `metrics.reporting.result.result_line`, with what is kept beside it (`Evaluator.kept`).
        load: gives the pictures (H,W,3) uint8 of a name by title, among them "result", and "real" for the truth.
        notes: what is missing and why.
    """

    name: str
    line: Line
    load: Load
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Shown:
    """Pictures that open at one of the task: its place in the list, the method's place, a caption."""

    picture: int
    method: int
    caption: str
    thumbnails: list[Thumbnail]


class Gallery:
    """Pictures of several methods on one task; all have been tested on the same ones.

    Args:
        results: by method.
        thumbnails: of the page.
    """

    def __init__(self, results: Mapping[str, Result], thumbnails: Thumbnails) -> None:
        self.results, self.thumbnails = results, thumbnails
        kept = [result.line.get("per_picture", {}) for result in results.values()]
        self.names = list(dict.fromkeys(name for each in kept for name in each.get("names", ())))
        self.metrics = list(dict.fromkeys(metric for each in kept for metric in each if metric != "names"))
        self._values = [
            {metric: dict(zip(each["names"], each[metric], strict=True)) for metric in each if metric != "names"}
            for each in kept
        ]
        self._views: dict[str, dict[str, Thumbnail]] = {}
        taken = {"input", "labels", REAL}  # titles of what all methods share
        own = [f"result of {method}" if method in taken else method for method in results]
        self.views_of_methods = [RESULT] if len(results) == 1 else own

    def views(self, name: str) -> dict[str, Thumbnail]:
        """Return what is shown of a picture by title, each method's result among it; it can be opened from now on."""
        if name not in self._views:
            pictures = self._pictures(name)
            self._views[name] = {t: self.thumbnails.add(picture, f"{t} of {name}") for t, picture in pictures.items()}
        return self._views[name]

    def _pictures(self, name: str) -> Mapping[str, np.ndarray]:
        loaded = [result.load(name) for result in self.results.values()]
        if len(loaded) == 1:
            return loaded[0]
        shared: dict[str, np.ndarray] = {}
        own: dict[str, np.ndarray] = {}
        for method, pictures in zip(self.views_of_methods, loaded, strict=True):
            for title, picture in pictures.items():
                if title.startswith(RESULT):
                    own[method + title.removeprefix(RESULT)] = picture  # "result 2" is another draw
                else:
                    shared.setdefault(title, picture)
        real = {REAL: shared.pop(REAL)} if REAL in shared else {}
        return {**shared, **own, **real}

    def overview(self) -> list[Shown]:
        """Pictures spread over the set, a row each."""
        return [
            Shown(self.names.index(name), 0, name, list(self.views(name).values()))
            for name in self.names[:: -(-len(self.names) // ROWS) or 1]
        ]

    def titles(self) -> list[str]:
        """Return the titles of the overview's columns."""
        return list(self.views(self.names[0])) if self.names else []

    def extremes(self) -> list[tuple[str, list[tuple[str, str, list[Shown]]]]]:
        """For each metric of single pictures: (method, "best" or "worst", pictures)."""
        most = EXTREMES if len(self.results) == 1 else EXTREMES // 2
        found = []
        for metric in self.metrics:
            rows = []
            for place, method in enumerate(self.results):
                values = self._values[place].get(metric, {})
                known = {name: value for name, value in values.items() if value is not None}
                order = sorted(known, key=lambda name: known[name], reverse=arrow(metric) == "↑")
                if few := min(most, len(order) // 2):
                    ends = {"best": order[:few], "worst": order[-few:][::-1]}
                    rows += [(method, end, [self._pair(name, place, known[name]) for name in names])
                             for end, names in ends.items()]  # fmt: skip
            if rows:
                found.append((titled(metric), rows))
        return found

    def _pair(self, name: str, place: int, value: float) -> Shown:
        """Return the result of a method beside the truth."""
        views = self.views(name)
        titles = [title for title in (self.views_of_methods[place], REAL) if title in views]
        pair = [self.thumbnails.shown(views[title], 2 * SIDE // 3) for title in titles]
        return Shown(self.names.index(name), place, f"{name}: {number(value)}", pair)

    def strips(self, sets: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, Thumbnail]]:
        """Some pictures of each of two unpaired sets, by title and name."""
        return {
            title: {name: self.thumbnails.add(picture, f"{title}: {name}") for name, picture in pictures.items()}
            for title, pictures in sets.items()
        }

    def data(self) -> dict[str, Any]:
        """Return what the page's script reads: every picture's values, and what can be shown of it."""
        count = min(OPENED, len(self.names))
        for k in range(count):
            self.views(self.names[k * len(self.names) // count])
        line = next(iter(self.results.values())).line
        facts = {
            key: dict(zip(line["per_picture"]["names"], each, strict=True))
            for key, each in line.get("pictures", {}).items()
        }
        return {
            "methods": list(self.results),
            "views": self.views_of_methods,
            "metrics": [{"name": metric, "lower": arrow(metric) == "↓"} for metric in self.metrics],
            "pictures": [
                {
                    "name": name,
                    "erased": facts.get("erased", {}).get(name),
                    "classes": facts.get("classes", {}).get(name, []),
                    "values": [[own.get(metric, {}).get(name) for own in self._values] for metric in self.metrics],
                    "shown": [[title, view.rule] for title, view in self._views.get(name, {}).items()],
                }
                for name in self.names
            ],
        }
