"""Progress: a bar in a terminal, occasional lines elsewhere (a log, a batch system)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from tqdm import tqdm

FIRST, EVERY = 10.0, 60.0  # seconds to the first line, and between lines


def progress(
    items: Iterable[Any] | None = None,
    *,
    desc: str = "",
    total: int | None = None,
    unit: str = "it",
    initial: int = 0,
    leave: bool = True,
    shown: bool = True,
) -> Any:
    """Return a bar to iterate over, or to `update()` in a `with` block; on standard error.

    Args:
        items: what to pass on, one by one.
        desc, unit: what is done, and what is counted, in the singular.
        total: how many there are; default: the length of `items`, where it has one.
        initial: how many are done already.
        leave: let a terminal keep the full bar.
        shown: off for a process that does not print.
    """
    if sys.stderr.isatty() or not shown:
        return tqdm(
            items, desc=desc or None, total=total, unit=unit, initial=initial, leave=leave, disable=not shown,
            mininterval=0.5,
        )  # fmt: skip
    return Lines(items, desc=desc, total=total, unit=unit, initial=initial)


class Lines:
    """The part of `tqdm`'s interface that the trainer and the commands use, in lines."""

    def __init__(
        self, items: Iterable[Any] | None, *, desc: str, total: int | None, unit: str, initial: int = 0
    ) -> None:
        self.items, self.desc, self.unit = items, desc, unit
        self.total = len(items) if total is None and hasattr(items, "__len__") else total  # type: ignore[arg-type]
        self.initial = self.n = initial
        self.postfix = ""
        self.began = time.monotonic()
        self.due = self.began + FIRST

    def __iter__(self) -> Iterator[Any]:
        assert self.items is not None, "made without items: use update()"
        for item in self.items:
            yield item
            self.update()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass

    def set_postfix(self, values: Mapping[str, Any], *, refresh: bool = True) -> None:
        """Add values to the lines to come."""
        self.postfix = "".join(f", {name}={value}" for name, value in values.items())

    def update(self, count: int = 1) -> None:
        """Count, and print a line if one is due."""
        self.n += count
        now = time.monotonic()
        if now >= self.due:
            self.due = now + EVERY
            print(self.line(now - self.began), file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """Return the line after so many seconds."""
        speed = (self.n - self.initial) / seconds
        whole = f" of {self.total}" if self.total else ""
        left = f", {_duration((self.total - self.n) / speed)} left" if self.total and speed else ""
        text = f"{self.n}{whole} ({self.unit}), {speed:.3g} a second{left}{self.postfix}"
        return f"{self.desc}: {text}" if self.desc else text


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
