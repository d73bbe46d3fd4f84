"""What the page can do with a picture, by the functions of `semedit.Editor` and `data.edit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.base_dataset import BaseDataset
from data.edit.changes import MapEditor, box_shape
from data.edit.objects import scene_objects
from data.edit.scenes import Margin, Scene, make_scene
from data.loader import plain_dataset
from data.records import Maps, Record
from semedit.editor import Editor
from semedit.page.files import checked_file, fitted, fitted_ids, fitting_size, plain_name, storable_ids
from semedit.page.parts import MOST_PIXELS, pack, plane_bytes
from semedit.sources import labels_from
from util.decode import decode
from util.errors import DataError, UserError
from util.images import ids_of, rgb_of

MOST_EXAMPLES = 24
SPLITS = ("test", "val", "train")  # examples are of the first that there is
KINDS_OF_FILE = {"image": "picture", "label": "label map", "inst": "instance map"}
NO_MAPS = "give its label map, or start the page with --segmenter, which makes one"


class Studio:
    """A run, examples of its data, and changes of scenes.

    Args:
        editor: the run. Its rules for stored maps serve to read files; scenes in the page have class ids.
        max_side: pictures are scaled down to so many pixels a side.
    """

    def __init__(self, editor: Editor, max_side: int) -> None:
        self.editor, self.max_side = editor, max_side
        self.stored = editor.rules
        editor.rules = replace(editor.rules, label_map={}, label_colours=None)
        self._examples = _example_data(editor)
        names = [] if self._examples is None else self._examples.names[:MOST_EXAMPLES]
        self._number = {name: number for number, name in enumerate(names)}  # what a client names is looked up here

    def about(self) -> dict[str, Any]:
        """Return what the page shows of the run, and offers."""
        editor, classes = self.editor, self.editor.classes
        styled = editor.bank is not None
        return {
            "run": editor.opt.name,
            "model": editor.opt.model,
            "crop": editor.opt.crop_size,
            "classes": [
                {
                    "name": name, "colour": colour, "thing": not classes.things or number in classes.things,
                    "styled": styled and editor.model.has_style(number),
                }
                for number, (name, colour) in enumerate(zip(classes.names, classes.palette.tolist(), strict=True))
            ],
            "styles": styled,
            "examples": list(self._number),
            "segmenter": editor.labeller.segmenter.name if editor.labeller else None,
            "max_side": self.max_side,
        }  # fmt: skip

    # --- opening ---------------------------------------------------------------------------------------------------
    def example(self, name: str) -> Scene:
        """Return a picture of the run's data; raises `UserError` for other names."""
        if self._examples is None or name not in self._number:
            raise UserError("no such example")
        maps = self._examples.maps(self._number[name])
        return self._scene(plain_name(name), maps)

    def needs_labels(self, files: Mapping[str, bytes]) -> bool:
        """Return whether the segmenter has to label these files; raises `UserError` where nothing can."""
        if "label" in files:
            return False
        if "inst" in files:
            raise UserError("an instance map without a label map: give both, or neither")
        if self.editor.labeller is None:
            raise UserError(f"this picture has no label map: {NO_MAPS}")
        return True

    def opened(self, names: Mapping[str, str], files: Mapping[str, bytes]) -> Scene:
        """Return the scene of an "image", and of a "label" and "inst" map; without these the segmenter makes them.

        Args:
            names: of the files, where they are known.
            files: their content.

        Raises:
            UserError: files that cannot be used, or a map that is missing.
        """
        to_label = self.needs_labels(files)
        read = {
            kind: decode(checked_file(content, names.get(kind, KINDS_OF_FILE[kind]), what), what).picture
            for kind, what in KINDS_OF_FILE.items()
            if (content := files.get(kind)) is not None
        }
        name, notes = names.get("image", "picture"), []
        whole = rgb_of(read["image"], name)
        image = fitted(whole, self.max_side)
        if image.shape != whole.shape:
            notes.append(f"scaled from {whole.shape[1]}x{whole.shape[0]} to {image.shape[1]}x{image.shape[0]} pixels")
        if to_label:
            assert self.editor.labeller is not None
            maps = self.editor.labeller(image)
            return replace(self._scene(plain_name(name), maps), notes=(*notes, self.editor.labeller.found(maps)))
        label = labels_from(read["label"], self.stored)
        inst = self._stored_ids(read["inst"]) if "inst" in read else None
        for what, ids in (("label map", label), ("instance map", inst)):
            if ids is not None and ids.shape not in (whole.shape[:2], image.shape[:2]):
                raise DataError(f"the {what} is {ids.shape[1]}x{ids.shape[0]}, its picture "
                                f"{whole.shape[1]}x{whole.shape[0]} pixels")  # fmt: skip
        small = None if inst is None else fitted_ids(inst, self.max_side)
        maps = Maps(image, self.stored.map_labels(fitted_ids(label, self.max_side)), small)
        return replace(self._scene(plain_name(name), maps), notes=tuple(notes))

    def _stored_ids(self, picture: Image.Image) -> np.ndarray:
        found = ids_of(picture, "instance map", "instance map", rgb_ids=self.stored.inst_rgb)
        if found.bits < 16 and not self.stored.inst_8bit:
            raise DataError(f"the instance map has {found.bits} bits; ids need 16: make it again from the original")
        return found.ids

    def _scene(self, name: str, maps: Maps) -> Scene:
        """Check maps of class ids, and scale them if they are too large."""
        size = fitting_size((maps.image.shape[1], maps.image.shape[0]), self.max_side)
        if size != maps.image.shape[1::-1]:
            inst = None if maps.inst is None else fitted_ids(maps.inst, self.max_side)
            maps = Maps(fitted(maps.image, self.max_side), fitted_ids(maps.label, self.max_side), inst)
        return self.scene(name, maps.image, maps.label.astype(np.int32), maps.inst, None)

    def scene(
        self, name: str, image: np.ndarray, label: np.ndarray, inst: np.ndarray | None, mask: np.ndarray | None
    ) -> Scene:
        """Return a scene whose maps are checked, with ids that a file can hold; raises `UserError`."""
        record = Record(plain_name(name), Path("picture"), Path("labels"), Path("instances"))
        scene = make_scene(record, Maps(image, label, inst), mask, self.editor.rules)
        return self._storable(scene)

    def _storable(self, scene: Scene) -> Scene:
        inst = storable_ids(scene.inst, self.editor.rules, self.editor.opt.inst_class_rule)
        return replace(scene, inst=inst.astype(np.int32))

    # --- changes ---------------------------------------------------------------------------------------------------
    def changed(self, scene: Scene, change: Mapping[str, Any], shape: np.ndarray | None) -> Scene:
        """Return a scene with changed maps, and the mask that erases what has changed.

        Args:
            scene: as it is.
            change: "kind" (see `KINDS`) and what it needs.
            shape: (H, W) booleans, of what is painted.

        Raises:
            UserError: a change that is not possible, or malformed.
        """
        make = KINDS.get(str(change.get("kind")))
        if make is None:
            raise UserError("the request is malformed (no such change)")
        try:
            made = make(self.editor.map_editor(), scene, change, shape)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the request is malformed ({type(error).__name__}: {error})") from error
        return self._storable(made)

    def message(self, scene: Scene, **more: Any) -> bytes:
        """Return a scene as the page takes it."""
        height, width = scene.label.shape
        objects = [
            {"id": each.number, "class": each.class_name, "box": each.box, "share": each.share}
            for each in scene_objects(scene, self.editor.names)
        ]
        head = {"name": scene.name, "size": [width, height], "objects": objects, "notes": list(scene.notes), **more}
        planes = {"image": scene.image, "label": scene.label, "inst": scene.inst, "mask": scene.mask}
        return pack(head, {name: plane_bytes(name, values) for name, values in planes.items()})


