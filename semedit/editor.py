"""A trained run that edits pictures: what scripts/edit.py does, with pictures and maps in memory.

Pictures are (H, W, 3) uint8 RGB, labels and instance ids (H, W) integers, masks (H, W), true where pixels are to be
generated; each may also be a PIL image or the path of a file. Results are of the kind of the picture: a PIL image for a
PIL image, else an array. Every pixel outside the mask comes back as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from data import DATASETS
from data.edit.changes import MapEditor, box_shape, change_radius, class_id
from data.edit.painting import Painter
from data.edit.scenes import Margin, Scene, make_scene
from data.loader import plain_pictures
from data.records import CLASSES_FILE, MapRules, Maps, Record, read_class_table
from models import MODELS
from models.style_bank import StyleBank
from models.style_sources import Frame, StrictSource, StyleSource, draws, steps
from options.base_options import run_folder
from options.edit_options import label_colours
from semedit.labels import Labeller, make_labeller
from semedit.sources import Source, ids_from, labels_from, mask_from, name_of, picture_from
from semedit.styles import Style, style_source
from trainers.restore import load_run
from util.batch import Batch, to_device
from util.class_table import ClassTable
from util.device import autocast, resolve_device
from util.errors import UserError
from util.opt import Opt
from util.regions import Region, plan_regions
from util.seeds import derive_seed


@dataclass(frozen=True)
class Painted:
    """A result (H, W, 3) uint8, and of how many instances of a class, by name, a style was drawn."""

    picture: np.ndarray
    drawn: Counter[str]


class Editor:
    """A run with its networks, classes and rules for maps.

    Args:
        opt: options of a command that takes a run.
    """

    def __init__(self, opt: Opt) -> None:
        self.opt, self.device = opt, resolve_device(opt.device)
        model_class = MODELS.get(opt.model)
        if "objects" in model_class.dataset_modes:
            raise UserError(f"--name {opt.name}: a run of {opt.model} makes crops of single objects, and no scenes")
        if model_class.flow != "editing":
            raise UserError(f"--name {opt.name}: a run of {opt.model} edits no scenes; use its commands (README.md)")
        dataset, run_dir = DATASETS.get(opt.dataset_mode), run_folder(opt)
        self.rules: MapRules = replace(dataset.map_rules(opt), label_colours=label_colours(opt))
        classes = read_class_table(run_dir / CLASSES_FILE) or dataset.class_table(opt.dataroot)
        self.classes: ClassTable = classes.resized(opt.label_nc)
        self.names = list(self.classes.names)
        self.model: Any = model_class.from_options(opt, is_train=False)
        loaded = load_run(self.model, run_dir, step=opt.step, averaged=not opt.raw_weights)
        self.model.to(self.device).eval()
        training = lambda limit: plain_pictures(opt, "train", limit)  # noqa: E731
        self.model.prepare_inference(run_dir, training, weights=loaded.name)
        self.painter = Painter(rules=self.rules, inst_class_rule=opt.inst_class_rule, crop_size=opt.crop_size)
        #: Makes the maps of pictures that come without, by --segmenter; None without one.
        self.labeller: Labeller | None = None
        if opt.segmenter:  # "mod120" reads an instance's class from its id, which derived ids do not hold
            self.labeller = make_labeller(opt, self.classes, instances=opt.inst_class_rule != "mod120")
        #: The run's style bank; None for a model without style codes.
        self.bank: StyleBank | None = getattr(self.model, "bank", None)

    # --- scenes ----------------------------------------------------------------------------------------------------
    def scene(
        self, image: Source, label: Source | None = None, inst: Source | None = None, mask: Source | None = None, *,
        name: str = "",
    ) -> Scene:  # fmt: skip
        """Check a picture with its maps and return them as a scene; without `mask`, nothing of it is erased.

        Args:
            image, label, inst, mask: see the module. Label ids are those of the run's classes; without instance ids
                each class is one instance. Without `label` the segmenter that the run was loaded with makes both maps.
            name: enters the seeds of the draws; the file's name without its ending if `image` is a file.

        Raises:
            DataError: sizes that differ, ids outside the classes, values that a mask does not have.
            UserError: no label map and no segmenter, or an instance map without a label map.
        """
        picture = picture_from(image)
        if label is None:
            maps = self._labelled(picture, inst)
        else:
            ids = None if inst is None else ids_from(inst, "instance map", rgb_ids=self.rules.inst_rgb)
            maps = Maps(picture, labels_from(label, self.rules), ids)
        files = [Path(name_of(source, what)) for source, what in ((image, "image"), (label, "label"), (inst, "inst"))]
        record = Record(name or files[0].stem, *files)
        erased = None if mask is None else mask_from(mask)
        return make_scene(record, maps, erased, self.rules)

    def _labelled(self, picture: np.ndarray, inst: Source | None) -> Maps:
        if self.labeller is None:
            raise UserError("label is missing: give one, or load the run with a segmenter, as in segmenter='streets'")
        if inst is not None:
            raise UserError("inst is given without label: the segmenter makes both, so leave inst out or give label")
        return self.labeller(picture)

    def map_editor(self, dilate: int | None = None) -> MapEditor:
        """Return what changes maps, with masks that reach `dilate` pixels further (3 % of the crop size for None)."""
        return MapEditor(
            names=self.names, things=self.classes.things, inst_class_rule=self.opt.inst_class_rule,
            radius=change_radius(self.opt.crop_size) if dilate is None else dilate,
        )  # fmt: skip

    def class_id(self, name: str | int, what: str) -> int:
        """Return the id of a class given by name or id; raises `UserError`, which names `what` and the classes."""
        return class_id(str(name), self.names, what)

    # --- edits -----------------------------------------------------------------------------------------------------
    def fill(
        self, image: Source, label: Source | None, inst: Source | None, mask: Source, *, n: int = 1, seed: int = 0,
        style: Style = "bank",
    ) -> list[Any]:  # fmt: skip
        """Generate what `mask` erases, so that it follows label and instance map, and return `n` results.

        Args:
            image, label, inst, mask: see `scene`.
            n: number of results; each draws its own styles.
            seed: of the draws; the same seed gives the same results.
            style: what is fully erased takes a code drawn from the style "bank", the "mean" code of its class, or one
                of a `StyleReference`, or those that a mapping chooses, as in {"car": 3}: numbers in the bank by class.
                Without meaning for methods that draw no codes.
        """
        return self._results(image, self.scene(image, label, inst, mask), n, seed, style)

    def remove(
        self, image: Source, label: Source | None, inst: Source | None, number: int, *, dilate: int | None = None,
        n: int = 1, seed: int = 0, style: Style = "bank",
    ) -> list[Any]:  # fmt: skip
        """Remove the instance with this id; its surroundings take its place. The other arguments as in `fill`."""
        scene = self.map_editor(dilate).remove(self.scene(image, label, inst), number)
        return self._results(image, scene, n, seed, style)

    def move(
        self, image: Source, label: Source | None, inst: Source | None, number: int, right: int, down: int, *,
        dilate: int | None = None, n: int = 1, seed: int = 0, style: Style = "bank",
    ) -> list[Any]:  # fmt: skip
        """Move the instance with this id by so many pixels, as it is. The other arguments as in `fill`."""
        scene = self.map_editor(dilate).move(self.scene(image, label, inst), number, right, down)
        return self._results(image, scene, n, seed, style)

    def add(
        self, image: Source, label: Source | None, inst: Source | None, object_class: str | int, *,
        box: tuple[int, int, int, int], shape: str = "ellipse", dilate: int | None = None, n: int = 1, seed: int = 0,
        style: Style = "bank",
    ) -> list[Any]:  # fmt: skip
        """Add an object of a class, given by name or id. The other arguments as in `fill`.

        Args:
            box: (x0, y0, x1, y1), columns x0..x1-1 and rows y0..y1-1 that the object fills.
            shape: "ellipse" or "rectangle".
            dilate: pixels that the mask reaches beyond the object.
        """
        scene = self.scene(image, label, inst)
        where = box_shape(scene.label.shape, box, shape)
        added = self.map_editor(dilate).add_object(scene, self.class_id(object_class, "object_class"), where)
        return self._results(image, added, n, seed, style)

    def replace(
        self, image: Source, label: Source | None, inst: Source | None, old: str | int, new: str | int, *,
        dilate: int | None = None, n: int = 1, seed: int = 0, style: Style = "bank",
    ) -> list[Any]:  # fmt: skip
        """Replace one class by another, both given by name or id. The other arguments as in `fill`."""
        scene = self.scene(image, label, inst)
        changed = self.map_editor(dilate).replace_class(scene, self.class_id(old, "old"), self.class_id(new, "new"))
        return self._results(image, changed, n, seed, style)

    def outpaint(
        self, image: Source, label: Source | None, inst: Source | None, side: str, pixels: int, *,
        extend: str | None = None, n: int = 1, seed: int = 0, style: Style = "bank",
    ) -> list[Any]:  # fmt: skip
        """Extend the picture to one side. The other arguments as in `fill`.

        Args:
            side, pixels: "left", "right", "up" or "down", and by how many pixels.
            extend: how the maps go on, "mirror" or "repeat"; None takes "mirror" to the sides, else "repeat".
        """
        scene = self.map_editor().extend(self.scene(image, label, inst), Margin(side, pixels), extend)
        return self._results(image, scene, n, seed, style)

    def _results(self, image: Source, scene: Scene, n: int, seed: int, style: Style) -> list[Any]:
        pictures = [painted.picture for painted in self.paint(scene, self.frames(n, self.source(style)), seed)]
        return [Image.fromarray(picture) for picture in pictures] if isinstance(image, Image.Image) else pictures

    # --- styles ----------------------------------------------------------------------------------------------------
    def source(self, style: Style, flag: str = "object_class") -> StyleSource | None:
        """Return where codes come from, None for a method without codes.

        Raises:
            UserError: a class without codes, an unknown one, or a code that the bank does not have; `flag` is what has
                named it.
        """
        if self.bank is None:
            return None
        return style_source(self, self.bank, style, flag)

    def frames(self, n: int, source: StyleSource | None, *, interpolate: bool = False) -> list[Frame]:
        """Return the plan of `n` results: draws, or steps from a draw of the bank to a second one, or to `source`."""
        if source is None or self.bank is None:
            return [Frame(f"draw {k + 1}", k, None) for k in range(n)]
        if interpolate:
            return steps((self.bank, 0), (source, int(isinstance(source, StyleBank))), n)
        return draws(source, n)

    # --- pictures --------------------------------------------------------------------------------------------------
    def paint(self, scene: Scene, frames: list[Frame], seed: int) -> Iterator[Painted]:
        """Yield a result for each frame, one at a time: large pictures need not be in memory together."""
        if not scene.mask.any():
            raise UserError(f"{scene.name}: the mask is empty, so there is nothing to generate (white: generate)")
        regions = plan_regions(scene.mask, self.opt.crop_size)
        for frame in frames:
            yield self._painted(scene, regions, frame, seed)

    def _painted(self, scene: Scene, regions: list[Region], frame: Frame, seed: int) -> Painted:
        drawn: Counter[str] = Counter()

        def generate(batch: Batch, number: int) -> Tensor:
            def seed_of(draw: int) -> int:
                return derive_seed(seed, "edit", scene.name, draw, number)

            if frame.source is not None:
                self.model.bank = StrictSource(frame.source(seed_of), self.names, drawn)
            with autocast(self.device, self.opt.precision):
                fake: Tensor = self.model.generate(to_device(batch, self.device), [seed_of(frame.draw)])
            return fake.float().cpu()

        return Painted(self.painter.paint(scene, regions, generate), drawn)
