"""Changes of a scene that the page asks for, by the functions of `data.edit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data.edit.changes import MapEditor, box_shape, require_instance, scaled_shape
from data.edit.scenes import Margin, Scene
from semedit.page.parts import MOST_PIXELS
from util.errors import UserError

MOST_REACH = 512  # pixels that a mask may reach beyond what changes
EXTENSIONS = (None, "mirror", "repeat")  # how labels go on
FITTING = "what fits the class"  # the shape of a box: an ellipse for things, else a rectangle


@dataclass(frozen=True)
class Change:
    """What is to be done.

    Args:
        wish: "kind" (see `KINDS`) and what it needs.
        shape: (H, W) booleans, of what is painted.
        lent: the scene whose thing lends its shape.
    """

    wish: Mapping[str, Any]
    shape: np.ndarray | None = None
    lent: Scene | None = None

    @property
    def reach(self) -> int | None:
        """Pixels by which the mask is grown; None: as much as suits the run."""
        value = self.wish.get("reach")
        if value is not None and not 0 <= _whole(value) <= MOST_REACH:
            raise UserError(f"the mask may reach from 0 to {MOST_REACH} pixels beyond what changes")
        return None if value is None else int(value)

    def apply(self, scene: Scene, maps: MapEditor) -> Scene:
        """Return the changed scene; raises `UserError` for a change that is not possible, or malformed."""
        make = KINDS.get(str(self.wish.get("kind")))
        if make is None:
            raise UserError("the request is malformed (no such change)")
        try:
            return make(replace(maps, radius=maps.radius if self.reach is None else self.reach), scene, self)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the request is malformed ({type(error).__name__}: {error})") from error

    def whole(self, name: str) -> int:
        """Return a whole number of the wish."""
        return _whole(self.wish[name])

    def class_of(self, maps: MapEditor, name: str = "class") -> int:
        """Return the id of a class in the wish."""
        if not 0 <= self.whole(name) < len(maps.names):
            raise ValueError(f"class {self.whole(name)}")
        return self.whole(name)


def _whole(value: Any) -> int:
    if type(value) is not int or abs(value) >= 1 << 31:
        raise ValueError(f"{str(value)[:40]!r} is no whole number")
    return value


def _paint(maps: MapEditor, scene: Scene, change: Change) -> Scene:
    """Give painted pixels a class: those of "id", which grows, or of a new thing or region."""
    if change.shape is None or not change.shape.any():
        raise UserError("nothing is painted")
    number = None if change.wish.get("id") is None else change.whole("id")
    return maps.add_object(scene, change.class_of(maps), change.shape, number)


def _box(maps: MapEditor, scene: Scene, change: Change) -> Scene:
    """Put an object into a box: an ellipse, a rectangle, or the shape of the thing "of" in another picture."""
    chosen, size, kind = change.class_of(maps), scene.label.shape, change.wish["shape"]
    x0, y0, x1, y1 = map(_whole, change.wish["box"])
    if kind == "thing":
        if change.lent is None:
            raise UserError("click a thing in the other picture: its shape is put into the box")
        where = scaled_shape(size, (x0, y0, x1, y1), change.lent.inst, change.whole("of"), change.lent.name)
    else:
        if kind == FITTING:
            kind = "ellipse" if not maps.things or chosen in maps.things else "rectangle"
        if kind not in ("ellipse", "rectangle"):
            raise ValueError("no such shape")
        where = box_shape(size, (x0, y0, x1, y1), kind)
    return maps.add_object(scene, chosen, where)


def _become(maps: MapEditor, scene: Scene, change: Change) -> Scene:
    """Make an instance one of another class."""
    where = require_instance(scene.inst, change.whole("id"), scene.name)
    return maps.add_object(scene, change.class_of(maps), where)


def _renew(maps: MapEditor, scene: Scene, change: Change) -> Scene:
    """Erase an instance, which is then made anew where it is."""
    where = require_instance(scene.inst, change.whole("id"), scene.name)
    return maps.changed(scene, scene.label, scene.inst, where)


def _extend(maps: MapEditor, scene: Scene, change: Change) -> Scene:
    """Add "pixels" on a "side"; or, of a "width", what is missing on the right."""
    height, width = scene.label.shape
    if "width" in change.wish:
        side, pixels = "right", change.whole("width") - width
        if pixels < 1:
            raise UserError(f"the picture is {width} pixels wide already; give a larger width")
    else:
        side, pixels = str(change.wish["side"]), change.whole("pixels")
    labels = change.wish.get("labels")
    if side not in ("left", "right", "up", "down") or pixels < 1 or labels not in EXTENSIONS:
        raise UserError("a picture is extended to the left, to the right, up or down, by one pixel or more")
    across = side in ("left", "right")
    if (width + across * pixels) * (height + (not across) * pixels) > MOST_PIXELS:
        most = MOST_PIXELS // (height if across else width) - (width if across else height)
        raise UserError(f"{pixels} pixels are too many; this picture can be extended by {max(0, most)}")
    return replace(maps.extend(scene, Margin(side, pixels), labels), extended=False)


KINDS: dict[str, Callable[[MapEditor, Scene, Change], Scene]] = {
    "paint": _paint,
    "box": _box,
    "become": _become,
    "renew": _renew,
    "remove": lambda maps, scene, change: maps.remove(scene, change.whole("id")),
    "move": lambda maps, scene, change: maps.move(
        scene, change.whole("id"), change.whole("right"), change.whole("down")
    ),
    "replace": lambda maps, scene, change: maps.replace_class(
        scene, change.class_of(maps, "old"), change.class_of(maps, "new")
    ),
    "extend": _extend,
}
