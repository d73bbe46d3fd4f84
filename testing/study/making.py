"""A forced-choice study: on each page an input and two methods' results, whose order only the maker's key tells.

`study.html` is what participants get: one file that reads nothing from a network and names no method. `study.json` is
the key, which counts what they send back.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from metrics.reporting.page.gallery import REAL, RESULT, Load
from util.errors import UserError
from util.files import write_text
from util.seeds import derive_seed

KEY, PAGE = "study.json", "study.html"
FORMAT = 1
HERE = Path(__file__).parent
TEMPLATES = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)


@dataclass(frozen=True)
class Trial:
    """One choice: between the results of two methods, by name, on a picture."""

    picture: str
    left: str
    right: str


def draw_trials(pictures: Sequence[str], methods: Sequence[str], *, count: int, seed: int) -> list[Trial]:
    """Return every pair of methods on `count` of the pictures, in a drawn order, with drawn sides."""
    rng = random.Random(derive_seed(seed, "study"))
    chosen = rng.sample(sorted(pictures), min(count, len(pictures)))
    trials = [Trial(picture, *rng.sample(pair, 2)) for picture in chosen for pair in combinations(methods, 2)]
    rng.shuffle(trials)
    return trials


class Study:
    """What the page shows.

    Args:
        loads: gives the pictures of a name by title, by method (`metrics.reporting.page.gallery.Result`).
        trials: of these methods.
        protocol: of the tests, for the key.
    """

    def __init__(self, loads: Mapping[str, Load], trials: Sequence[Trial], protocol: Mapping[str, Any]) -> None:
        self.trials = trials
        self.pictures: list[str] = []  # each once, as data of the page
        self._places: dict[str, int] = {}
        self._seen: dict[tuple[str, str], Mapping[str, int]] = {}
        self.shown = [self._show(trial, loads) for trial in trials]
        told = [vars(trial) for trial in trials]
        digests = [hashlib.sha256(each.encode()).hexdigest() for each in self.pictures]
        content = json.dumps([told, digests, self.shown], sort_keys=True)
        self.id = hashlib.sha256(content.encode()).hexdigest()[:16]
        self.key = {"format": FORMAT, "study": self.id, "protocol": dict(protocol), "trials": told}

    def write(self, folder: Path, *, title: str, question: str) -> None:
        """Write the page and its key."""
        script = (HERE / "study.js").read_text(encoding="utf-8")
        page = TEMPLATES.get_template("study.html.j2").render(
            title=title, question=question, data={"study": self.id, "trials": self.shown, "pictures": self.pictures},
            script=Markup(script), script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / PAGE, f"{page}\n")
        write_text(folder / KEY, json.dumps(self.key, indent=1) + "\n")

    def _show(self, trial: Trial, loads: Mapping[str, Load]) -> dict[str, Any]:
        """Return the places of a trial's pictures: what both share, and the two results."""
        sides = [self._views(method, trial.picture, loads) for method in (trial.left, trial.right)]
        shared = [[title, place] for title, place in sides[0].items() if not title.startswith((RESULT, REAL))]
        return {"shared": shared, "sides": [views[RESULT] for views in sides]}

    def _views(self, method: str, picture: str, loads: Mapping[str, Load]) -> Mapping[str, int]:
        if (method, picture) not in self._seen:
            views = loads[method](picture)
            self._seen[method, picture] = {title: self._place(array) for title, array in views.items()
                                           if title == RESULT or not title.startswith((RESULT, REAL))}  # fmt: skip
        return self._seen[method, picture]

    def _place(self, array: np.ndarray) -> int:
        """Return where the page has a picture; PNG, since the losses of JPEG would be judged too."""
        file = io.BytesIO()
        Image.fromarray(array).save(file, "PNG")
        text = base64.b64encode(file.getvalue()).decode()
        if text not in self._places:
            self._places[text] = len(self.pictures)
            self.pictures.append(text)
        return self._places[text]


def require_two(methods: Sequence[str]) -> None:
    """Raise `UserError` unless there is something to choose between."""
    if len(methods) < 2:
        raise UserError(f"a choice needs the results of two methods at least, not of {', '.join(methods) or 'none'}")
