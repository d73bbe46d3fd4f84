"""Edit pictures with a trained run: `python scripts/edit.py --name RUN --image I.png --label L.png --inst N.png
--mask M.png --output O.png`.

Also adds, removes and replaces objects and extends pictures; docs/editing.md shows every command.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import numpy as np
import torch
from torch import Tensor

from data import DATASETS
from data.checks import read_inst
from data.edit.changes import MapEditor, box_shape, change_radius, class_id, scaled_shape
from data.edit.painting import Painter
from data.edit.scenes import Margin, Scene, SceneFiles, load_scene, pair_files
from data.loader import plain_pictures
from data.masks import inverted_note
from data.records import CLASSES_FILE, ClassTable, MapRules, Record, read_class_table
from data.samples import make_sample
from data.transforms import nearest
from models import MODELS
from models.style_bank import StyleBank
from models.style_sources import (
    Frame,
    MeanSource,
    ReferenceSource,
    StrictSource,
    StyleSource,
    draws,
    steps,
)
from options.base_options import run_folder
from options.edit_options import REFERENCE, EditOptions
from testing.analogy_edit import edit as edit_analogy
from trainers.restore import load_run
from util.batch import Batch, to_device
from util.device import autocast, resolve_device
from util.errors import EXIT_OK, UserError, run_main
from util.files import require_writable
from util.images import colour_labels, picture_grid, save_png
from util.opt import Opt
from util.pictures import shrunk
from util.regions import Region, bounding_box, plan_regions, window_around
from util.seeds import derive_seed

GREY = 128  # of erased pixels in a strip
NOTHING_DRAWN = "none, nothing that has a style is fully erased"
STRIP_SIDE = 2048  # pixels, the longest side of a picture in a strip
WIDE = 2  # pictures wider than this times their height are stacked in a strip


class Session:
    """A run with its data rules, ready to edit.

    Args:
        opt: options of the command.
    """

    def __init__(self, opt: Opt) -> None:
        self.opt, self.device = opt, resolve_device(opt.device)
        if "objects" in MODELS.get(opt.model).dataset_modes:
            raise UserError(f"--name {opt.name}: a run of {opt.model} makes crops of single objects, and no scenes")
        dataset, run_dir = DATASETS.get(opt.dataset_mode), run_folder(opt)
        self.rules: MapRules = dataset.map_rules(opt)
        classes = read_class_table(run_dir / CLASSES_FILE) or dataset.class_table(opt.dataroot)
        self.classes: ClassTable = classes.resized(opt.label_nc)
        self.names = list(self.classes.names)
        self.model: Any = MODELS.get(opt.model).from_options(opt, is_train=False)
        loaded = load_run(self.model, run_dir, step=opt.step, averaged=not opt.raw_weights)
        self.model.to(self.device).eval()
        training = lambda limit: plain_pictures(opt, "train", limit)  # noqa: E731
        self.model.prepare_inference(run_dir, training, weights=loaded.name)
        self.painter = Painter(rules=self.rules, inst_class_rule=opt.inst_class_rule, crop_size=opt.crop_size)
        radius = change_radius(opt.crop_size) if opt.dilate is None else opt.dilate
        self.editor = MapEditor(
            names=self.names, things=self.classes.things, inst_class_rule=opt.inst_class_rule, radius=radius
        )
        self.frames = self.plan_frames(getattr(self.model, "bank", None))

    # --- maps ------------------------------------------------------------------------------------------------------
    def scene(self, files: SceneFiles) -> Scene:
        """Read a scene and make the changes that the flags ask for."""
        opt, margin = self.opt, self.margin(files.record)
        scene = load_scene(files, self.rules, margin)
        if files.mask is not None and (note := inverted_note(scene.mask.mean(), f"--mask {files.mask}")):
            print(f"note: {note}")
        if opt.remove is not None:
            scene = self.editor.remove(scene, opt.remove)
        if opt.replace_class:
            old, new = (class_id(text, self.names, "--replace_class") for text in opt.replace_class)
            scene = self.editor.replace_class(scene, old, new)
        if opt.add_object is not None:
            added = class_id(opt.add_object, self.names, "--add_object")
            scene = self.editor.add_object(scene, added, self.object_shape(scene.label.shape))
        if margin is not None and not scene.extended:
            scene = self.editor.extend(scene, margin, opt.extend_labels)
        if not scene.mask.any():
            source = files.mask or f"{scene.name}: no pixel is changed"
            raise UserError(f"{source}: the mask is empty, so there is nothing to generate (white: generate)")
        return scene

    def margin(self, record: Record) -> Margin | None:
        """Return how far the picture is extended."""
        opt = self.opt
        if opt.outpaint:
            return Margin(opt.outpaint[0], int(opt.outpaint[1]))
        if opt.panorama is None:
            return None
        return Margin.to_width(record.image, opt.panorama)

    def object_shape(self, size: tuple[int, ...]) -> np.ndarray:
        opt = self.opt
        if opt.add_from is None:
            return box_shape(size, opt.box, opt.add_shape or "ellipse")
        path, number = opt.add_from
        other = read_inst(Record("", Path(), Path(), Path(path)), self.rules)
        assert other is not None
        return scaled_shape(size, opt.box, other.ids, number, f"--add_from {path}:{number}")

    # --- styles ----------------------------------------------------------------------------------------------------
    def plan_frames(self, bank: StyleBank | None) -> list[Frame]:
        """Return the results to make of each picture: draws, or steps between two styles."""
        opt = self.opt
        if bank is None:
            asked = [n for n in ("style_source", *REFERENCE, "interpolate") if getattr(opt, n) is not None]
            if asked:
                raise UserError(
                    f"--{asked[0]}: --model {opt.model} of this run draws no style codes; leave the flag out"
                )
            return [Frame(f"draw {k + 1}", k, None) for k in range(opt.num_samples)]
        main: StyleSource = MeanSource(bank) if opt.style_source == "mean" else bank
        if opt.style_image is not None:
            chosen = class_id(opt.style_class, self.names, "--style_class")
            if not self.model.has_style(chosen):
                raise UserError(f"--style_class {opt.style_class}: --model {opt.model} of this run has no styles of it")
            main = ReferenceSource(chosen, self.reference_codes(chosen), bank)
        if opt.interpolate is None:
            return draws(main, opt.num_samples)
        return steps((bank, 0), (main, int(isinstance(main, StyleBank))), opt.interpolate)

    @torch.no_grad()
    def reference_codes(self, chosen: int) -> Tensor:
        """Return the raw codes (n, D) of a class's instances in --style_image, each read in a window around it."""
        opt, paths = self.opt, {n: getattr(self.opt, f"style_{n}") for n in ("image", "label", "inst")}
        files = {n: Path(path) for n, path in paths.items() if path is not None}
        record = Record(files["image"].stem, files["image"], files["label"], files.get("inst"))
        scene = load_scene(SceneFiles(record, None), self.rules)
        rule: dict[str, Any] = {"rules": self.rules, "inst_class_rule": opt.inst_class_rule}
        whole = make_sample(scene.maps, scene.mask, name=scene.name, **rule)
        codes = []
        for number in whole["inst_id"][whole["inst_class"] == chosen].tolist():
            window = window_around(bounding_box(scene.inst == number), scene.label.shape, opt.crop_size)
            batch = to_device(self.painter.batch(scene.maps, scene.mask, window, scene.name), self.device)
            place = (batch["inst_id"][0] == number).nonzero().flatten()  # none: too small to survive the scaling
            instance_codes = self.model.instance_codes(batch)[0, place]
            codes.append(
                instance_codes[instance_codes.any(1)]
            )  # a model may have no code for an instance that is not an object
        if not sum(len(rows) for rows in codes):
            present = ", ".join(self.names[i] for i in sorted(set(whole["inst_class"].tolist())))
            which = "no instance" if not codes else "no single instance with a style (--style_inst tells them apart)"
            raise UserError(f"--style_image {opt.style_image}: {which} of '{self.names[chosen]}'. It has: {present}")
        return torch.cat(codes).cpu()

    # --- pictures --------------------------------------------------------------------------------------------------
    def edit(self, scene: Scene, names: list[Path], strip: Path) -> None:
        """Write every frame of a scene, and a strip if there are several; print what was done."""
        regions = plan_regions(scene.mask, self.opt.crop_size)
        height, width = scene.label.shape
        print(f"{scene.name}: {width}x{height}, {100 * scene.mask.mean():.1f} % generated, {len(regions)} region(s)")
        for k, region in enumerate(regions, start=1):
            places = ", ".join(f"{w.side} px at ({w.left}, {w.top})" for w in region.windows)
            print(f"  region {k}: {int(region.mask.sum())} pixels, window(s) {places}")
        cells, digests = [], set()  # results of large pictures are written and freed one by one
        for frame, path in zip(self.frames, names, strict=True):
            result = self.paint(scene, regions, frame, tell=frame is self.frames[0])
            save_png(result, path)
            digests.add(hashlib.sha1(result.data, usedforsecurity=False).digest())
            cells.append(shrunk(result, STRIP_SIDE))
        print(f"  -> {', '.join(map(str, names))}")
        if len(cells) == 1:
            return
        if len(digests) == 1:
            print(
                "  note: all results are the same: no instance that has a style is fully erased, or only one is known"
            )
        erased = scene.image.copy()
        erased[scene.mask] = GREY
        labels = colour_labels(nearest(scene.label, *cells[0].shape[:2]), self.classes.palette)
        row = [shrunk(erased, STRIP_SIDE), labels, *cells]
        if width > WIDE * height:
            save_png(picture_grid([[picture] for picture in row]), strip)
        else:
            save_png(picture_grid([row], titles=["input", "labels", *(frame.title for frame in self.frames)]), strip)
        print(f"  -> {strip}")

    def paint(self, scene: Scene, regions: list[Region], frame: Frame, *, tell: bool) -> np.ndarray:
        opt = self.opt
        drawn: Counter[str] = Counter()

        def generate(batch: Batch, number: int) -> Tensor:
            def seed(draw: int) -> int:
                return derive_seed(opt.seed, "edit", scene.name, draw, number)

            if frame.source is not None:
                self.model.bank = StrictSource(frame.source(seed), self.names, drawn)
            with autocast(self.device, opt.precision):
                return self.model.generate(to_device(batch, self.device), [seed(frame.draw)]).float().cpu()

        result = self.painter.paint(scene, regions, generate)
        if tell and frame.source is not None:
            shown = ", ".join(f"{name} ({count})" for name, count in drawn.items()) or NOTHING_DRAWN
            print(f"  styles drawn: {shown}")
        if tell and opt.style_class is not None and not drawn[self.names[class_id(opt.style_class, self.names, "")]]:
            print(f"  note: no {opt.style_class} is fully erased: the reference had no influence")
        return result