def _example_data(editor: Editor) -> BaseDataset | None:
    """Return the split that examples are of; None where the run's data is not there."""
    for split in SPLITS:
        try:
            return plain_dataset(editor.opt, split)
        except (UserError, OSError):
            continue
    return None


# --- kinds of change --------------------------------------------------------------------------------------------------
Change = Mapping[str, Any]


def _whole(value: Any) -> int:
    if type(value) is not int or abs(value) >= 1 << 31:
        raise ValueError(f"{str(value)[:40]!r} is no whole number")
    return value


def _class_of(maps: MapEditor, value: Any) -> int:
    if not 0 <= _whole(value) < len(maps.names):
        raise ValueError(f"class {value}")
    return int(value)


def _paint(maps: MapEditor, scene: Scene, change: Change, shape: np.ndarray | None) -> Scene:
    """Give painted pixels a class: those of "id", which grows, or of a new thing or region."""
    if shape is None or not shape.any():
        raise UserError("nothing is painted")
    number = None if change.get("id") is None else _whole(change["id"])
    return maps.add_object(scene, _class_of(maps, change["class"]), shape, number)


def _box(maps: MapEditor, scene: Scene, change: Change, shape: np.ndarray | None) -> Scene:
    x0, y0, x1, y1 = map(_whole, change["box"])
    kind = "ellipse" if change["shape"] == "ellipse" else "rectangle"
    where = box_shape(scene.label.shape, (x0, y0, x1, y1), kind)
    return maps.add_object(scene, _class_of(maps, change["class"]), where)


def _become(maps: MapEditor, scene: Scene, change: Change, shape: np.ndarray | None) -> Scene:
    """Make an instance one of another class."""
    where = scene.inst == _whole(change["id"])
    if not where.any():
        raise UserError(f"no instance {change['id']} in the picture")
    return maps.add_object(scene, _class_of(maps, change["class"]), where)


def _extend(maps: MapEditor, scene: Scene, change: Change, shape: np.ndarray | None) -> Scene:
    height, width = scene.label.shape
    side, pixels = str(change["side"]), _whole(change["pixels"])
    if side not in ("left", "right", "up", "down") or pixels < 1:
        raise UserError("a picture is extended to the left, to the right, up or down, by one pixel or more")
    across = side in ("left", "right")
    most = width if across else height  # what a mirror can show
    if pixels > most or (width + across * pixels) * (height + (not across) * pixels) > MOST_PIXELS:
        raise UserError(f"{pixels} pixels are too many at once; extend this picture by {most} at most")
    return replace(maps.extend(scene, Margin(side, pixels), None), extended=False)


KINDS: dict[str, Callable[[MapEditor, Scene, Change, np.ndarray | None], Scene]] = {
    "paint": _paint,
    "box": _box,
    "become": _become,
    "remove": lambda maps, scene, change, shape: maps.remove(scene, _whole(change["id"])),
    "move": lambda maps, scene, change, shape: maps.move(
        scene, _whole(change["id"]), _whole(change["right"]), _whole(change["down"])
    ),
    "replace": lambda maps, scene, change, shape: maps.replace_class(
        scene, _class_of(maps, change["old"]), _class_of(maps, change["new"])
    ),
    "extend": _extend,
}
