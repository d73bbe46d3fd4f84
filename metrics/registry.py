"""All metrics, by what they declare: which names a kind of test takes, with which flags, and what each value is."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any, TypeVar

from metrics.declaration import Value
from metrics.metric import Metric
from util.flags import metric_names

M = TypeVar("M", bound=type[Metric])
EDITING, ANALOGY, STYLISING = "editing", "analogy", "stylising"
KINDS = (EDITING, ANALOGY, STYLISING)


class MetricRegistry:
    """Metric classes, entered by `@METRICS.register` in the files of this package, which are imported on first use."""

    def __init__(self) -> None:
        self._classes: list[type[Metric]] = []
        self._loaded = False

    def register(self, cls: M) -> M:
        """Enter a class."""
        self._classes.append(cls)
        return cls

    def classes(self) -> list[type[Metric]]:
        """All classes in the order of their columns."""
        if not self._loaded:
            self._loaded = True
            package = importlib.import_module(__package__)
            for module in pkgutil.walk_packages(package.__path__, f"{__package__}."):
                importlib.import_module(module.name)
        return sorted(self._classes, key=lambda cls: (cls.place, cls.__name__))

    def names(self, *kinds: str, first: Sequence[str] = ()) -> list[str]:
        """Return the names that --metrics takes in tests of these kinds; without any, in all kinds.

        Args:
            first: names that lead the others.
        """
        asked = [name for cls in self.classes() for kind in kinds or KINDS for name in cls.asked.get(kind, ())]
        return list(dict.fromkeys([*first, *asked]))

    def parse(self, text: str, *kinds: str, first: Sequence[str] = ()) -> list[str]:
        """Return the names in --metrics, see `metric_names`."""
        return metric_names(text, self.names(*kinds, first=first))

    def members(self, names: Sequence[str]) -> list[tuple[type[Metric], tuple[str, ...]]]:
        """Return the classes that compute `names`, each with its own names, in the order of `names`."""
        chosen = []
        for cls in self.classes():
            offered = {name for asked in cls.asked.values() for name in asked}
            if asked_of_it := tuple(name for name in names if name in offered):
                chosen.append((cls, asked_of_it))
        return sorted(chosen, key=lambda member: min(names.index(name) for name in member[1]))

    def needing(self, what: str) -> list[str]:
        """Return the asked names that need "masks", "labels" or whatever `Metric.needs` names."""
        return [name for cls in self.classes() for name, needs in cls.needs.items() if what in needs]

    def reading(self, flag: str) -> list[str]:
        """Return the asked names whose metric reads a flag."""
        readers = [cls for cls in self.classes() if flag in (known.name for known in cls.flags)]
        return list(dict.fromkeys(name for cls in readers for asked in cls.asked.values() for name in asked))

    def value(self, name: str) -> Value | None:
        """Return what is declared of a value by its full name or by the name that --metrics takes; None: unknown."""
        declared = [value for cls in self.classes() if (value := cls.declared(name)) is not None]
        declared += [v for cls in self.classes() for full, v in cls.values.items() if cls.asked_name(full) == name]
        return declared[0] if declared else None

    def gives(self, asked: str, value: str) -> bool:
        """Return whether a value is one of those that a name in --metrics stands for, wherever it was measured."""
        for cls in self.classes():
            if cls.declared(value) is not None and any(asked in names for names in cls.asked.values()):
                named = cls.asked_name(value)
                elsewhere = any(asked in names and named not in names for names in cls.asked.values())
                stem = elsewhere and asked not in cls.values  # "psnr" stands for psnr_whole, "fid" for no fid_clean
                return named == asked or (stem and f"{value}_".startswith(f"{asked}_"))
        return False

    def asked_name(self, value: str) -> str:
        """Return the name in --metrics that gives a value; the value's own name if no metric has it."""
        return next((cls.asked_name(value) for cls in self.classes() if cls.declared(value) is not None), value)

    def add_flags(self, group: Any, *kinds: str) -> None:
        """Add the flags that the metrics of these kinds of test read, each once."""
        flags = dict.fromkeys(
            flag for cls in self.classes() if not kinds or set(kinds) & cls.asked.keys() for flag in cls.flags
        )
        for flag in flags:
            group.add_argument(f"--{flag.name}", **flag.settings)


METRICS = MetricRegistry()


def arrow(name: str) -> str:
    """Return the better direction of a value."""
    value = METRICS.value(name)
    return "↓" if value is not None and value.lower_is_better else "↑"