def output_paths(opt: Opt, scenes: list[SceneFiles], count: int) -> list[tuple[list[Path], Path]]:
    """Return the files of each scene: O.png, O_2.png, ... and O_strip.png; raises `UserError` if two coincide."""
    output, folder = Path(opt.output), Path(opt.image).is_dir()
    if folder and output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file; --image is a folder, so give a folder")
    planned = []
    for files in scenes:
        first = output / f"{files.record.name}.png" if folder else output
        more = [first.with_name(f"{first.stem}_{k}.png") for k in range(2, count + 1)]
        planned.append(([first, *more], first.with_name(f"{first.stem}_strip.png")))
    every = [path for names, strip in planned for path in (*names, strip)]
    twice = next((path for path in every if every.count(path) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} would be written for two pictures; rename one of them in --image")
    return planned


def main(argv: list[str] | None = None) -> int:
    opt = EditOptions().parse(argv)
    folder = Path(opt.output) if Path(opt.image).is_dir() else Path(opt.output).parent
    require_writable(folder, "--output")
    if MODELS.get(opt.model).flow == "analogy":
        return edit_analogy(opt)
    scenes = pair_files({name: getattr(opt, name) for name in ("image", "label", "inst", "mask")})
    session = Session(opt)
    for files, (names, strip) in zip(scenes, output_paths(opt, scenes, len(session.frames)), strict=True):
        session.edit(session.scene(files), names, strip)
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
