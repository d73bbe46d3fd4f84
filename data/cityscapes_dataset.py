"""Cityscapes with `labelIds` (34) and 16-bit `instanceIds`, in the layout of SPMPGAN's release."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from data import DATASETS
from data.folder import FolderDataset
from data.instances import unique_ids
from data.records import MapRules
from util.class_table import ClassTable
from util.object_rules import ObjectRule
from util.opt import Opt

# id order of labelIds 0..33, with the colours of the data set's own scripts
_CLASSES = (
    ("unlabeled", (0, 0, 0)),
    ("ego vehicle", (0, 0, 0)),
    ("rectification border", (0, 0, 0)),
    ("out of roi", (0, 0, 0)),
    ("static", (0, 0, 0)),
    ("dynamic", (111, 74, 0)),
    ("ground", (81, 0, 81)),
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("parking", (250, 170, 160)),
    ("rail track", (230, 150, 140)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("guard rail", (180, 165, 180)),
    ("bridge", (150, 100, 100)),
    ("tunnel", (150, 120, 90)),
    ("pole", (153, 153, 153)),
    ("polegroup", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("caravan", (0, 0, 90)),
    ("trailer", (0, 0, 110)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
)


@DATASETS.register("cityscapes")
class CityscapesDataset(FolderDataset):
    """512x256 frames, cut at random; stuff and groups have their class as id (< 1000), things class * 1000 + k."""

    summary = "Cityscapes, labelIds (34) and instanceIds, 512x256"
    default_load_size = 0
    built_in = ClassTable(
        tuple(name for name, _ in _CLASSES), np.array([c for _, c in _CLASSES], np.uint8), frozenset(range(24, 34)),
        objects=(ObjectRule(26, 0.6), ObjectRule(24, 0.35, (2, 6))),  # car, person, as in SIEDOB's release
    )  # fmt: skip

    @classmethod
    def map_rules(cls, opt: Opt) -> MapRules:
        return replace(super().map_rules(opt), first_instance=1000)

    def instance_candidates(self, inst: np.ndarray, label: np.ndarray) -> list[int]:
        """Ids of single things only, as released; often there is none, then nothing is drawn."""
        ids = unique_ids(inst)
        return ids[ids >= self.rules.first_instance].tolist()
