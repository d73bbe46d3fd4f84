"""Instance ids of one picture made dense, with the class of each (see `util/batch.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from util.class_table import ClassTable
from util.errors import DataError

LEAST_THING = 10  # pixels of a derived instance
MOST_IDS = 1 << 16  # in an instance map
_TABLE_LIMIT = 1 << 18  # ids below this are counted by a table, several times faster than by sorting


def run_starts(*maps: np.ndarray) -> np.ndarray:
    """Return where, in the flattened maps (H, W), a run of equal values begins: far fewer places than pixels."""
    changes = np.zeros(maps[0].size, bool)
    changes[:1] = True
    for ids in maps:
        flat = ids.ravel()
        changes[1:] |= flat[1:] != flat[:-1]
    return np.flatnonzero(changes)


def unique_ids(ids: np.ndarray) -> np.ndarray:
    """Return the ascending unique ids of a map of non-negative integers."""
    return _unique(ids.ravel()[run_starts(ids)])


def _unique(ids: np.ndarray) -> np.ndarray:
    if ids.size and ids.max() < _TABLE_LIMIT:
        return np.flatnonzero(np.bincount(ids))
    return np.unique(ids)


def dense_instances(inst: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the instances 0..I-1 in ascending order of their ids, and find the class of each.

    Args:
        inst: (H, W) original ids, non-negative.
        label: (H, W) class ids, non-negative.

    Returns:
        The dense map (H, W) int64, the original ids (I,) int64, and the majority label of each instance's pixels
        (I,) int64; on a tie the lowest.
    """
    starts = run_starts(inst, label)
    run_inst, run_label = inst.ravel()[starts], label.ravel()[starts].astype(np.int64)
    inst_id = _unique(run_inst)
    if inst_id[-1] < _TABLE_LIMIT:
        place = np.zeros(int(inst_id[-1]) + 1, np.int64)
        place[inst_id] = np.arange(len(inst_id))
        dense = place.take(inst)
    else:
        dense = np.searchsorted(inst_id, inst).astype(np.int64)
    width = int(run_label.max()) + 1
    lengths = np.diff(starts, append=inst.size)
    joint = np.bincount(dense.ravel()[starts] * width + run_label, lengths, minlength=len(inst_id) * width)
    inst_class = joint.reshape(len(inst_id), width).argmax(axis=1)
    return dense, inst_id.astype(np.int64), inst_class.astype(np.int64)


def any_hidden(dense: np.ndarray, mask: np.ndarray) -> bool:
    """Return whether the mask (H, W), 1 = erased, covers an instance of a dense map whole."""
    starts = run_starts(dense, mask)
    runs = dense.ravel()[starts]
    return not np.bincount(runs, mask.ravel()[starts] != 1).all()


def worth_testing(ids: np.ndarray, candidates: list[int], *, boxed: bool) -> list[int]:
    """Keep the candidates that cover at least 1/128 of the map (512 pixels of 256 x 256), else the largest one.

    Args:
        ids: (H, W) ids.
        candidates: some of them.
        boxed: leave out ids that are one pixel high or wide, whose box, as released, is empty.
    """
    places = {i: ids == i for i in candidates}
    if boxed:
        places = {i: at for i, at in places.items() if min(at.any(axis=0).sum(), at.any(axis=1).sum()) > 1}
    areas = {i: int(at.sum()) for i, at in places.items()}
    large = [i for i, area in areas.items() if 128 * area >= ids.size]
    return large or sorted(areas, key=lambda i: (-areas[i], i))[:1]


def thing_components(label: np.ndarray, things: Sequence[int], *, least_area: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (class, (H, W) bool) of every connected component (8 neighbours) of the things.

    They come by class in the given order, then by falling area, equal ones in reading order; those under `least_area`
    pixels are left out.
    """
    from scipy.ndimage import label as connected

    for thing in things:
        components, _ = connected(label == thing, structure=np.ones((3, 3)))
        areas = np.bincount(components.ravel())[1:]
        for component in np.argsort(-areas, kind="stable"):
            if areas[component] >= least_area:
                yield thing, components == component + 1


def derived_ids(label: np.ndarray, table: ClassTable, *, first: int = 0) -> np.ndarray:
    """Return (H, W) uint16: components of things get ids from the number of classes or `first` on, else their label.

    Raises:
        DataError: there are more things than 16 bits can number.
    """
    inst = label.copy()
    first = max(first, len(table.names), int(label.max()) + 1)
    for number, (_, component) in enumerate(
        thing_components(label, sorted(table.things), least_area=LEAST_THING), start=first
    ):
        if number >= MOST_IDS:
            raise DataError(f"more than {MOST_IDS - first} things in one picture: a map of 16 bits cannot number them")
        inst[component] = number
    return inst.astype(np.uint16)
