"""The contract of a metric: pictures go in batch by batch, named values with their protocol come out.

Shapes: B batch, H x W pixels. Pictures are 8-bit RGB, exactly as saved; mask 1 = generated pixel.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from util.shapes import check_shape


@dataclass(frozen=True)
class MetricValue:
    """A number with all that is needed to read it.

    Args:
        value: the number.
        unit: '%', 'dB', '1' (dimensionless), 'distance'.
        protocol: what was computed, in one line.
        count: how many pictures (for FID: generated ones) it was computed from.
        extra: hashes, scores of the real pictures, per-class values, counts of pictures left out.
    """

    value: float
    unit: str
    protocol: str
    count: int
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pictures:
    """A batch of results: `fake`, `real` (B,3,H,W) uint8 RGB; `mask` (B,1,H,W) uint8 or bool; `label` (B,H,W) int64.

    Several draws for one real picture carry the same `name`, `real` and `label`.
    Raises `ValueError` for other shapes or types.
    """

    fake: Tensor
    real: Tensor
    mask: Tensor
    label: Tensor
    name: list[str]

    def __post_init__(self) -> None:
        size = (len(self.name), *self.real.shape[-2:])
        check_shape(self.real, (size[0], 3, *size[1:]), "Pictures.real")
        check_shape(self.fake, (size[0], 3, *size[1:]), "Pictures.fake")
        check_shape(self.mask, (size[0], 1, *size[1:]), "Pictures.mask")
        check_shape(self.label, size, "Pictures.label")
        if self.fake.dtype != torch.uint8 or self.real.dtype != torch.uint8:
            raise ValueError(f"metrics read 8-bit pictures, got {self.fake.dtype} and {self.real.dtype}")

    def __len__(self) -> int:
        return len(self.name)


class Metric(ABC):
    """One or several values that share their work over a stream of pictures."""

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


class Distinct:
    """Tells which real pictures were not seen before, so that several draws for one count it once."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, bytes]] = set()

    def __len__(self) -> int:
        return len(self._seen)

    def new(self, pictures: Pictures) -> list[int]:
        """Return the batch positions whose (name, pixels) come for the first time."""
        positions = []
        for i, (name, real) in enumerate(zip(pictures.name, pictures.real, strict=True)):
            key = (name, hashlib.sha1(real.cpu().contiguous().numpy().tobytes(), usedforsecurity=False).digest())
            if key not in self._seen:
                self._seen.add(key)
                positions.append(i)
        return positions
