"""The contract of a metric: what it declares of itself; pictures go in batch by batch, named values come out.

Shapes: B batch, K draws, H x W pixels, n pictures seen. Pictures are 8-bit RGB, exactly as saved; mask 1 = generated.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from util.errors import DataError, UserError
from util.shapes import check_shape


@dataclass(frozen=True)
class Value:
    """What a metric declares of one of its values.

    Args:
        unit: '%', 'dB', '1' (dimensionless), 'distance'.
        protocol: what is computed, in one line.
        lower_is_better: the better direction.
        limits: what the value, and so its interval, cannot leave.
    """

    unit: str
    protocol: str = ""
    lower_is_better: bool = False
    limits: tuple[float, float] = (-math.inf, math.inf)


@dataclass(frozen=True, eq=False)
class Flag:
    """A command line flag of metrics, declared once however many read it: `--<name>` with argparse's settings."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What metrics are loaded with.

    Args:
        opt: values of the metrics' flags, by name.
        device: where networks run.
        whole: reconstruction is measured on whole pictures where its name does not say; else on the masked region.
        masks: there are masks; without, nothing is measured on a masked region.
        label_nc, ignore_label, class_names: of the label maps; None: not known.
        style: the style picture (3,H,W) uint8.
        embed: CLIP's features (B,D) of length 1 of pictures (H,W,3) uint8, and `clip` the network's name.
        source: the one picture that all results are renderings of.
    """

    opt: Any
    device: torch.device
    whole: bool = False
    masks: bool = True
    label_nc: int | None = None
    ignore_label: int | None = None
    class_names: list[str] | None = None
    style: Tensor | None = None
    embed: Callable[[list[np.ndarray]], Tensor] | None = None
    clip: str = ""
    source: Source | None = None


@dataclass(frozen=True)
class Source:
    """A picture (3,H,W) uint8 with its layout (H,W) int64 in 0..classes-1.

    `read_layout` gives the layout (H,W) that the run's own segmentation network sees in a picture (3,H,W) uint8; None:
    the run has none.
    """

    picture: Tensor
    label: Tensor
    classes: int
    read_layout: Callable[[Tensor], Tensor] | None = None


class LeftOutError(UserError):
    """A metric that cannot be computed, which stops no command: its name is left out with this note."""


@dataclass(frozen=True)
class MetricValue:
    """A number with all that is needed to read it.

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


@dataclass(frozen=True)
class Pictures:
    """A batch of results: `fake`, `real` (B,3,H,W) uint8 RGB; `mask` (B,1,H,W) uint8 or bool; `label` (B,H,W) int64.

    `has_truth` tells whether the real pictures show what the labels ask for. `inst` (B,H,W) int64 are instance ids,
    `draws` (B,K,3,H,W) uint8 all draws, the first of which is `fake`. What is None is not known, and metrics that read
    it leave their values out. Several results for one real picture carry the same `name`, `real` and `label`.
    Raises `ValueError` for other shapes or types.
    """

    fake: Tensor
    real: Tensor
    mask: Tensor | None
    label: Tensor | None
    name: list[str]
    has_truth: bool = True
    inst: Tensor | None = None
    draws: Tensor | None = None

    def __post_init__(self) -> None:
        size = (len(self.name), *self.real.shape[-2:])
        check_shape(self.real, (size[0], 3, *size[1:]), "Pictures.real")
        check_shape(self.fake, (size[0], 3, *size[1:]), "Pictures.fake")
        if self.mask is not None:
            check_shape(self.mask, (size[0], 1, *size[1:]), "Pictures.mask")
        for what, ids in (("label", self.label), ("inst", self.inst)):
            if ids is not None:
                check_shape(ids, size, f"Pictures.{what}")
        if self.draws is not None:
            check_shape(self.draws, (size[0], None, 3, *size[1:]), "Pictures.draws")
        for pictures in (self.fake, self.real, self.draws):
            if pictures is not None and pictures.dtype != torch.uint8:
                raise ValueError(f"metrics read 8-bit pictures, got {pictures.dtype}")

    def __len__(self) -> int:
        return len(self.name)


