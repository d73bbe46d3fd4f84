"""A drawn scene for tests of editing: sky over road, a tree and a car."""

from __future__ import annotations

import numpy as np

from data.edit.changes import MapEditor
from data.edit.scenes import Scene
from data.records import MapRules

NAMES = ["sky", "road", "tree", "car"]
SKY, ROAD, TREE, CAR = range(4)
RULES = MapRules(label_nc=4)


def editor(radius: int = 0, rule: str = "majority", things: tuple[int, ...] = (TREE, CAR)) -> MapEditor:
    return MapEditor(names=NAMES, things=frozenset(things), inst_class_rule=rule, radius=radius)


def scene() -> Scene:
    """20 x 30: sky over road, a tree on the left, a car in the middle that hides some of both."""
    label = np.full((20, 30), SKY, np.int32)
    label[10:] = ROAD
    inst = label.copy()
    label[4:16, 2:6], inst[4:16, 2:6] = TREE, 2000
    label[8:14, 12:20], inst[8:14, 12:20] = CAR, 3000
    image = np.random.RandomState(0).randint(0, 256, (20, 30, 3)).astype(np.uint8)
    return Scene("one", image, label, inst, np.zeros((20, 30), bool))
