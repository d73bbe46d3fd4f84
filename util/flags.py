"""Types of command line flags that reject invalid numbers."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from util.errors import UserError
from util.registry import did_you_mean

N = TypeVar("N", int, float)


def positive_int(text: str) -> int:
    """Return a whole number of at least 1."""
    return _checked(text, int, lambda value: value >= 1, "a whole number of at least 1")


def natural(text: str) -> int:
    """Return a whole number of at least 0."""
    return _checked(text, int, lambda value: value >= 0, "a whole number of at least 0")


def numpy_seed(text: str) -> int:
    """Return a whole number that numpy takes as a seed."""
    return _checked(text, int, lambda value: 0 <= value < 1 << 32, "a whole number from 0 to 2^32 - 1")


def positive(text: str) -> float:
    """Return a number above 0."""
    return _checked(text, float, lambda value: 0 < value < float("inf"), "a number above 0")


def weight(text: str) -> float:
    """Return a number of at least 0."""
    return _checked(text, float, lambda value: 0 <= value < float("inf"), "a number of at least 0")


def fraction(text: str) -> float:
    """Return a number of at least 0 and below 1."""
    return _checked(text, float, lambda value: 0 <= value < 1, "a number of at least 0 and below 1")


def metric_names(text: str, known: Sequence[str]) -> list[str]:
    """Split --metrics at commas; `all` and `none` stand alone. Raises `UserError` for a name that is not known."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for keyword, meaning in (("all", list(known)), ("none", [])):
        if names == [keyword]:
            return meaning
        if keyword in names:
            raise UserError(f"--metrics {text}: '{keyword}' stands alone; leave it or the other names out")
    for name in names:
        if name not in known:
            choices = ", ".join((*known, "all", "none"))
            raise UserError(f"--metrics '{name}' is unknown.{did_you_mean(name, known)} Known: {choices}")
    return list(dict.fromkeys(names))


def _checked(text: str, kind: Callable[[str], N], fits: Callable[[N], bool], wanted: str) -> N:
    with contextlib.suppress(ValueError):
        if fits(value := kind(text)):
            return value
    raise argparse.ArgumentTypeError(f"'{text}' is not {wanted}")
