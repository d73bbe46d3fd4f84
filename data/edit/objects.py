"""What a scene shows: its instances with class, place and size, as a list and as a numbered picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.edit.scenes import Scene
from data.instances import dense_instances, unique_ids
from util.images import colour_labels
from util.regions import bounding_box

TINT = 0.45  # share of a class's colour in the overlay
LEAST_TEXT, TEXT_SHARE = 10, 40  # pixels; the short side over this is the size of the numbers
LEAST_SIDE = 512  # pixels of an overlay's short side; smaller pictures are enlarged, so that names have room


@dataclass(frozen=True)
class SceneObject:
    """An instance: its id and class, the box of its pixels (x0, y0, x1, y1; x1 and y1 not included), its share."""

    number: int
    class_name: str
    box: tuple[int, int, int, int]
    share: float

    def __str__(self) -> str:
        box = ",".join(map(str, self.box))
        return f"{self.number} {self.class_name} at {box} ({100 * self.share:.2g} %)"


def scene_objects(scene: Scene, names: Sequence[str]) -> list[SceneObject]:
    """Return the instances of a scene, the largest first; `names` are those of its classes."""
    dense, ids, classes = dense_instances(scene.inst, scene.label)
    counts = np.bincount(dense.ravel(), minlength=len(ids))
    objects = []
    for place in np.argsort(-counts, kind="stable").tolist():
        window = bounding_box(dense == place)
        label = int(classes[place])
        name = names[label] if label < len(names) else f"class {label}"
        box = (window.left, window.top, window.right, window.bottom)
        objects.append(SceneObject(int(ids[place]), name, box, float(counts[place] / dense.size)))
    return objects


def object_table(objects: Sequence[SceneObject]) -> list[str]:
    """Return the lines of a table of objects, its head first."""
    cells = [("id", "class", "x0,y0,x1,y1", "% of the picture")]
    cells += [(str(o.number), o.class_name, ",".join(map(str, o.box)), f"{100 * o.share:.2f}") for o in objects]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def numbered_overlay(
    scene: Scene, objects: Sequence[SceneObject], palette: np.ndarray, *, named: bool = False
) -> np.ndarray:
    """Return the picture (H, W, 3) uint8 tinted by class, with outlines and the ids of those objects that have room.

    With `named`, the class's name stands beside the id where there is room for both.
    """
    tinted = (1 - TINT) * scene.image + TINT * colour_labels(scene.label, palette)
    inst = scene.inst
    border = np.zeros(inst.shape, bool)
    border[:, 1:] |= inst[:, 1:] != inst[:, :-1]
    border[1:] |= inst[1:] != inst[:-1]
    tinted[border] = 255
    picture = Image.fromarray(tinted.round().astype(np.uint8))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(max(LEAST_TEXT, min(inst.shape) // TEXT_SHARE))
    for entry in objects:
        x0, y0, x1, y1 = entry.box
        for text in ([f"{entry.number} {entry.class_name}"] if named else []) + [str(entry.number)]:
            left, top, right, bottom = draw.textbbox((0, 0), text, font)
            if right - left <= 2 * (x1 - x0) and bottom - top <= y1 - y0:
                break
        else:
            continue  # too small: its number would hide others
        rows, columns = np.nonzero(inst == entry.number)
        nearest = np.hypot(rows - rows.mean(), columns - columns.mean()).argmin()  # a point of its own, if it is hollow
        half = (right - left) // 2
        place = min(max(int(columns[nearest]), half), max(half, inst.shape[1] - half)), int(rows[nearest])
        draw.text(place, text, "white", font, anchor="mm", stroke_width=2, stroke_fill="black")
    return np.asarray(picture)


def label_overlay(scene: Scene, names: Sequence[str], palette: np.ndarray) -> np.ndarray:
    """Return the picture (H, W, 3) uint8 tinted by class, with the instances' ids and names, above a legend."""
    factor = -(-LEAST_SIDE // min(scene.label.shape))
    image, label, inst = (ids.repeat(factor, 0).repeat(factor, 1) for ids in (scene.image, scene.label, scene.inst))
    large = Scene(scene.name, image, label, inst, np.zeros(label.shape, bool))
    shown = numbered_overlay(large, scene_objects(large, names), palette, named=True)
    return np.concatenate([shown, _legend(unique_ids(label), names, palette, shown.shape[1])])


def _legend(ids: np.ndarray, names: Sequence[str], palette: np.ndarray, width: int) -> np.ndarray:
    """Return (h, width, 3) uint8: the classes' colours with id and name, in as many rows as they need."""
    font = ImageFont.load_default(LEAST_SIDE // TEXT_SHARE + 2)
    gap, box, row = 8, 14, 22
    canvas = Image.new("RGB", (width, row * (len(ids) + 1)), "white")
    draw, x, y = ImageDraw.Draw(canvas), gap, 0
    for number in ids.tolist():
        text = f"{number} {names[number] if number < len(names) else ''}"
        needed = box + gap + round(draw.textlength(text, font)) + 2 * gap
        if x + needed > width and x > gap:
            x, y = gap, y + row
        colour = tuple(colour_labels(np.array([[number]]), palette)[0, 0].tolist())
        draw.rectangle((x, y + 4, x + box, y + 4 + box), fill=colour, outline="black")
        draw.text((x + box + gap, y + row / 2), text, "black", font, anchor="lm")
        x += needed
    return np.asarray(canvas)[: y + row]
