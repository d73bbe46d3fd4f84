r"""Make label and instance maps of pictures that have none: by a segmentation network.

    python scripts/label.py --image photos --segmenter streets --output datasets/mine

Writes <output>/<split>/{images,labels,inst_map}/, which edit.py takes as --image, --label and --inst and train.py as a
data set (--dataset_mode custom --dataroot <output>), with <output>/classes.json; and <split>/overlays/ to look at, with
ids and names of classes. Instances are the connected components of things, of 10 pixels or more. Pictures are copied as
they are, WebP and BMP as PNG. Run again to continue after an interruption, or to add pictures.

edit.py --segmenter does the same in memory.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import numpy as np

from data.edit.changes import class_id
from data.edit.objects import label_overlay
from data.edit.scenes import Scene
from data.prepare.writing import claim_output, target_files, write_class_table
from data.records import PICTURE_ENDINGS, Maps, read_class_table
from metrics.segments.label_ids import parse_renamed
from metrics.segments.segmenter import Segmenter
from metrics.segments.segmenters import read_segmenter
from options.edit_options import add_segmenter_flags
from options.parser import script_parser
from semedit.labels import Labeller, classes_of
from util.class_table import ClassTable
from util.decode import read_regular, rotation_note
from util.device import resolve_device
from util.errors import EXIT_OK, UserError, run_main
from util.files import require_writable, write_bytes
from util.images import read_image, save_png
from util.opt import Opt
from util.pictures import find_pictures
from util.progress import progress
from util.shared_flags import add_shared

KINDS = ("images", "labels", "inst_map", "overlays")


class LabelOpt(Opt):
    """Options of this command."""

    classes: Path | None
    split: str


def parse(arguments: Sequence[str] | None) -> LabelOpt:
    parser = script_parser(__doc__)
    parser.add_argument("--image", required=True, metavar="DIR_OR_FILE", help="pictures, or one")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to make, or to add to")
    parser.add_argument("--split", default="train", help="the part of the data set that the pictures become")
    parser.add_argument(
        "--classes", type=Path, metavar="FILE",
        help="classes.json of a run or data set, whose ids the labels get; default: the segmenter's classes",
    )  # fmt: skip
    parser.add_argument("--things", help="comma list of classes that come in single things; default: by --classes")
    add_shared(parser, "checkpoints_dir", "device")
    add_segmenter_flags(parser)
    opt: LabelOpt = parser.parse_args(arguments)
    if not opt.segmenter:
        raise UserError("--segmenter is missing: which network tells the classes? (see docs/editing.md)")
    if not opt.split or Path(opt.split).name != opt.split:
        raise UserError(f"--split {opt.split!r}: the name of a folder, as in train or test")
    return opt


def class_table(opt: LabelOpt, segmenter: Segmenter) -> ClassTable:
    """Return the classes of --classes, or the segmenter's own, with the things that --things names."""
    if opt.classes is None:
        table = classes_of(segmenter, Path(opt.checkpoints_dir) / opt.segmenter)
    elif (known := read_class_table(opt.classes)) is None:
        raise UserError(f"--classes {opt.classes}: no such file; it is the classes.json of a run or data set")
    else:
        table = known
    if opt.things:
        named = [
            class_id(part.strip(), list(table.names), "--things") for part in opt.things.split(",") if part.strip()
        ]
        table = replace(table, things=frozenset(named))
    elif not table.things:
        print("note: no class is known to come in single things: each class is one instance (--things names some)")
    return table


def write(picture: Path, targets: Mapping[str, Path], labeller: Labeller) -> Maps:
    """Write the files of one picture, and return its maps."""
    image = read_image(picture)
    maps = labeller(image)
    assert maps.inst is not None
    if picture.suffix.lower() in PICTURE_ENDINGS:
        targets["images"].parent.mkdir(parents=True, exist_ok=True)
        write_bytes(targets["images"], read_regular(picture, "picture"), durable=False)
    else:
        save_png(image, targets["images"])
    wide = maps.label.max() > 255
    save_png(maps.label.astype(np.uint16 if wide else np.uint8), targets["labels"])
    save_png(maps.inst.astype(np.uint16), targets["inst_map"])
    scene = Scene(picture.stem, image, maps.label, maps.inst, np.zeros(maps.label.shape, bool))
    save_png(label_overlay(scene, labeller.classes.names, labeller.classes.palette), targets["overlays"])
    return maps


def main(arguments: Sequence[str] | None = None) -> int:
    opt = parse(arguments)
    pictures = find_pictures(opt.image, "--image")
    output = Path(opt.output)
    require_writable(output, "--output")
    segmenter = read_segmenter(opt, resolve_device(opt.device))
    table = class_table(opt, segmenter)
    labeller = Labeller(segmenter, table, renamed=parse_renamed(opt.segmenter_rename))
    of_classes = repr((table.names, table.palette.tolist(), sorted(table.things), table.ignore))
    settings = {
        "segmenter": segmenter.name, "sha256": segmenter.sha256, "segmenter_rename": opt.segmenter_rename,
        "classes": hashlib.sha256(of_classes.encode()).hexdigest()[:12], "things": sorted(table.things),
    }  # fmt: skip
    claim_output(output, "label.py", settings)
    write_class_table(output, table)
    folder = output / opt.split
    targets = {
        name: target_files(
            folder, name, KINDS, picture=path.suffix if path.suffix.lower() in PICTURE_ENDINGS else ".png"
        )
        for name, path in pictures.items()
    }
    todo = [name for name, files in targets.items() if not all(path.is_file() for path in files.values())]
    if len(todo) < len(pictures):
        print(f"{folder}: {len(pictures) - len(todo)} of {len(pictures)} are finished, going on")
    turned = [note for name in todo if (note := rotation_note(pictures[name]))]
    if turned:
        print(f"note: {turned[0]}" + (f" (and {len(turned) - 1} more pictures)" if len(turned) > 1 else ""))
    pixels: Counter[str] = Counter()
    for name in progress(todo, desc="labelling", unit="picture"):
        maps = write(pictures[name], targets[name], labeller)
        for number, count in zip(*np.unique(maps.label, return_counts=True), strict=True):
            pixels[table.names[number] if number < len(table.names) else "without a class"] += int(count)
    shares = ", ".join(f"{name} {100 * count / pixels.total():.1f} %" for name, count in pixels.most_common())
    print(f"{folder}: {len(todo)} pictures labelled by {segmenter.name}" + (f": {shares}" if shares else ""))
    print(f"look at {folder / 'overlays'}; edit: --label {folder / 'labels'} --inst {folder / 'inst_map'}; "
          f"train: --dataset_mode custom --dataroot {output}")  # fmt: skip
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
