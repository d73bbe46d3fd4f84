"""Edit pictures with a trained run: `python scripts/edit.py --name RUN --image I.png --label L.png --inst N.png
--mask M.png --output O.png`.

Also adds, removes, moves and replaces objects and extends pictures; docs/editing.md shows every command.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import numpy as np

from data.edit.changes import box_shape, scaled_shape
from data.edit.masks import WHITE, MaskRule
from data.edit.objects import numbered_overlay, object_table, scene_objects
from data.edit.scenes import NO_FILE, Margin, Scene, SceneFiles, load_scene, pair_files
from data.masks import inverted_note
from data.records import Record
from data.transforms import nearest
from models import MODELS
from models.style_sources import Frame
from options.edit_options import REFERENCE, EditOptions, mask_rule
from semedit.editor import Editor
from semedit.styles import Style, StyleReference
from testing.analogy_edit import edit as edit_analogy
from util.errors import EXIT_OK, UserError, run_main
from util.files import require_writable
from util.images import colour_labels, picture_grid, read_map, save_png
from util.opt import Opt
from util.pictures import shrunk
from util.regions import plan_regions

GREY = 128  # of erased pixels in a strip
NOTHING_DRAWN = "none, nothing that has a style is fully erased"
STRIP_SIDE = 2048  # pixels, the longest side of a picture in a strip
WIDE = 2  # pictures wider than this times their height are stacked in a strip


def read_scene(editor: Editor, files: SceneFiles, margin: Margin | None = None, rule: MaskRule = WHITE) -> Scene:
    """Read a scene; one without a label map gets its maps from the segmenter, which is said."""
    labeller = editor.labeller if files.record.label is NO_FILE else None
    scene = load_scene(files, editor.rules, margin, rule, labelling=labeller)
    if labeller is not None:
        print(f"{scene.name}: {labeller.found(scene.maps)}")
    return scene


def changed_scene(editor: Editor, opt: Opt, files: SceneFiles) -> Scene:
    """Read a scene and make the changes that the flags ask for."""
    margin, maps = margin_of(opt, files.record), editor.map_editor(opt.dilate)
    scene = read_scene(editor, files, margin, mask_rule(opt))
    for note in scene.notes:
        print(f"note: {note}")
    if files.mask is not None and (note := inverted_note(scene.mask.mean(), f"--mask {files.mask}")):
        print(f"note: {note}")
    if opt.remove is not None:
        scene = maps.remove(scene, opt.remove)
    if opt.move is not None:
        scene = maps.move(scene, *opt.move)
    if opt.replace_class:
        old, new = (editor.class_id(text, "--replace_class") for text in opt.replace_class)
        scene = maps.replace_class(scene, old, new)
    if opt.add_object is not None:
        added = editor.class_id(opt.add_object, "--add_object")
        scene = maps.add_object(scene, added, object_shape(opt, editor, scene.label.shape))
    if margin is not None and not scene.extended:
        scene = maps.extend(scene, margin, opt.extend_labels)
    if not scene.mask.any():
        source = files.mask or f"{scene.name}: no pixel is changed"
        raise UserError(f"{source}: the mask is empty, so there is nothing to generate (white: generate)")
    return scene


def list_objects(editor: Editor, files: SceneFiles, output: Path) -> None:
    """Print what a scene shows, and write the picture with the ids of its instances."""
    scene = read_scene(editor, files)
    objects = scene_objects(scene, editor.names)
    print(f"{scene.name}: {len(objects)} instances", *object_table(objects), sep="\n  ")
    save_png(numbered_overlay(scene, objects, editor.classes.palette), output)
    print(f"  -> {output}")


def margin_of(opt: Opt, record: Record) -> Margin | None:
    """Return how far the picture is extended."""
    if opt.outpaint:
        return Margin(opt.outpaint[0], int(opt.outpaint[1]))
    return None if opt.panorama is None else Margin.to_width(record.image, opt.panorama)


def object_shape(opt: Opt, editor: Editor, size: tuple[int, ...]) -> np.ndarray:
    """Return where the added object is, (H, W) booleans."""
    if opt.add_from is None:
        return box_shape(size, opt.box, opt.add_shape or "ellipse")
    path, number = opt.add_from
    other = read_map(path, "instance map", rgb_ids=editor.rules.inst_rgb)
    return scaled_shape(size, opt.box, other, number, f"--add_from {path}:{number}")


def planned_frames(editor: Editor, opt: Opt) -> list[Frame]:
    """Return the results to make of each picture: draws, or steps between two styles."""
    asked = [
        name for name in ("style_source", "style_code", *REFERENCE, "interpolate") if getattr(opt, name) is not None
    ]
    if editor.bank is None and asked:
        raise UserError(f"--{asked[0]}: --model {opt.model} of this run draws no style codes; leave the flag out")
    style: Style = opt.style_code or ("mean" if opt.style_source == "mean" else "bank")
    if opt.style_image is not None and opt.style_class is not None:
        style = StyleReference(opt.style_class, opt.style_image, opt.style_label, opt.style_inst)
    count, flag = opt.interpolate or opt.num_samples, "--style_code" if opt.style_code else "--style_class"
    return editor.frames(count, editor.source(style, flag), interpolate=opt.interpolate is not None)


def edit(editor: Editor, opt: Opt, scene: Scene, frames: list[Frame], names: list[Path], strip: Path) -> None:
    """Write every frame of a scene, and a strip if there are several; print what was done."""
    regions = plan_regions(scene.mask, opt.crop_size)
    height, width = scene.label.shape
    print(f"{scene.name}: {width}x{height}, {100 * scene.mask.mean():.1f} % generated, {len(regions)} region(s)")
    for k, region in enumerate(regions, start=1):
        places = ", ".join(f"{w.side} px at ({w.left}, {w.top})" for w in region.windows)
        print(f"  region {k}: {int(region.mask.sum())} pixels, window(s) {places}")
    cells: list[np.ndarray] = []
    digests = set()  # results of large pictures are written and freed one by one
    for result, path in zip(editor.paint(scene, frames, opt.seed), names, strict=True):
        if not cells and editor.bank is not None:
            print_styles(opt, editor, result.drawn)
        save_png(result.picture, path)
        digests.add(hashlib.sha1(result.picture.data, usedforsecurity=False).digest())
        cells.append(shrunk(result.picture, STRIP_SIDE))
    print(f"  -> {', '.join(map(str, names))}")
    if len(cells) == 1:
        return
    if len(digests) == 1:
        print("  note: all results are the same: no instance that has a style is fully erased, or only one is known")
    erased = scene.image.copy()
    erased[scene.mask] = GREY
    labels = colour_labels(nearest(scene.label, *cells[0].shape[:2]), editor.classes.palette)
    row = [shrunk(erased, STRIP_SIDE), labels, *cells]
    if width > WIDE * height:
        save_png(picture_grid([[picture] for picture in row]), strip)
    else:
        save_png(picture_grid([row], titles=["input", "labels", *(frame.title for frame in frames)]), strip)
    print(f"  -> {strip}")


def print_styles(opt: Opt, editor: Editor, drawn: Counter[str]) -> None:
    """Say for which classes a style was drawn, and whether the reference or the codes asked for were of use."""
    shown = ", ".join(f"{name} ({count})" for name, count in drawn.items()) or NOTHING_DRAWN
    print(f"  styles drawn: {shown}")
    what, asked = ("code", [*opt.style_code]) if opt.style_code else ("reference", [opt.style_class])
    for name in asked:
        if name is not None and not drawn[editor.names[editor.class_id(name, "--style_class")]]:
            print(f"  note: no {name} is fully erased: the {what} had no influence")


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
    editor = Editor(opt)
    if opt.list_objects:
        for files, (names, _) in zip(scenes, output_paths(opt, scenes, 1), strict=True):
            list_objects(editor, files, names[0])
        return EXIT_OK
    frames = planned_frames(editor, opt)
    for files, (names, strip) in zip(scenes, output_paths(opt, scenes, len(frames)), strict=True):
        edit(editor, opt, changed_scene(editor, opt, files), frames, names, strip)
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
