"""CMP Facades: 378 house fronts in 12 classes, as downloaded (R. Tylecek, R. Sara: Spatial Pattern Templates, 2013).

<dataroot>/base/cmp_b0001.jpg with cmp_b0001.png, a map of the ids 1 to 12. Every tenth picture is for testing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from data import DATASETS
from data.base_dataset import BaseDataset
from data.checks import load_record
from data.records import MapRules, Maps, Record
from data.sampling import Sampling
from util.class_table import ClassTable
from util.errors import DataError, UserError
from util.images import default_palette
from util.opt import Opt

NAMES = (
    "background", "facade", "window", "door", "cornice", "sill", "balcony", "blind", "deco", "molding", "pillar",
    "shop",
)  # fmt: skip
CLASSES = ClassTable(NAMES, default_palette(len(NAMES)))  # a class is one region, not several things


@DATASETS.register("facades")
class FacadesDataset(BaseDataset):
    """Pictures differ in size; their short side is scaled to the crop."""

    summary = "CMP Facades, 12 classes, as downloaded"

    def __init__(self, *, dataroot: str, split: str, rules: MapRules, sampling: Sampling) -> None:
        pictures = sorted(Path(dataroot, "base").glob("cmp_b*.jpg"))
        chosen = [p for number, p in enumerate(pictures) if (number % 10 == 9) == (split == "test")]
        if not chosen:
            raise DataError(f"--dataroot {dataroot}: no base/cmp_b*.jpg for the split '{split}'")
        self.records = [Record(p.stem, p, p.with_suffix(".png"), inst=None) for p in chosen]
        names = [record.name for record in self.records]
        super().__init__(names=names, split=split, classes=CLASSES, rules=rules, sampling=sampling)

    @classmethod
    def class_table(cls, dataroot: str | None) -> ClassTable:
        return CLASSES

    @classmethod
    def map_rules(cls, opt: Opt) -> MapRules:
        return replace(super().map_rules(opt), label_map={number + 1: number for number in range(len(NAMES))})

    @classmethod
    def complete_options(cls, opt: Opt) -> dict[str, Any]:
        wanted = {"label_nc": len(NAMES), "load_size": opt.crop_size}
        return {name: value for name, value in wanted.items() if getattr(opt, name) is None}

    @classmethod
    def from_options(cls, opt: Opt, *, split: str, augment: bool, task: str) -> Self:
        if not opt.dataroot:
            raise UserError("--dataset_mode facades needs --dataroot DIR, the folder that holds base/")
        sampling = Sampling.from_options(opt, augment=augment, task=task)
        return cls(dataroot=opt.dataroot, split=split, rules=cls.map_rules(opt), sampling=sampling)

    def decode(self, index: int) -> Maps:
        return load_record(self.records[index], self.rules)