class Metric(ABC):
    """One or several values that share their work over a stream of pictures.

    A class declares all that flags, evaluators, tables and reports need to know; `@METRICS.register` enters it.

    Attributes:
        asked: the names that --metrics takes, by kind of test ("editing", "analogy", "stylising").
        values: its values by full name.
        needs: by asked name, what must be given: "truth", "masks", "labels", "instances", "style",
            "source".
        flags: those that it reads.
        of_sets: asked names that need no pairs.
        of_source: compares with the one picture of `Setup.source`, not with each result's own.
        place: where its columns stand among those of others, in ascending order.
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
    def check(cls, names: tuple[str, ...], opt: Any) -> None:
        """Raise `UserError` if files that `load` will want are missing; cheap, for checks before a training."""

    @classmethod
    def declared(cls, value: str) -> Value | None:
        """Return what the class declares of a value, by its full name; None: it is none of its.

        `<metric>_rec` is `<metric>_whole` of a source that was rendered for its own layout.
        """
        return cls.values.get(value) or cls.values.get(value.removesuffix("_rec") + "_whole")

    @classmethod
    def asked_name(cls, value: str) -> str:
        """Return the name in --metrics that gives a value: the longest that the value's name begins with."""
        own = sorted({name for asked in cls.asked.values() for name in asked}, key=len, reverse=True)
        return next((name for name in own if f"{value}_".startswith(f"{name}_")), value)

    @abstractmethod
    def reset(self) -> None:
        """Forget all pictures."""

    @abstractmethod
    def update(self, pictures: Pictures) -> None:
        """Take a batch."""

    def add_sets(self, *, fake: Mapping[str, Tensor], real: Mapping[str, Tensor]) -> None:
        """Take generated and real pictures (3,H,W) uint8 by name, which are no pairs, if the metric reads such."""

    @abstractmethod
    def compute(self) -> dict[str, MetricValue]:
        """Return the values by name. A value that no picture defines is left out and named in `notes`."""

    def subset(self, times: Tensor) -> dict[str, float]:
        """Return the values over the n pictures seen, each counted `times` (n,) integer, from what was kept of them.

        Values that cannot be had so (not from repeats, or not from so few pictures) are left out.
        """
        return {}

    def resampled(self, times: Tensor) -> dict[str, list[float]]:
        """Return the values of R bootstrap resamples, `times` (R,n) as of `subset`; fewer where more cost too much."""
        found: dict[str, list[float]] = {}
        for each in times:
            for name, value in self.subset(each).items():
                found.setdefault(name, []).append(value)
        return found

    @property
    def apart(self) -> tuple[int, int] | None:
        """Numbers of generated and real pictures where these are no pairs, else None."""
        return None

    def resampled_sets(self, times: Tensor, real_times: Tensor) -> dict[str, list[float]]:
        """Return values of resamples of two sets that are `apart`: `times` (R,n), `real_times` (R,m)."""
        return {}

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
        self.each: dict[str, list[float]] = {name: [] for name in self.names}

    def update(self, pictures: Pictures) -> None:
        try:
            found = self.score(pictures)
        except DataError as error:  # of their size, which all in a batch have
            raise DataError(f"{pictures.name[0]}: {error}; or leave the metric out of --metrics") from error
        for name, values in found.items():
            self.each[name] += values.tolist()

    @abstractmethod
    def score(self, pictures: Pictures) -> dict[str, Tensor]:
        """Return (B,) values of every name, NaN where a picture has none."""

    def protocol(self, name: str) -> str:
        """Say what was computed, in one line."""
        return self.values[name].protocol

    def extra(self, name: str) -> dict[str, Any]:
        """Return what stands beside the value."""
        return {}

    def why_empty(self, name: str) -> str:
        """Say why no picture has the value `name`."""
        return "every mask is empty or missing"

    def compute(self) -> dict[str, MetricValue]:
        self.notes = []
        found = {}
        for name, values in self.each.items():
            known = [value for value in values if not math.isnan(value)]
            if known:
                mean, unit = math.fsum(known) / len(known), self.values[name].unit
                found[name] = MetricValue(mean, unit, self.protocol(name), len(known), self.extra(name))
            else:
                self.notes.append(f"{name}: left out, {self.why_empty(name)}")
        return found

    def subset(self, times: Tensor) -> dict[str, float]:
        found = {}
        for name, values in self.each.items():
            each = torch.tensor(values, dtype=torch.float64)
            weight = torch.where(each.isnan(), 0, times)
            if weight.any():
                found[name] = float((each.nan_to_num() * weight).sum() / weight.sum())
        return found

    def per_picture(self) -> dict[str, list[float]]:
        return {name: values for name, values in self.each.items() if not all(map(math.isnan, values))}


class Distinct:
    """Tells which real pictures were not seen before, so that several results for one count it once."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, bytes], int] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def places(self, names: list[str], real: list[Tensor]) -> tuple[list[int], list[int]]:
        """Return the batch positions that come for the first time, and each picture's place among the distinct ones.

        Two are one if name and pixels are.
        """
        fresh, places = [], []
        for i, (name, picture) in enumerate(zip(names, real, strict=True)):
            key = (name, picture_hash(picture))
            if key not in self._seen:
                self._seen[key] = len(self._seen)
                fresh.append(i)
            places.append(self._seen[key])
        return fresh, places

    def new(self, pictures: Pictures) -> list[int]:
        """Return the batch positions whose (name, pixels) come for the first time."""
        return self.places(pictures.name, list(pictures.real))[0]


def picture_hash(picture: Tensor) -> bytes:
    """Return the SHA-1 of a picture's size and bytes."""
    data = picture.cpu().contiguous().numpy()
    return hashlib.sha1(repr(data.shape).encode() + data.tobytes(), usedforsecurity=False).digest()
