"""The contract of a metric: pictures go in batch by batch, named values with their protocol come out.

Shapes: B batch, K draws, H x W pixels, n pictures seen. Pictures are 8-bit RGB, exactly as saved; mask 1 = generated.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from util.errors import DataError
from util.shapes import check_shape


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
    """One or several values that share their work over a stream of pictures."""

    smallest_bin = 1  # pictures; bins with fewer are left out
    smallest_side = 1  # pixels; smaller pictures have no value
    lower_is_better: tuple[str, ...] = ()  # first words of the values that are better when lower
    limits: Mapping[str, tuple[float, float]] = {}  # by first word: what a value, and so its interval, cannot leave

    def __init__(self) -> None:
        self.notes: list[str] = []  # sentences for the reader of the table, filled by `compute`

    @abstractmethod
    def reset(self) -> None:
        """Forget all pictures."""

    @abstractmethod
    def update(self, pictures: Pictures) -> None:
        """Take a batch."""

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

    def per_picture(self) -> dict[str, list[float]]:
        """Return values of single pictures in the order seen, NaN where undefined."""
        return {}


class PerPicture(Metric):
    """Values that are means over pictures; `values` keeps each picture's, NaN where it has none."""

    UNIT: dict[str, str]
    PROTOCOL: dict[str, str]

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names
        self.reset()

    def reset(self) -> None:
        self.values: dict[str, list[float]] = {name: [] for name in self.names}

    def update(self, pictures: Pictures) -> None:
        try:
            found = self.score(pictures)
        except DataError as error:  # of their size, which all in a batch have
            raise DataError(f"{pictures.name[0]}: {error}; or leave the metric out of --metrics") from error
        for name, values in found.items():
            self.values[name] += values.tolist()

    @abstractmethod
    def score(self, pictures: Pictures) -> dict[str, Tensor]:
        """Return (B,) values of every name, NaN where a picture has none."""

    def extra(self, name: str) -> dict[str, Any]:
        """Return what stands beside the value."""
        return {}

    def why_empty(self, name: str) -> str:
        """Say why no picture has the value `name`."""
        return "every mask is empty or missing"

    def compute(self) -> dict[str, MetricValue]:
        self.notes = []
        found = {}
        for name, values in self.values.items():
            known = [value for value in values if not math.isnan(value)]
            if known:
                mean = math.fsum(known) / len(known)
                found[name] = MetricValue(mean, self.UNIT[name], self.PROTOCOL[name], len(known), self.extra(name))
            else:
                self.notes.append(f"{name}: left out, {self.why_empty(name)}")
        return found

    def subset(self, times: Tensor) -> dict[str, float]:
        found = {}
        for name, values in self.values.items():
            each = torch.tensor(values, dtype=torch.float64)
            weight = torch.where(each.isnan(), 0, times)
            if weight.any():
                found[name] = float((each.nan_to_num() * weight).sum() / weight.sum())
        return found

    def per_picture(self) -> dict[str, list[float]]:
        return {name: values for name, values in self.values.items() if not all(map(math.isnan, values))}


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
