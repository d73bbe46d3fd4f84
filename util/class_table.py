"""The classes of a data set: names, colours, and which of them come in single things."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from util.images import default_palette
from util.object_rules import ObjectRule


@dataclass(frozen=True)
class ClassTable:
    """What is known of a data set's classes.

    Args:
        names: one per id.
        palette: colours (n, 3) uint8.
        things: ids of classes that come in single things.
        ignore: the id to leave out, or None.
        objects: which instances are single objects, in the order of an object network's classes.
        scene_ids: of a data set of objects: the id that each class, but "outside", has in the scenes.
    """

    names: tuple[str, ...]
    palette: np.ndarray
    things: frozenset[int] = frozenset()
    ignore: int | None = None
    objects: tuple[ObjectRule, ...] = ()
    scene_ids: tuple[int, ...] = ()

    @property
    def foreground(self) -> tuple[ObjectRule, ...]:
        """The `objects`; all things, by id, where none are described."""
        return self.objects or tuple(ObjectRule(i) for i in sorted(self.things))

    def resized(self, label_nc: int) -> ClassTable:
        """Cut, or pad with "class <id>", to `label_nc` classes."""
        names = (*self.names, *(f"class {i}" for i in range(len(self.names), label_nc)))[:label_nc]
        palette = np.concatenate([self.palette, default_palette(label_nc)[len(self.palette) :]])[:label_nc]
        things = frozenset(i for i in self.things if i < label_nc)
        objects = tuple(rule for rule in self.objects if rule.label < label_nc)
        return ClassTable(names, palette, things, self.ignore, objects, self.scene_ids)


EMPTY_TABLE = ClassTable((), np.zeros((0, 3), np.uint8))
