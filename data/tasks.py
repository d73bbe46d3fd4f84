"""Object tasks of test.py: one thing of a picture is erased, to be drawn again ("addition") or removed ("removal").

Shapes: S x S pixels of the cut; masks 1 = to be generated. The papers' own protocol for objects was not found; this one
is described in docs/protocols.md.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from data.edit.changes import change_radius, dilate, fill_nearest
from data.instances import dense_instances
from data.masks import REMOVAL
from data.records import Maps
from util.errors import UserError
from util.regions import bounding_box
from util.registry import did_you_mean

SMALLEST, LARGEST = 0.01, 0.25  # share of the cut that the object covers, before its mask is grown
WANTED = f"thing instance of {100 * SMALLEST:.0f} to {100 * LARGEST:.0f} %"


@dataclass(frozen=True)
class Selection:
    """Which pictures a task takes: their `indices`, out of the first `looked_at` of the split."""

    indices: list[int]
    looked_at: int

    @property
    def left_out(self) -> int:
        """How many pictures were looked at and cannot be used."""
        return self.looked_at - len(self.indices)

    @property
    def notes(self) -> list[str]:
        """What was left out and why, for the reader of the table; empty if nothing was."""
        verb = "has" if self.left_out == 1 else "have"
        note = f"{self.left_out} of {self.looked_at} pictures {verb} no {WANTED}: left out"
        return [note] if self.left_out else []


def thing_instances(ids: np.ndarray, label: np.ndarray, things: Collection[int]) -> list[int]:
    """Return the ids, ascending, whose majority label is a thing, and that are single objects.

    Args:
        ids: (S, S); pixels without an instance, groups included, have their label as id (`util/batch.py`).
        label: (S, S).
        things: classes.
    """
    _, inst_id, inst_class = dense_instances(ids, label)
    pairs = zip(inst_id.tolist(), inst_class.tolist(), strict=True)
    return [number for number, class_id in pairs if class_id in things and number != class_id]


def named_classes(text: str, names: Sequence[str], label_nc: int) -> set[int]:
    """Return the ids of classes given as "car,7", names or ids; raises `UserError` for one that there is not."""
    found = set()
    for part in text.split(","):
        label = int(part) if part.isdecimal() else names.index(part) if part in names else -1
        if not 0 <= label < label_nc:
            raise UserError(
                f"--object_classes {text}: there is no class '{part}'.{did_you_mean(part, names)} Give names or ids "
                f"(0 to {label_nc - 1}) with commas"
            )
        found.add(label)
    return found


def suitable(inst: np.ndarray, candidates: list[int]) -> list[int]:
    """Keep the candidates that cover `SMALLEST` to `LARGEST` of the map and whose mask leaves something known."""
    shares = ((number, (inst == number).mean()) for number in candidates)
    fitting = [number for number, share in shares if SMALLEST <= share <= LARGEST]
    return [number for number in fitting if _leaves_known(inst == number)]


def object_mask(inst: np.ndarray, number: int) -> np.ndarray:
    """Return the pixels of an instance, grown by a disc of `change_radius`."""
    where = inst == number
    return dilate(where, change_radius(where.shape[0]))


def object_task(
    task: str, maps: Maps, candidates: list[int], R: Random, *, removal: str = "thing"
) -> tuple[Maps, np.ndarray]:
    """Erase one of the `candidates` of a cut.

    Args:
        task: one of the two.
        maps: of the cut.
        candidates: ids.
        R: draws one of them.
        removal: "released" leaves no instance in the maps: every pixel has its label as id.

    Returns:
        The maps: as they were ("object_addition"), or with labels and ids under the mask taken from the nearest known
        pixel; the picture stays. And the mask (S, S) uint8.
    """
    assert maps.inst is not None, "candidates come from an instance map"
    mask = object_mask(maps.inst, R.choice(candidates))
    if task == REMOVAL:
        label = fill_nearest(maps.label, mask)
        maps = Maps(maps.image, label, label if removal == "released" else fill_nearest(maps.inst, mask))
    return maps, mask.astype(np.uint8)


def _leaves_known(where: np.ndarray) -> bool:
    """Return whether the grown mask leaves a known pixel; only objects that span the whole cut are actually grown."""
    radius, box = change_radius(where.shape[0]), bounding_box(where)
    beyond = (box.top, box.left, where.shape[0] - box.bottom, where.shape[1] - box.right)
    return max(beyond) > radius or not dilate(where, radius).all()
