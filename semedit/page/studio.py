"""What the page can do with a picture, by the functions of `semedit.Editor` and `data.edit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.base_dataset import BaseDataset
from data.edit.masks import WHITE, grey_levels
from data.edit.objects import scene_objects
from data.edit.scenes import Scene, make_scene
from data.loader import plain_dataset
from data.records import Maps, Record
from semedit.editor import Editor
from semedit.page.changes import Change
from semedit.page.files import checked_file, fitted, fitted_ids, fitting_size, plain_name, storable_ids
from semedit.page.parts import pack, plane_bytes
from semedit.sources import labels_from
from util.decode import decode
from util.errors import DataError, UserError
from util.images import ids_of, rgb_of

MOST_EXAMPLES = 24
SPLITS = ("test", "val", "train")  # examples are of the first that there is
KINDS_OF_FILE = {"image": "picture", "label": "label map", "inst": "instance map", "mask": "mask"}
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
        """Return the scene of an "image", of a "label" and "inst" map, which else the segmenter makes, and of a "mask".

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
        label = None if to_label else labels_from(read["label"], self.stored)
        inst = self._stored_ids(read["inst"]) if "inst" in read else None
        erased = np.asarray(grey_levels(read["mask"])) >= WHITE.threshold if "mask" in read else None
        for kind, ids in (("label", label), ("inst", inst), ("mask", erased)):
            if ids is not None and ids.shape not in (whole.shape[:2], image.shape[:2]):
                raise DataError(f"the {KINDS_OF_FILE[kind]} is {ids.shape[1]}x{ids.shape[0]}, its picture "
                                f"{whole.shape[1]}x{whole.shape[0]} pixels")  # fmt: skip
        if label is None:
            assert self.editor.labeller is not None
            maps = self.editor.labeller(image)
            notes.append(self.editor.labeller.found(maps))
        else:
            small = None if inst is None else fitted_ids(inst, self.max_side)
            maps = Maps(image, self.stored.map_labels(fitted_ids(label, self.max_side)), small)
        scene = replace(self._scene(plain_name(name), maps), notes=tuple(notes))
        return scene if erased is None else replace(scene, mask=fitted_ids(erased, self.max_side))

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
    def changed(self, scene: Scene, change: Change) -> Scene:
        """Return a scene with changed maps, and the mask that erases what has changed; raises `UserError`."""
        return self._storable(change.apply(scene, self.editor.map_editor()))

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
