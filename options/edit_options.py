"""Flags of scripts/edit.py. The architecture and the data rules come from the run's opt.yaml."""

from __future__ import annotations

import argparse
from pathlib import Path

from data.edit.masks import MaskRule
from data.edit.scenes import SIDES
from data.label_colours import LabelColours
from data.records import read_class_table
from metrics.segments.segmenters import LOADING_FLAGS
from options.parser import StrictParser
from options.run_options import RunOptions
from util.errors import UserError
from util.flags import weight
from util.opt import Opt
from util.shared_flags import add_shared

CHANGES = ("add_object", "remove", "move", "replace_class", "outpaint", "panorama")
REFERENCE = ("style_image", "style_label", "style_inst", "style_class")


def parse_box(text: str) -> tuple[int, int, int, int]:
    """Return (x0, y0, x1, y1) of "x0,y0,x1,y1"."""
    try:
        x0, y0, x1, y1 = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not x0,y0,x1,y1 in pixels") from None
    return x0, y0, x1, y1


def parse_classes(text: str) -> tuple[str, str]:
    """Return ("tree", "building") of "tree:building"."""
    old, _, new = text.partition(":")
    if not (old and new):
        raise argparse.ArgumentTypeError(f"'{text}' is not OLD:NEW, as in tree:building")
    return old, new


def parse_instance(text: str) -> tuple[str, int]:
    """Return ("maps/a.png", 6001) of "maps/a.png:6001"."""
    path, _, number = text.rpartition(":")
    if not (path and number.isdecimal()):
        raise argparse.ArgumentTypeError(f"'{text}' is not INST.png:ID, as in maps/a.png:6001")
    return path, int(number)


def parse_move(text: str) -> tuple[int, int, int]:
    """Return (6004, 20, -3) of "6004:20,-3"."""
    try:
        number, way = text.split(":")
        right, down = map(int, way.split(","))
        return int(number), right, down
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not ID:RIGHT,DOWN in pixels, as in 6004:20,-3") from None


def parse_codes(text: str) -> dict[str, int]:
    """Return {"car": 3, "tree": 0} of "car:3,tree:0"."""
    codes = {}
    for part in text.split(","):
        name, _, number = part.rpartition(":")
        if not name or not number.isdecimal() or name in codes:
            raise argparse.ArgumentTypeError(f"'{text}' is not CLASS:NUMBER,..., each class once, as in car:3,tree:0")
        codes[name] = int(number)
    return codes


def add_palette_flags(group: argparse._ActionsContainer) -> None:
    """Add the flags of label maps that are painted in colours."""
    group.add_argument("--palette", metavar="FILE", help="classes.json in whose colours the label maps are painted")
    group.add_argument("--color_tolerance", type=weight, metavar="N",
                       help="with --palette: a colour counts as the nearest class's up to this distance")  # fmt: skip


def label_colours(opt: Opt) -> LabelColours | None:
    """Return the colours of --palette; raises `UserError` if there is no such file."""
    if opt.palette is None:
        return None
    if (table := read_class_table(Path(opt.palette))) is None:
        raise UserError(f"--palette {opt.palette}: no such file; it is a classes.json (see datasets/README.md)")
    return LabelColours.of(table, opt.palette, opt.color_tolerance or 0)


