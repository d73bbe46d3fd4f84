"""Named things that flags choose from: models, data sets, metrics."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from util.errors import UserError

T = TypeVar("T")


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return ' Did you mean 'x'?' for the nearest of `known`, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=2, cutoff=cutoff)
    return f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""


class Registry(Generic[T]):
    """Classes by name, filled by `@REGISTRY.register("name")` in the files of one package.

    Args:
        flag: the command line flag that chooses a name, for messages (`--model`).
        package: the package whose `*_<suffix>.py` files are imported on first use.
        suffix: see `package`.
    """

    def __init__(self, *, flag: str, package: str, suffix: str) -> None:
        self.flag, self.package, self.suffix = flag, package, suffix
        self._items: dict[str, type[T]] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Enter the decorated class under `name`."""

        def enter(cls: type[T]) -> type[T]:
            if name in self._items:
                raise ValueError(f"{self.flag} {name} is registered twice: {self._items[name]} and {cls}")
            self._items[name] = cls
            return cls

        return enter

    def names(self) -> list[str]:
        """All names, sorted."""
        self._load()
        return sorted(self._items)

    def get(self, name: str) -> type[T]:
        """Return the class called `name`; raises `UserError` with the nearest known names.

        A name out of a YAML file may be anything there: a number, a list.
        """
        self._load()
        text = str(name)
        if text not in self._items:
            raise UserError(
                f"{self.flag} '{text}' is unknown.{did_you_mean(text, self._items)} Known: {', '.join(self.names())}"
            )
        return self._items[text]

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
            if module.name.endswith(f"_{self.suffix}") and not module.name.startswith("base_"):
                importlib.import_module(f"{self.package}.{module.name}")
