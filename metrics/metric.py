"""The contract of a metric: its declarations; pictures go in batch by batch, named values come out.

Shapes: B batch, K draws, H x W pixels, n pictures seen. Pictures are 8-bit RGB, exactly as saved; mask 1 = generated.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from metrics.declaration import Flag, Setup, Value
from metrics.features.cache import FeatureCache
from metrics.influence import Parts, summed
from metrics.pictures import Pictures
from util.errors import DataError
from util.opt import Opt


@dataclass(frozen=True)
class MetricValue:
    """A number with everything needed to interpret it.

    Args:
        value: the number.
        unit: '%', 'dB', '1' (dimensionless), 'distance'.
        protocol: what was computed, in one line.
        count: how many pictures (for FID: generated ones) it was computed from.
        extra: hashes, scores of the real pictures, per-class values, intervals, counts of pictures left out.
    """

    value: float
    unit: str
    protocol: str
    count: int
    extra: dict[str, Any] = field(default_factory=dict)


class Metric(ABC):
    """One or several values that share their work over a stream of pictures.

    A class declares all that flags, evaluators, tables and reports need; `@METRICS.register` adds it.

    Attributes:
        asked: the names that --metrics takes, by kind of test ("editing", "analogy", "stylising").
        values: its values by full name.
        needs: by asked name, what must be given: "truth", "masks", "labels", "instances", "style",
            "source".
        flags: those that it reads.
        of_sets: asked names that need no pairs.
        of_source: compares with the one picture of `Setup.source`, not with each result's own.
        place: position of its columns among those of others, in ascending order.
    """

    asked: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    values: ClassVar[Mapping[str, Value]] = {}
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    flags: ClassVar[tuple[Flag, ...]] = ()
    of_sets: ClassVar[tuple[str, ...]] = ()
    of_source: ClassVar[bool] = False
    place: ClassVar[int] = 100
    smallest_bin = 1  # pictures; bins with fewer are left out
    smallest_side = 1  # pixels; smaller pictures have no value

    def __init__(self) -> None:
        self.notes: list[str] = []  # sentences for the reader of the table, filled by `compute`

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        """Return what computes the asked `names`.

        Raises:
            UserError: a file is missing or does not fit.
            LeftOutError: the names are left out whether or not they were asked for.
        """
        raise NotImplementedError

    @classmethod
    def check(cls, names: tuple[str, ...], opt: Opt) -> None:
        """Raise `UserError` if files that `load` needs are missing; cheap, for checks before training."""

    @classmethod
    def declared(cls, value: str) -> Value | None:
        """Return the declaration of a value by its full name; None if the class has no such value.

        `<metric>_rec` is `<metric>_whole` of a source that was rendered for its own layout.
        """
        return cls.values.get(value) or cls.values.get(value.removesuffix("_rec") + "_whole")

    @classmethod
    def asked_name(cls, value: str) -> str:
        """Return the name in --metrics that gives a value: the longest that the value's name begins with."""
        stems = sorted({name for asked in cls.asked.values() for name in asked}, key=len, reverse=True)
        return next((name for name in stems if f"{value}_".startswith(f"{name}_")), value)

    @abstractmethod
    def reset(self) -> None:
        """Forget all pictures."""

    @abstractmethod
    def update(self, pictures: Pictures) -> None:
        """Take a batch."""

    def add_sets(self, *, fake: Mapping[str, Tensor], real: Mapping[str, Tensor]) -> None:
        """Take generated and real pictures (3,H,W) uint8 by name, unpaired, if the metric reads such."""

    @abstractmethod
    def compute(self) -> dict[str, MetricValue]:
        """Return the values by name. A value that no picture defines is left out and named in `notes`."""

    def subset(self, times: Tensor) -> dict[str, float]:
        """Return the values over the n pictures seen, each counted `times` (n,) integer, from what was kept of them.

        Values that are undefined for repeated or for so few pictures are left out.
        """
        return {}

    def influence(self, units: Tensor, real_units: Tensor | None = None) -> dict[str, Parts]:
        """Return how much each unit moves each value, see `metrics.influence`; values without error bar are left out.

        Args:
            units: (n,) the unit of each picture seen; where the sets are `apart`, of each generated one.
            real_units: (m,) likewise of the real ones.
        """
        return {}

    @property
    def feature_cache(self) -> FeatureCache | None:
        """Where features of single pictures come from that another process may compute; None: it has no such."""
        return None

    @property
    def apart(self) -> tuple[list[str], list[str]] | None:
        """Names of the generated and the real pictures where these are unpaired, else None."""
        return None

    def per_picture(self) -> dict[str, list[float]]:
        """Return values of single pictures in the order seen, NaN where undefined."""
        return {}

    @property
    def label_nc(self) -> int | None:
        """Number of label ids that the metric can take; None: it reads no labels."""
        return None

    def confusion(self) -> tuple[tuple[str, ...], Tensor] | None:
        """Return class names and confusion matrix (C,C), where the metric has counted any."""
        return None

    def shown_classes(self) -> list[list[str]] | None:
        """Return the classes that the labels of each picture show under its mask, or anywhere if none has a mask."""
        return None


