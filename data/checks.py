"""Checks of pictures and their maps: each problem is a message that says what is wrong and how to fix it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from data.instances import unique_ids
from data.packed import PackedRecords, is_packed
from data.records import MapRules, Maps, Record, find_records, first_problem
from util.decode import rotation_note
from util.errors import DataError, UserError
from util.images import IdMap, read_id_map, read_image, read_map

T = TypeVar("T")
Notes = dict[str, list[str]]  # what looks wrong and is not: sentences about single "maps" and "pictures"


def check_sample(record: Record, rules: MapRules, maps: Maps, *, inst_bits: int | None) -> list[str]:
    """Return the problems of a decoded picture, empty if there are none; labels are those after `label_map`.

    Args:
        record: where it came from, for the messages.
        rules: what is allowed.
        maps: the decoded picture and maps, as stored.
        inst_bits: bit depth of the instance file, None without one.
    """
    problems = []
    size = maps.image.shape[:2]
    for what, path, ids in (("label map", record.label, maps.label), ("instance map", record.inst, maps.inst)):
        if ids is not None and ids.shape != size:
            problems.append(size_problem(what, path, ids, record.image, maps.image))
    if outside := label_problems(maps.label, rules):
        problems.append(f"{record.label}: {outside}")
    if inst_bits is not None and inst_bits < 16 and not rules.inst_8bit:
        problems.append(
            f"{record.inst}: the instance map has {inst_bits} bits, ids need 16; it was cut when it was saved or read. "
            "Make it again from the original (8 bit is accepted by --dataset_mode custom only)"
        )
    return problems


def size_problem(what: str, path: Path | None, ids: np.ndarray, picture: Path, image: np.ndarray) -> str:
    """Say that a map differs in size from its picture."""
    (height, width), (image_height, image_width) = ids.shape, image.shape[:2]
    return f"{path}: the {what} is {width}x{height}, its picture {picture} is {image_width}x{image_height}"


def bits_note(path: Path | None, inst: IdMap | None) -> str:
    """Return a note on an instance map of 8 bits, where such are accepted; empty for others."""
    if inst is None or inst.bits >= 16:
        return ""
    return f"{path}: {inst.bits}-bit instance maps hold at most {2**inst.bits} ids; check that they were not cut"


def label_problems(label: np.ndarray, rules: MapRules) -> str:
    """Say which ids lie outside the classes, on how many pixels, and what to do; empty if none."""
    if label.max() < rules.label_nc:  # the usual case, at the cost of one maximum
        return ""
    ids, counts = np.unique(label, return_counts=True)
    bad = [(int(i), int(n)) for i, n in zip(ids, counts, strict=True) if i >= rules.label_nc]
    bad = [(i, n) for i, n in bad if i != rules.ignore_label]
    if not bad:
        return ""
    shown = ", ".join(f"{i} ({n} pixels)" for i, n in bad[:6]) + (f" and {len(bad) - 6} more" if len(bad) > 6 else "")
    first, last = bad[0][0], bad[-1][0]
    return (
        f"label ids outside the {rules.label_nc} classes: {shown}. Leave them out with "
        f"--ignore_label {first} or make them another class, as in --label_map {first}:0. A run of more classes has "
        f"to be trained as such, with --label_nc {last + 1}"
    )


def read_record(record: Record, rules: MapRules, notes: Notes | None = None) -> tuple[Maps | None, list[str]]:
    """Decode a record and check it; the maps are None if one of the files cannot be decoded; `notes` are added to."""
    problems: list[str] = []

    def gathered(read: Callable[[], T]) -> T | None:
        try:
            return read()
        except DataError as error:
            problems.append(str(error))
            return None

    image = gathered(lambda: read_image(record.image))
    label = gathered(lambda: read_label(record, rules))
    inst = gathered(lambda: read_inst(record, rules))
    if image is None or label is None or problems:
        return None, problems
    if notes is not None:
        found = {
            "maps": bits_note(record.inst, inst) if rules.inst_8bit else "",
            "pictures": rotation_note(record.image),
        }
        for kind, note in found.items():
            if note:
                notes.setdefault(kind, []).append(note)
    maps = Maps(image, rules.map_labels(label), None if inst is None else inst.ids)
    return maps, check_sample(record, rules, maps, inst_bits=None if inst is None else inst.bits)


def read_label(record: Record, rules: MapRules) -> np.ndarray:
    """Return the label map of a record, as stored; raises `DataError` as `read_map` and `LabelColours.read` do."""
    return (
        read_map(record.label, "label map") if rules.label_colours is None else rules.label_colours.read(record.label)
    )


def read_inst(record: Record, rules: MapRules) -> IdMap | None:
    """Return the instance map of a record, None without one; raises `DataError` as `read_id_map` does."""
    return None if record.inst is None else read_id_map(record.inst, "instance map", rgb_ids=rules.inst_rgb)


def load_record(record: Record, rules: MapRules) -> Maps:
    """Decode and check a record; raises `DataError` with its first problem."""
    maps, problems = read_record(record, rules)
    if maps is None or problems:
        raise DataError(first_problem(problems, all_shown_by="scripts/check_data.py"))
    return maps


def check_crop(height: int, width: int, crop_size: int, name: str) -> None:
    """Raise `DataError` if a picture, as scaled by --load_size, is smaller than the crop."""
    if min(height, width) < crop_size:
        raise DataError(
            f"{name}: {width}x{height} after --load_size is smaller than --crop_size {crop_size}; "
            f"give --load_size {crop_size} (scales the short side) or a smaller --crop_size"
        )


@dataclass
class SplitReport:
    """What a split holds: pixels per label id, instances per picture, sizes (w, h), every problem, what looks wrong."""

    name: str
    count: int = 0
    pixels: Counter[int] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    instances: list[int] = field(default_factory=list)
    has_inst: bool = False
    problems: list[str] = field(default_factory=list)
    notes: Notes = field(default_factory=dict)


def check_split(folder: Path, rules: MapRules, *, min_side: int = 0, progress: Any = None) -> SplitReport:
    """Read every file of <root>/<split>; problems are gathered, not raised.

    Args:
        folder: the split's folder; <dataroot>/<split> where the dataroot is a packed folder.
        rules: what is allowed.
        min_side: a shorter short side is a problem.
        progress: wraps the indices of the pictures, e.g. `util.progress.progress`; None for silence.
    """
    report = SplitReport(folder.name)
    records: Sequence[Record]
    try:
        if is_packed(str(folder.parent)):
            records = PackedRecords(str(folder.parent), folder.name)
        else:
            records, report.problems = find_records(folder)
    except DataError as error:
        report.problems.append(str(error))
        return report
    report.count = len(records)
    indices = range(len(records))
    for index in indices if progress is None else progress(indices):
        try:
            record = records[index]
        except DataError as error:  # of a packed sample
            report.problems.append(str(error))
            continue
        maps, problems = read_record(record, rules, report.notes)
        report.problems += problems
        if maps is None:
            continue
        height, width = maps.image.shape[:2]
        if min(height, width) < min_side:
            small = f"{record.image}: {width}x{height} is smaller than {min_side}; --load_size scales it up"
            report.problems.append(small)
        report.has_inst |= maps.inst is not None
        report.sizes[width, height] += 1
        ids, counts = np.unique(maps.label, return_counts=True)  # no table: an id outside the classes may be huge
        report.pixels.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
        if maps.inst is None or maps.inst.shape == maps.label.shape:
            report.instances.append(len(unique_ids(rules.own_ids(maps.inst, maps.label))))
    return report


class _Checkable(Sized, Protocol):
    def __getitem__(self, key: int) -> Any: ...


def quick_check(dataset: _Checkable, *, ends: int = 3) -> None:
    """Load the first and last few samples, so that a wrong folder or flag is reported before the training starts.

    Pairing of names and classes.json were checked when the data set was made. Raises `UserError` or `DataError`.
    """
    if len(dataset) == 0:
        raise UserError("the data set is empty")
    for index in sorted({*range(min(ends, len(dataset))), *range(max(0, len(dataset) - ends), len(dataset))}):
        dataset[index]
