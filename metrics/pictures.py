"""Batches of results as metrics take them, and the distinct real pictures among them.

Shapes: B batch, K draws, H x W pixels. Pictures are 8-bit RGB, exactly as saved; mask 1 = generated.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from util.shapes import check_shape


@dataclass(frozen=True)
class Pictures:
    """A batch of results: `fake`, `real` (B,3,H,W) uint8 RGB; `mask` (B,1,H,W) uint8 or bool; `label` (B,H,W) int64.

    `has_truth` says whether the real pictures show what the labels ask for. `inst` (B,H,W) int64 are instance ids,
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


class Distinct:
    """Finds real pictures that were not seen before, so that several results for one count it once."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, bytes], int] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def places(self, names: list[str], real: list[Tensor]) -> tuple[list[int], list[int]]:
        """Return the batch positions that come for the first time, and each picture's place among the distinct ones.

        Two are the same if name and pixels are.
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
