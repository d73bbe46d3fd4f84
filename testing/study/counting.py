"""Votes of a study: read, checked against its key, counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testing.study.making import FORMAT, KEY, Trial
from util.errors import UserError
from util.text_files import parse_json

SIDES = ("left", "right")
Z = 1.959963984540054  # of 95 %


@dataclass(frozen=True)
class Counted:
    """How often two methods were chosen, when they stood side by side."""

    methods: tuple[str, str]
    votes: tuple[int, int]

    @property
    def share(self) -> float:
        """Of the first method."""
        return self.votes[0] / sum(self.votes)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of `share`, by Wilson's score."""
        return wilson(self.votes[0], sum(self.votes))


def wilson(chosen: int, count: int, z: float = Z) -> tuple[float, float]:
    """Return the ends of Wilson's score interval of a share (1927, Eq. 3); of no votes [0, 1]."""
    if not count:
        return 0.0, 1.0
    centre, spread = chosen + z * z / 2, z * math.sqrt(chosen * (count - chosen) / count + z * z / 4)
    return max(0.0, (centre - spread) / (count + z * z)), min(1.0, (centre + spread) / (count + z * z))


def read_key(folder: Path) -> tuple[str, list[Trial]]:
    """Return a study's hash and trials; raises `UserError`."""
    path = folder / KEY if folder.is_dir() else folder
    content = _read(path, "a study's key")
    try:
        if content["format"] != FORMAT:
            raise UserError(f"{path}: has format {content['format']}, this version reads {FORMAT}")
        return str(content["study"]), [Trial(**trial) for trial in content["trials"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not a study's key ({error!r}); scripts/study.py make writes {KEY}") from error


def read_votes(files: Sequence[Path], study: str, count: int) -> dict[str, dict[int, str]]:
    """Return {participant: {trial: side}}.

    Args:
        files: what participants have sent.
        study: hash of the study.
        count: of its trials.

    Raises:
        UserError: a file is of another study, of a participant who was counted already, or damaged.
    """
    votes: dict[str, dict[int, str]] = {}
    came_from: dict[str, Path] = {}
    for path in files:
        content = _read(path, "votes")
        try:
            who, of, given = str(content["participant"]), content["study"], dict(content["votes"])
            choices = {int(trial): str(side) for trial, side in given.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not the votes that the page of a study saves ({error!r})") from error
        if of != study:
            raise UserError(f"{path}: votes of study {of}, not of {study}; count them with the key of their own study")
        if who in came_from:
            raise UserError(f"{path}: the participant of {came_from[who]}; name one of the two files")
        wrong = [f"{trial}: {side}" for trial, side in choices.items() if not 0 <= trial < count or side not in SIDES]
        if wrong:
            raise UserError(f"{path}: '{wrong[0]}' is no choice of this study, which has {count} of left and right")
        votes[who], came_from[who] = choices, path
    return votes


def count_votes(trials: Sequence[Trial], votes: Mapping[str, Mapping[int, str]]) -> list[Counted]:
    """Return the votes of every pair of methods, in the order of their names; pairs without votes are left out."""
    chosen: Counter[tuple[str, str]] = Counter()  # (who was chosen, who was not)
    for choices in votes.values():
        for place, side in choices.items():
            pair = (trials[place].left, trials[place].right)
            chosen[pair if side == SIDES[0] else pair[::-1]] += 1
    pairs = sorted({(min(pair), max(pair)) for pair in chosen})
    return [Counted(pair, (chosen[pair], chosen[pair[::-1]])) for pair in pairs]


def _read(path: Path, what: str) -> Any:
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as {what} ({error})") from error
