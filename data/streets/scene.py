"""Procedural street scenes: a picture with its label and instance maps, drawn from a seed at any size.

A pinhole camera looks along a street with houses, trees, cars, people and poles. Every instance draws its own colours
and pattern, so that only its visible pixels show how it looks; sky and road have separate hues in every
scene. The picture is drawn enlarged and averaged down; the maps are the centre pixels of the same drawing, so their
borders are those of the picture.

Units: metres for x (right), y (up) and z (ahead); pixels for u (right) and v (down).
"""

from __future__ import annotations

from itertools import count

import numpy as np

from data.records import Maps
from data.streets.items import Builder, build_street
from data.streets.paint import Canvas, Item, Scenery, paint
from util.class_table import ClassTable
from util.object_rules import ObjectRule

SKY, BUILDING, ROAD, PAVEMENT, GRASS, TREE, CAR, PERSON, POLE = range(9)
_COLOURS = (
    (135, 190, 235), (170, 110, 90), (90, 90, 105), (205, 180, 200), (170, 215, 120), (45, 125, 60), (30, 60, 190),
    (230, 50, 70), (245, 200, 60),
)  # fmt: skip
CLASSES = ClassTable(
    names=("sky", "building", "road", "pavement", "grass", "tree", "car", "person", "pole"),
    palette=np.array(_COLOURS, np.uint8),
    things=frozenset((BUILDING, TREE, CAR, PERSON, POLE)),
    # Measured at 256 pixels: whole cars fill 0.62 to 0.73 of their boxes, whole people 0.4 to 0.5 at an aspect of 1.7
    # to 2.3; half hidden ones fill less. Buildings, trees and poles are scenery, and mostly partly hidden.
    objects=(ObjectRule(CAR, 0.5), ObjectRule(PERSON, 0.35, (1.5, 6))),
)
SUPERSAMPLING = 3  # odd, so that a map pixel has a centre


def instance_ids(items: list[Item]) -> np.ndarray:
    """Return the id of every item: its class for sky, road, pavement and grass, else class * 1000 + k."""
    number = {class_id: count(1000 * class_id) for class_id in CLASSES.things}
    ids = [next(number[item.class_id]) if item.class_id in number else item.class_id for item in items]
    return np.array(ids, np.int32)


def render_street(rng: np.random.RandomState, *, height: int, width: int) -> Maps:
    """Draw one scene.

    Args:
        rng: source of all draws.
        height, width: pixels.

    Returns:
        Image (height, width, 3) uint8, label (height, width) int32, inst (height, width) int32 below 2**16.
    """
    s = SUPERSAMPLING
    canvas = Canvas(height * s, width * s, rng)
    scenery = Scenery(rng)
    items = build_street(Builder(canvas, scenery, rng))
    code = canvas.codes()
    picture = paint(code, items, canvas, scenery, rng)
    image = np.zeros((height, width, 3), np.float32)
    for i in range(s * s):
        image += picture[i // s :: s, i % s :: s]
    image *= scenery.light / np.float32(s * s)
    index = code[s // 2 :: s, s // 2 :: s] >> 4
    label = np.array([item.class_id for item in items], np.int32)[index]
    return Maps(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8), label, instance_ids(items)[index])
