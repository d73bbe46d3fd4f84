"""Street scenes drawn from a seed (`data/streets/scene.py`): nothing to download, any size, every map exact."""

from __future__ import annotations

import argparse
from typing import Any, Self

import numpy as np

from data import DATASETS
from data.base_dataset import BaseDataset
from data.records import MapRules, Maps
from data.sampling import Sampling
from data.streets.scene import CLASSES, render_street
from util.class_table import ClassTable
from util.errors import UserError
from util.flags import numpy_seed
from util.opt import Opt

_SPLITS = {"train": 0, "val": 1, "test": 2}


def scene_rng(seed: int, split: str, index: int) -> np.random.RandomState:
    """Return the generator of one scene; (seed, split, index) seed it as they are, so no two scenes share it."""
    return np.random.RandomState([seed, _SPLITS[split], index])


@DATASETS.register("streets")
class StreetsDataset(BaseDataset):
    """Scenes 4/3 as wide as high; `load_size` is the height. Sizes, classes and ids are always right by construction.

    Args:
        split: "train", "val" or "test": they never share a scene.
        count: number of scenes.
        scene_seed: another seed gives another data set. It is not `seed`, so that runs of several seeds share a set.
        rules: classes, see `BaseDataset`.
        sampling: its `load_size` is the height of a scene in pixels.
    """

    summary = "procedural street scenes, 9 classes, nothing to download"

    def __init__(self, *, split: str, count: int, scene_seed: int, rules: MapRules, sampling: Sampling) -> None:
        if split not in _SPLITS:
            raise UserError(f"--split '{split}': streets has {', '.join(_SPLITS)}")
        if count < 1:
            raise UserError(f"--streets_{split}_size {count}: at least one scene is needed")
        self.scene_seed = scene_seed
        names = [f"{split}_{i:05d}" for i in range(count)]
        super().__init__(names=names, split=split, classes=CLASSES, rules=rules, sampling=sampling)

    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        parser.add_argument("--streets_train_size", type=int, default=240, help="scenes in the training split")
        parser.add_argument("--streets_test_size", type=int, default=64, help="scenes in the test and val splits")
        parser.add_argument("--streets_seed", type=numpy_seed, default=0, help="seed of the scenes (--seed: the run's)")
        parser.set_defaults(cache="ram")  # a scene is drawn once

    @classmethod
    def class_table(cls, dataroot: str | None) -> ClassTable:
        return CLASSES

    @classmethod
    def complete_options(cls, opt: Opt) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if opt.label_nc is None:
            values["label_nc"] = len(CLASSES.names)
        elif opt.label_nc < len(CLASSES.names):
            raise UserError(f"--label_nc {opt.label_nc}: streets has {len(CLASSES.names)} classes")
        if not opt.load_size:
            values["load_size"] = opt.crop_size
        return values

    @classmethod
    def from_options(cls, opt: Opt, *, split: str, augment: bool, task: str) -> Self:
        count = opt.streets_train_size if split == "train" else opt.streets_test_size
        sampling = Sampling.from_options(opt, augment=augment, task=task)
        return cls(split=split, count=count, scene_seed=opt.streets_seed, rules=cls.map_rules(opt), sampling=sampling)

    def decode(self, index: int) -> Maps:
        height = self.load_size
        maps = render_street(scene_rng(self.scene_seed, self.split, index), height=height, width=round(height * 4 / 3))
        return Maps(maps.image, self.rules.map_labels(maps.label), maps.inst)
