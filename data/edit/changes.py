"""Changes of a scene's maps, each with the mask that erases what it changes: objects, classes, the picture's extent.

Shapes: H x W pixels of the whole picture. Every change returns a new `Scene`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from data.edit.objects import scene_objects
from data.edit.scenes import Margin, Scene, widen
from data.instances import dense_instances, unique_ids
from data.transforms import nearest
from util.errors import DataError, UserError
from util.regions import bounding_box
from util.registry import did_you_mean

LISTED = 20  # instances in a message
GROWTH = 0.03  # of the crop size


def class_id(text: str, names: list[str], flag: str) -> int:
    """Return the id of a class given by its name or number; raises `UserError` with the nearest names."""
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    if text not in names:
        raise UserError(f"{flag}: no class '{text}'.{did_you_mean(text, names)} Known: {', '.join(names)}")
    return names.index(text)


def change_radius(size: int) -> int:
    """Return by how many pixels the mask of a change is grown where a model works on `size` pixels."""
    return max(1, round(GROWTH * size))


def dilate(where: np.ndarray, radius: int) -> np.ndarray:
    """Grow a region (H, W) by a disc of `radius` pixels."""
    from scipy.ndimage import distance_transform_edt

    if not (radius and where.any()):
        return where
    near = _surroundings(where, radius)
    grown = where.copy()
    grown[near] = distance_transform_edt(~where[near]) <= radius
    return grown


def fill_nearest(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Give the pixels `where` (H, W), not all, the value of the nearest other pixel; values (H, W) or (H, W, C)."""
    from scipy.ndimage import distance_transform_edt

    near = _surroundings(where, 1)  # holds every nearest other pixel: those beyond have a nearer one on their way
    rows, columns = distance_transform_edt(where[near], return_distances=False, return_indices=True)
    filled = values.copy()
    filled[near] = values[near][rows, columns]
    return filled