class PerPicture(Metric):
    """Values that are means over pictures; `each` keeps every picture's, NaN where it has none.

    Args:
        names: full names of the values to compute.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names
        self.reset()

    def reset(self) -> None:
        """Forget all pictures."""
        self.each: dict[str, list[float]] = {name: [] for name in self.names}

    def update(self, pictures: Pictures) -> None:
        """Score a batch; raises `DataError` for pictures that cannot be scored."""
        try:
            scores = self.score(pictures)
        except DataError as error:  # of their size, which all in a batch have
            raise DataError(f"{pictures.name[0]}: {error}; or leave the metric out of --metrics") from error
        for name, values in scores.items():
            self.each[name] += values.tolist()

    @abstractmethod
    def score(self, pictures: Pictures) -> dict[str, Tensor]:
        """Return (B,) values of every name, NaN where a picture has none."""

    def protocol(self, name: str) -> str:
        """Say what was computed, in one line."""
        return self.values[name].protocol

    def extra(self, name: str) -> dict[str, Any]:
        """Return the value's `extra`."""
        return {}

    def why_empty(self, name: str) -> str:
        """Say why no picture has the value `name`."""
        return "every mask is empty or missing"

    def compute(self) -> dict[str, MetricValue]:
        """Return the means over the pictures that have a value; `notes` say which names have none."""
        self.notes = []
        values_by_name = {}
        for name, values in self.each.items():
            known = [value for value in values if not math.isnan(value)]
            if known:
                mean, unit = math.fsum(known) / len(known), self.values[name].unit
                values_by_name[name] = MetricValue(mean, unit, self.protocol(name), len(known), self.extra(name))
            else:
                self.notes.append(f"{name}: left out, {self.why_empty(name)}")
        return values_by_name

    def subset(self, times: Tensor) -> dict[str, float]:
        """Return the means where picture i counts `times[i]` times."""
        means = {}
        for name, values in self.each.items():
            each = torch.tensor(values, dtype=torch.float64)
            weight = torch.where(each.isnan(), 0, times)
            if weight.any():
                means[name] = float((each.nan_to_num() * weight).sum() / weight.sum())
        return means

    def influence(self, units: Tensor, real_units: Tensor | None = None) -> dict[str, Parts]:
        """Return each unit's share of the mean's deviation."""
        found: dict[str, Parts] = {}
        for name, values in self.each.items():
            each = torch.tensor(values, dtype=torch.float64)
            known = int((~each.isnan()).sum())
            if known > 1:
                found[name] = (summed((each - each.nanmean()) / known, units),)
        return found

    def per_picture(self) -> dict[str, list[float]]:
        """Return the values of every picture by name, NaN where it has none."""
        return {name: values for name, values in self.each.items() if not all(map(math.isnan, values))}
