"""Data sets that lie in folders: <dataroot>/<split>/{images,labels,inst_map}/, paired by base name, or packed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from data.base_dataset import BaseDataset
from data.checks import bits_note, load_record, read_inst
from data.packed import PackedRecords, is_packed, packed_classes
from data.records import CLASSES_FILE, MapRules, Maps, Record, find_records, first_problem, read_class_table
from data.sampling import Sampling
from util.class_table import EMPTY_TABLE, ClassTable
from util.errors import DataError, UserError
from util.listing import entries
from util.opt import Opt


class FolderDataset(BaseDataset):
    """Pictures with maps on disk; subclasses say what differs: classes, id rules, default scale.

    Args:
        dataroot: the folder that holds the splits, or a packed one or its address (data/packed.py).
        split: a folder in it.
        rules, sampling: see `BaseDataset`.
    """

    default_load_size: ClassVar[int | None] = None  # None: the crop size
    built_in: ClassVar[ClassTable] = EMPTY_TABLE  # classes where the folder has no classes.json

    def __init__(self, *, dataroot: str, split: str, rules: MapRules, sampling: Sampling) -> None:
        self.records, names = _open_split(dataroot, split)
        classes = self.class_table(dataroot)
        self._warn_of_8bit(rules)
        super().__init__(names=names, split=split, classes=classes, rules=rules, sampling=sampling)

    @classmethod
    def class_table(cls, dataroot: str | None) -> ClassTable:
        """Return the classes of the folder's classes.json, or the built-in ones.

        The built-in object rules hold where a file with the same classes has none, as those of earlier versions.
        """
        table = None
        if dataroot:
            table = packed_classes(dataroot) if is_packed(dataroot) else read_class_table(Path(dataroot, CLASSES_FILE))
        if table and not table.objects and table.names == cls.built_in.names:
            return replace(table, objects=cls.built_in.objects)
        return table or cls.built_in

    @classmethod
    def complete_options(cls, opt: Opt) -> dict[str, Any]:
        """Return `label_nc`, `ignore_label` and `load_size` from classes.json where flags do not give them."""
        if not opt.dataroot and opt.label_nc is None:
            raise UserError(f"--dataset_mode {opt.dataset_mode} needs --dataroot DIR (see datasets/README.md)")
        table = cls.class_table(opt.dataroot)
        values: dict[str, Any] = {}
        if opt.label_nc is None:
            if not table.names and is_packed(opt.dataroot):
                raise UserError(f"--dataroot {opt.dataroot} was packed without a {CLASSES_FILE}; give --label_nc N")
            if not table.names:
                raise UserError(f"{_no_classes(Path(opt.dataroot))} (see datasets/README.md)")
            values["label_nc"] = len(table.names)
        if opt.ignore_label is None and table.ignore is not None:
            values["ignore_label"] = table.ignore
        if opt.load_size is None:
            values["load_size"] = opt.crop_size if cls.default_load_size is None else cls.default_load_size
        return values

    @classmethod
    def from_options(cls, opt: Opt, *, split: str, augment: bool, task: str) -> Self:
        """Open a split of the folder that --dataroot names."""
        if not opt.dataroot:
            raise UserError(f"--dataset_mode {opt.dataset_mode} needs --dataroot DIR (see datasets/README.md)")
        sampling = Sampling.from_options(opt, augment=augment, task=task)
        return cls(dataroot=opt.dataroot, split=split, rules=cls.map_rules(opt), sampling=sampling)

    def decode(self, index: int) -> Maps:
        """Read and check a picture and its maps; raises `DataError`."""
        return load_record(self.records[index], self.rules)

    def _warn_of_8bit(self, rules: MapRules) -> None:
        """Say once that instance maps have 8 bits, where that is accepted at all."""
        first = self.records[0]
        if rules.inst_8bit and (note := bits_note(first.inst, read_inst(first, rules))):
            warnings.warn(note, stacklevel=4)


def _open_split(dataroot: str, split: str) -> tuple[Sequence[Record], Sequence[str]]:
    """Return the samples of a split and their names; raises `DataError` if a folder's files are not in pairs."""
    if is_packed(dataroot):
        packed = PackedRecords(dataroot, split)
        return packed, packed.names
    records, problems = find_records(Path(dataroot) / split)
    if problems:
        raise DataError(first_problem(problems, all_shown_by="scripts/check_data.py"))
    return records, [record.name for record in records]


def _no_classes(root: Path) -> str:
    """Say why a folder has no classes: it does not exist, is the wrong one, or only lacks the table."""
    if not root.is_dir():
        return f"--dataroot {root}: no such folder"
    if any(path.is_dir() for path in root.glob("*/images")):
        return f"{root / CLASSES_FILE} does not exist; make it or give --label_nc N"
    near = next((path for path in (root.parent, *entries(root)) if (path / CLASSES_FILE).is_file()), None)
    hint = f"; did you mean --dataroot {near}?" if near else ""
    return f"--dataroot {root} is no data set: it has neither {CLASSES_FILE} nor <split>/images{hint}"
