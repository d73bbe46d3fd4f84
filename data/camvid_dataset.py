"""CamVid, 12 classes of the SegNet split, as written by scripts/prepare_camvid.py."""

from __future__ import annotations

import numpy as np

from data import DATASETS
from data.folder import FolderDataset
from util.class_table import ClassTable
from util.object_rules import ObjectRule

_CLASSES = (
    ("sky", (128, 128, 128)),
    ("building", (128, 0, 0)),
    ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)),
    ("pavement", (60, 40, 222)),
    ("tree", (128, 128, 0)),
    ("sign_symbol", (192, 128, 128)),
    ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)),
    ("bicyclist", (0, 128, 192)),
    ("unlabelled", (0, 0, 0)),
)
CAR, PEDESTRIAN, BICYCLIST = THINGS = (8, 9, 10)
CLASSES = ClassTable(
    tuple(name for name, _ in _CLASSES), np.array([c for _, c in _CLASSES], np.uint8), frozenset(THINGS), ignore=11,
    # Instances are connected components, so a row of parked cars or a group of people is one. Measured on the training
    # split: a whole car fills 0.5 to 0.75 of its box, one person 0.35 to 0.55; rows of cars are flatter than 0.35,
    # slices at the picture's side higher than 2, groups of people wider than 2/3 of their height.
    objects=(
        ObjectRule(CAR, 0.5, (0.35, 2)), ObjectRule(PEDESTRIAN, 0.35, (1.5, 6)), ObjectRule(BICYCLIST, 0.35, (1, 6))
    ),
)  # fmt: skip


@DATASETS.register("camvid")
class CamvidDataset(FolderDataset):
    """341x256 street frames; things (car, pedestrian, bicyclist) have 16-bit ids class * 1000 + k."""

    summary = "CamVid street frames, 12 classes, made by scripts/prepare_camvid.py"
    built_in = CLASSES