def add_segmenter_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the network that makes label and instance maps."""
    group = parser.add_argument_group("labels of pictures that have none")
    for flag in LOADING_FLAGS:
        group.add_argument(f"--{flag.name}", **flag.settings)
    group.add_argument("--segmenter_rename", metavar="THEIRS:OURS,...",
                       help="classes that the segmenter calls otherwise, as in wall:building,rider:person")  # fmt: skip


def mask_rule(opt: Opt) -> MaskRule:
    """Return how --mask is read."""
    return MaskRule(opt.mask_threshold, opt.invert_mask, opt.resize_mask)


class EditOptions(RunOptions):
    """Options of scripts/edit.py."""

    description = (
        "Edit pictures with a trained run: generate what a mask erases, or add, remove, replace and extend "
        "(docs/editing.md shows each)."
    )

    def add_flags(self, parser: StrictParser) -> None:
        super().add_flags(parser)
        group = parser.add_argument_group("files: single ones, or folders paired by base name")
        group.add_argument("--image", metavar="I", help="picture")
        group.add_argument("--label", metavar="L",
                           help="label map, edited already where --mask erases; or --segmenter makes one")  # fmt: skip
        add_palette_flags(group)
        group.add_argument("--inst", metavar="N", help="instance map; without it, each class is one instance")
        group.add_argument("--mask", metavar="M", help="white: generate. With changes below: in addition to theirs")
        group.add_argument("--mask_threshold", type=int, default=128, metavar="LEVEL",
                           help="grey levels of --mask from this on are white, 1 to 255")  # fmt: skip
        group.add_argument("--invert_mask", action=argparse.BooleanOptionalAction, default=False,
                           help="generate what is black in --mask")  # fmt: skip
        group.add_argument("--resize_mask", action=argparse.BooleanOptionalAction, default=False,
                           help="scale a --mask of another size than its picture")  # fmt: skip
        add_shared(group, "output", help="O.png, or a folder where --image is one")

        add_segmenter_flags(parser)

        group = parser.add_argument_group("changes that make maps and mask themselves")
        group.add_argument("--add_object", metavar="CLASS", help="put an object of this class into --box")
        group.add_argument("--box", type=parse_box, metavar="x0,y0,x1,y1", help="pixels, x1 and y1 not included")
        group.add_argument(
            "--add_shape", choices=("ellipse", "rectangle"), help="shape of the object; default: ellipse"
        )
        group.add_argument("--add_from", type=parse_instance, metavar="INST.png:ID",
                           help="shape of this instance of another instance map, stretched into --box")  # fmt: skip
        group.add_argument("--list_objects", action=argparse.BooleanOptionalAction, default=False,
                           help="change nothing: print id, class, box and share of every instance, and write "
                           "a picture with their ids to --output")  # fmt: skip
        group.add_argument("--remove", type=int, metavar="ID", help="take this instance away; its neighbours fill in")
        group.add_argument("--move", type=parse_move, metavar="ID:RIGHT,DOWN",
                           help="move this instance by so many pixels, as it is; negative: left, up")  # fmt: skip
        group.add_argument(
            "--replace_class", type=parse_classes, metavar="OLD:NEW", help="change a class, as in tree:building"
        )
        group.add_argument("--dilate", type=int, metavar="PIXELS",
                           help="grow the mask beyond what was changed; 3 %% of --crop_size if not given")  # fmt: skip
        group.add_argument("--outpaint", nargs=2, metavar=("SIDE", "N"),
                           help=f"N more pixels on one side: {', '.join(SIDES)}")  # fmt: skip
        group.add_argument("--panorama", type=int, metavar="WIDTH", help="extend to the right to this width")
        group.add_argument(
            "--extend_labels", choices=("mirror", "repeat"),
            help="how the maps go on in an extended picture, unless --label and --inst have its size already; "
            "mirror to the left and right, repeat upwards and downwards if not given",
        )  # fmt: skip

        group = parser.add_argument_group("styles of what is fully erased")
        add_shared(group, "num_samples")
        group.add_argument("--interpolate", type=int, metavar="K", help="K steps between two styles, as a strip")
        add_shared(group, "style_source", choices=("bank", "reference", "mean"), default=None,
                   help="bank, or reference with --style_image, if not given")  # fmt: skip
        group.add_argument("--style_code", type=parse_codes, metavar="CLASS:NUMBER,...",
                           help="codes of the style bank by number, from 0 on, as in car:3,tree:0")  # fmt: skip
        add_shared(group, "style_image", metavar="R", help="take the style of --style_class from this picture")
        group.add_argument("--style_label", metavar="RL", help="label map of --style_image")
        group.add_argument("--style_inst", metavar="RN", help="instance map of --style_image")
        group.add_argument("--style_class", metavar="CLASS", help="class that takes its style from --style_image")

    def validate(self, opt: Opt) -> None:
        super().validate(opt)
        for name in ("image", "output"):
            if getattr(opt, name) is None:
                raise UserError(f"--{name} is missing (see docs/editing.md)")
        self._validate_labels(opt)
        if not opt.list_objects and opt.mask is None and all(getattr(opt, name) is None for name in CHANGES):
            raise UserError(f"nothing to do: give --mask, or one of --{', --'.join(CHANGES)}")
        if not 1 <= opt.mask_threshold <= 255:
            raise UserError(f"--mask_threshold {opt.mask_threshold}: a grey level from 1 to 255")
        self._validate_changes(opt)
        self._validate_styles(opt)
        if not Path(opt.image).is_dir() and Path(opt.output).suffix.lower() != ".png":
            raise UserError(f"--output {opt.output}: write a .png, which keeps every known pixel as it is")
        if Path(opt.output).resolve() == Path(opt.image).resolve():
            raise UserError(f"--output {opt.output} would overwrite --image; give another name")

    def _validate_labels(self, opt: Opt) -> None:
        if opt.label is None and (not opt.segmenter or self.model.flow == "analogy"):
            way_out = "" if self.model.flow == "analogy" else ", or let --segmenter make it"
            raise UserError(f"--label is missing: give the label map of --image{way_out} (see docs/editing.md)")
        if opt.label is None and opt.inst is not None:
            raise UserError("--inst without --label: --segmenter makes both maps, so leave --inst out or give --label")
        makes_labels = opt.label is None or (opt.style_image is not None and opt.style_label is None)
        if opt.segmenter and not makes_labels:
            raise UserError(f"--segmenter {opt.segmenter} makes what --label gives: leave one of the two out")
        if opt.palette is not None and opt.label is None and opt.style_label is None:
            raise UserError(f"--palette {opt.palette}: --segmenter makes ids, no colours; leave it out or give --label")
        if opt.color_tolerance is not None and opt.palette is None:
            raise UserError(f"--color_tolerance {opt.color_tolerance:g} needs --palette")
        lone = [f for f in ("segmenter_weights", "segmenter_classes", "segmenter_rename", "trust") if getattr(opt, f)]
        if lone and not opt.segmenter:
            raise UserError(f"--{lone[0]} needs --segmenter")

    @staticmethod
    def _validate_changes(opt: Opt) -> None:
        if (opt.add_object is None) != (opt.box is None):
            raise UserError("--add_object CLASS and --box x0,y0,x1,y1 belong together")
        if opt.add_object is None and (opt.add_from or opt.add_shape):
            raise UserError("--add_from and --add_shape need --add_object CLASS and --box")
        if opt.add_from and opt.add_shape:
            raise UserError("--add_from brings its own shape: leave --add_shape out")
        if opt.outpaint and opt.panorama:
            raise UserError("--panorama WIDTH is --outpaint right up to a width: give one of the two")
        if opt.extend_labels and not (opt.outpaint or opt.panorama):
            raise UserError(f"--extend_labels {opt.extend_labels} needs --outpaint or --panorama")
        if opt.dilate is not None and opt.dilate < 0:
            raise UserError(f"--dilate {opt.dilate} is negative")
        if opt.outpaint:
            side, pixels = opt.outpaint
            if side not in SIDES or not pixels.isdecimal() or int(pixels) < 1:
                raise UserError(f"--outpaint {side} {pixels}: give a side ({', '.join(SIDES)}) and a number of pixels")

    @staticmethod
    def _validate_styles(opt: Opt) -> None:
        if opt.interpolate is not None and opt.interpolate < 2:
            raise UserError(f"--interpolate {opt.interpolate}: at least 2 steps, the two ends")
        if opt.interpolate and opt.num_samples > 1:
            raise UserError("--interpolate and --num_samples make different strips: give one of the two")
        given = [name for name in REFERENCE if getattr(opt, name) is not None]
        needed = ("style_image", *([] if opt.segmenter else ["style_label"]), "style_class")
        missing = [name for name in needed if getattr(opt, name) is None]
        if given and missing:
            raise UserError(f"--{given[0]} needs --{missing[0]} too")
        if opt.style_source == "reference" and not given:
            raise UserError("--style_source reference needs --style_image, --style_label and --style_class")
        if given and opt.style_source not in (None, "reference"):
            raise UserError(f"--style_source {opt.style_source} does not use --style_image: leave one of them out")
        if opt.style_code and (given or opt.style_source not in (None, "bank")):
            other = f"--{given[0]}" if given else f"--style_source {opt.style_source}"
            raise UserError(f"--style_code names codes of the style bank, {other} others: leave one of them out")
        if opt.interpolate and opt.style_source == "mean":
            raise UserError("--style_source mean has a single style per class: --interpolate has no two ends")
