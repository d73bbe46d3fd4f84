"""ADE20K subsets with 151 labels, 0 = other, in the layout of SPMPGAN's release."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from data import DATASETS
from data.ade20k_classes import NAMES, THINGS
from data.folder import FolderDataset
from data.instances import unique_ids
from data.masks import MASK_TYPES
from data.records import MapRules
from util.class_table import ClassTable
from util.images import default_palette
from util.opt import Opt

_PALETTE = default_palette(len(NAMES))


@DATASETS.register("ade20k_room")
class Ade20kRoomDataset(FolderDataset):
    """Bedrooms, hotel and living rooms. Instance maps are colour PNGs: the whole colour is the id, 0 = no instance.

    Differs from SPMPGAN, data loader: it reads the green channel alone (the number within the picture). The whole
    colour r + 256 g has the same order and also holds the category.
    """

    summary = "ADE20K rooms, 151 labels, colour instance maps"
    default_load_size = 0
    built_in = ClassTable(NAMES, _PALETTE, THINGS)
    formerly: ClassVar[Mapping[str, Any]] = {"stuff_instances": "label"}

    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        group = parser.add_argument_group("data: ade20k_room")
        group.add_argument(
            "--stuff_instances", choices=("label", "released"), default="label",
            help="pixels without an instance: their class is one, so that its borders are edges; or all of them are "
            "one together, without edges between their classes, as SPMPGAN's release reads these maps",
        )  # fmt: skip

    @classmethod
    def map_rules(cls, opt: Opt) -> MapRules:
        by_label = getattr(opt, "stuff_instances", "label") == "label"  # check_data.py, where it means nothing
        return replace(super().map_rules(opt), inst_rgb=True, inst_zero_is_none=by_label, first_instance=1)

    def instance_candidates(self, inst: np.ndarray, label: np.ndarray) -> list[int]:
        """All ids, including 0 (no instance), whose box is nearly the whole picture: as released."""
        return unique_ids(inst).tolist()

    def objects(self, inst: np.ndarray, label: np.ndarray) -> list[int]:
        """All ids but 0: ADE20K annotates only things as instances."""
        return [number for number in unique_ids(inst).tolist() if number != 0]


@DATASETS.register("ade20k_landscape")
class Ade20kLandscapeDataset(FolderDataset):
    """Landscapes (ADE20K or Flickr): one "instance" per class, 16-bit maps or none; no instance masks."""

    summary = "ADE20K or Flickr landscapes, 151 labels"
    default_load_size = 0
    built_in = ClassTable(NAMES, _PALETTE)  # a class is one region, not several things
    mask_types = MASK_TYPES[:4]

    def instance_candidates(self, inst: np.ndarray, label: np.ndarray) -> list[int]:
        """None for training, as released; a test of the instance task takes the classes' regions."""
        return [] if self.augment else super().instance_candidates(inst, label)

    def objects(self, inst: np.ndarray, label: np.ndarray) -> list[int]:
        """None: a class's region is not a single object."""
        return []