def _surroundings(where: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Return the box of a region and so many pixels around it: work on it does not grow with the picture."""
    box = bounding_box(where)
    return (
        slice(max(0, box.top - margin), box.bottom + margin),
        slice(max(0, box.left - margin), box.right + margin),
    )


def shifted(values: np.ndarray, right: int, down: int) -> np.ndarray:
    """Return values (H, W, ...) moved by so many columns and rows; what comes from outside is 0."""
    moved = np.zeros_like(values)
    height, width = values.shape[:2]
    if abs(right) < width and abs(down) < height:
        moved[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = values[
            max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
        ]
    return moved


def box_shape(size: tuple[int, ...], box: tuple[int, int, int, int], kind: str) -> np.ndarray:
    """Return a "rectangle" or "ellipse" (H, W) that fills columns x0..x1-1 and rows y0..y1-1.

    Raises:
        UserError: the box (x0, y0, x1, y1) is empty or not inside the picture.
    """
    x0, y0, x1, y1 = box
    height, width = size
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise UserError(
            f"--box {x0},{y0},{x1},{y1}: not inside the picture of {width}x{height}; "
            f"needed: 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}"
        )
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    (draw.ellipse if kind == "ellipse" else draw.rectangle)((x0, y0, x1 - 1, y1 - 1), fill=1)
    return np.array(canvas)


def scaled_shape(
    size: tuple[int, ...], box: tuple[int, int, int, int], inst: np.ndarray, number: int, source: str
) -> np.ndarray:
    """Return the shape of an instance of another map, stretched to fill the box, as (H, W) booleans."""
    where = require_instance(inst, number, source)
    cut = bounding_box(where)
    silhouette = where[cut.top : cut.bottom, cut.left : cut.right]
    shape = box_shape(size, box, "rectangle")
    x0, y0, x1, y1 = box
    shape[y0:y1, x0:x1] = nearest(silhouette.astype(np.int32), y1 - y0, x1 - x0) > 0
    return shape


def require_instance(inst: np.ndarray, number: int, source: str) -> np.ndarray:
    """Return where an instance is; raises `DataError` with the ids that there are."""
    where = inst == number
    if not where.any():
        ids = unique_ids(inst)
        shown = ", ".join(map(str, ids[:20])) + (f" and {len(ids) - 20} more" if len(ids) > 20 else "")
        raise DataError(f"{source}: no instance {number} in the instance map. Its ids: {shown}")
    return where


def ids_of_class(inst: np.ndarray, label: np.ndarray, class_id: int) -> np.ndarray:
    """Return the ids whose majority label is a class; instance and label maps rarely agree on every pixel."""
    _, inst_id, inst_class = dense_instances(inst, label)
    return inst_id[inst_class == class_id]


@dataclass(frozen=True)
class MapEditor:
    """Makes the changes.

    Args:
        names: of the classes.
        things: classes whose objects have separate ids; empty: not known.
        inst_class_rule: "mod120" where an instance's class is its id modulo 120.
        radius: pixels by which the mask of a change is grown, so that its surroundings blend in.
    """

    names: list[str]
    things: frozenset[int]
    inst_class_rule: str
    radius: int

    def add_object(self, scene: Scene, class_id: int, shape: np.ndarray, number: int | None = None) -> Scene:
        """Put an object of a class where `shape` (H, W) is, or let the instance `number` grow by it.

        Without a number a thing is a new instance, and a class of stuff joins its visible region.
        """
        if number is None:
            is_thing = not self.things or class_id in self.things
            number = self.new_id(scene.inst, class_id) if is_thing else self.region_id(scene, class_id)
        label, inst = scene.label.copy(), scene.inst.copy()
        label[shape], inst[shape] = class_id, number
        return self.changed(scene, label, inst, shape)

    def remove(self, scene: Scene, number: int) -> Scene:
        """Remove an instance: its pixels take label and id of the nearest other pixel.

        Pixels within the grown mask with its label but without an instance of its class are removed too.
        """
        where = self._whole_instance(scene, number, f"--remove {number}")
        own_class = int(np.bincount(scene.label[where]).argmax())
        others = np.isin(scene.inst, ids_of_class(scene.inst, scene.label, own_class))
        gone = where | (dilate(where, self.radius) & (scene.label == own_class) & ~others)
        return self.changed(scene, fill_nearest(scene.label, gone), fill_nearest(scene.inst, gone), where)

    def _whole_instance(self, scene: Scene, number: int, asked: str) -> np.ndarray:
        """Return where an instance is that has neighbours; raises `DataError` that begins with what was `asked`."""
        where = scene.inst == number
        if not where.any():
            objects = scene_objects(scene, self.names)
            more = f"; and {len(objects) - LISTED} more" if len(objects) > LISTED else ""
            raise DataError(
                f"{asked}: {scene.name}: no instance {number} in the instance map. It has: "
                f"{'; '.join(map(str, objects[:LISTED]))}{more}"
            )
        if where.all():
            raise DataError(f"{asked}: {scene.name} shows nothing else, so there is nothing to fill it with")
        return where

    def move(self, scene: Scene, number: int, right: int, down: int) -> Scene:
        """Move an instance by columns and rows, negative ones to the left and upwards.

        Its pixels go along as they are. What it leaves is removed as by `remove`, and a seam around its new place is
        erased, with its outermost pixels, which show some of its old surroundings.
        """
        where = self._whole_instance(scene, number, f"--move {number}:{right},{down}")
        now = shifted(where, right, down)
        if not now.any():
            raise DataError(f"--move {number}:{right},{down}: nothing of it would be left in {scene.name}")
        rest = self.remove(scene, number)
        image, label, inst = scene.image.copy(), rest.label.copy(), rest.inst.copy()
        for moved, old in ((image, scene.image), (label, scene.label), (inst, scene.inst)):
            moved[now] = shifted(old, right, down)[now]
        inner = now & ~dilate(~now, 1)
        mask = (rest.mask & ~inner) | (dilate(now, self.radius) & ~inner) | (shifted(scene.mask, right, down) & now)
        return replace(scene, image=image, label=label, inst=inst, mask=mask)

    def replace_class(self, scene: Scene, old: int, new: int) -> Scene:
        """Replace one class by another; things stay separate things, all else becomes one region."""
        where = scene.label == old
        if not where.any():
            present = ", ".join(self.names[i] for i in unique_ids(scene.label) if i < len(self.names))
            raise DataError(f"--replace_class: {scene.name} has no '{self.names[old]}'. Its classes: {present}")
        label, inst = scene.label.copy(), scene.inst.copy()
        label[where] = new
        if new not in self.things:
            inst[where] = self.region_id(scene, new)
        elif len(numbers := ids_of_class(scene.inst, scene.label, old)):
            for number in numbers:
                inst[where & (scene.inst == number)] = self.new_id(inst, new)
        else:
            inst[where] = self.new_id(inst, new)
        return self.changed(scene, label, inst, where)

    def extend(self, scene: Scene, margin: Margin, mode: str | None) -> Scene:
        """Add an erased margin; the maps continue by "mirror" or "repeat" of their border.

        None mirrors to the left and right and repeats upwards and downwards, or streets would be upside down. A
        mirrored thing that does not touch its original becomes a separate instance.
        """
        mode = mode or ("mirror" if margin.side in ("left", "right") else "repeat")
        pad_mode = {"mirror": "symmetric", "repeat": "edge"}[mode]
        label, inst = (np.pad(ids, margin.pads(), mode=pad_mode) for ids in (scene.label, scene.inst))  # type: ignore[call-overload]
        fresh = np.pad(np.zeros(scene.label.shape, bool), margin.pads(), constant_values=True)
        mask = np.pad(scene.mask, margin.pads(), constant_values=True)
        inst = self._renumbered(inst, label, fresh)
        return Scene(scene.name, widen(scene.image, margin), label, inst, mask, extended=True)

    def _renumbered(self, inst: np.ndarray, label: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        from scipy.ndimage import label as connected

        renumbered = inst.copy()
        for class_id in sorted(self.things):
            for number in np.intersect1d(ids_of_class(inst, label, class_id), inst[fresh]):
                parts, count = connected(inst == number)
                known = set(unique_ids(parts[~fresh]))
                for part in set(range(1, count + 1)) - known:
                    renumbered[parts == part] = self.new_id(renumbered, class_id)
        return renumbered

    def changed(self, scene: Scene, label: np.ndarray, inst: np.ndarray, where: np.ndarray) -> Scene:
        """Return the scene with other maps, in which what is to be erased now includes `where`, grown by the radius."""
        return replace(scene, label=label, inst=inst, mask=scene.mask | dilate(where, self.radius))

    # --- ids -------------------------------------------------------------------------------------------------------
    def new_id(self, inst: np.ndarray, class_id: int) -> int:
        """Return an unused id: 120 k + class under "mod120", else 1000 class + k as in Cityscapes."""
        used = set(unique_ids(inst).tolist())
        step = 120 if self.inst_class_rule == "mod120" else 1
        number = 120 + class_id % 120 if self.inst_class_rule == "mod120" else 1000 * class_id or 1_000_000
        while number in used:
            number += step
        return number

    def region_id(self, scene: Scene, class_id: int) -> int:
        """Return the id of a class's region: what most of its pixels have, or, without any, the label itself."""
        ids, counts = np.unique(scene.inst[scene.label == class_id], return_counts=True)
        if len(ids):
            return int(ids[counts.argmax()])
        if self.inst_class_rule == "mod120" or (scene.inst == class_id).any():
            return self.new_id(scene.inst, class_id)
        return class_id
