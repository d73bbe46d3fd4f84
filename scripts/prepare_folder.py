r"""Make a data set of --dataset_mode custom from your own pictures and label maps, whatever their names and endings.

    python scripts/prepare_folder.py --images photos --labels masks --label_suffix _labels --classes names.txt \
        --things car,person --derive_instances --output datasets/mine

Files belong together if their paths below --images, --labels and --inst are equal but for suffix and ending. Label
maps hold ids, one channel of 8 or 16 bit; instance maps ids or colours, written as 16 bit. Splits are drawn with a
seed (--ratios train=0.8,val=0.1,test=0.1) or come from lists of names (--list train=a.txt --list test=b.txt). The
short side becomes --short_side pixels: pictures LANCZOS, maps nearest. Run again to continue after an interruption.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import numpy as np

from data.instances import MOST_IDS, derived_ids
from data.label_colours import LabelColours, coloured_name, stored_palette
from data.prepare.data_set import write_data_set
from data.prepare.writing import Job, add_common_flags, target_files
from data.records import MOST_CLASSES, MapRules, parse_label_map, read_class_table
from data.transforms import scale_short_side
from options.parser import script_parser
from util.class_table import EMPTY_TABLE, ClassTable
from util.errors import EXIT_OK, DataError, UserError, run_main
from util.flags import weight
from util.images import default_palette, read_map
from util.listing import files_below
from util.progress import progress
from util.registry import did_you_mean

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MAPS = (".png", ".bmp", ".tif", ".tiff")


# --- files and splits -------------------------------------------------------------------------------------------------
def by_name(folder: Path, suffix: str, endings: tuple[str, ...], flag: str) -> dict[str, Path]:
    """Return the files below a folder by name: the path in it without suffix and ending, '/' as '_'."""
    if not folder.is_dir():
        raise UserError(f"--{flag} {folder} is not a folder")
    files: dict[str, Path] = {}
    for path in files_below(folder):
        inside = path.relative_to(folder)
        if path.suffix.lower() not in endings or not path.stem.endswith(suffix):
            continue
        name = "_".join([*inside.parts[:-1], path.stem.removesuffix(suffix)])
        if name in files:
            raise DataError(f"{path} and {files[name]} both have the name '{name}'; rename or remove one")
        files[name] = path
    if not files:
        after = f" ending in '{suffix}'" if suffix else ""
        raise UserError(f"--{flag} {folder} holds no {', '.join(endings)} file{after}")
    return files


def require(names: Sequence[str], files: Mapping[str, Path], flag: str, folder: Path) -> None:
    """Raise `DataError` if a picture has no map, or a map no picture."""
    for missing, what in ((sorted(set(names) - set(files)), "no file for"), (sorted(set(files) - set(names)), "")):
        if missing:
            shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            problem = f"holds {what} {shown}" if what else f"holds maps without a picture: {shown}"
            raise DataError(
                f"--{flag} {folder} {problem}; --image_suffix, --label_suffix, --inst_suffix join other names"
            )


def draw_splits(names: Sequence[str], ratios: str, seed: int) -> dict[str, list[str]]:
    """Shuffle the sorted names and cut them by "train=0.9,test=0.1"; raises `UserError` naming the flag."""
    shares: dict[str, float] = {}
    for part in ratios.split(","):
        split, equals, share = part.strip().partition("=")
        try:
            shares[split] = float(share)
        except ValueError:
            equals = ""
        if not (equals and split) or not 0 < shares[split] <= 1:
            raise UserError(f"--ratios: '{part}' is not SPLIT=SHARE; write for example train=0.9,test=0.1")
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise UserError(f"--ratios {ratios} add up to {sum(shares.values()):g}, not 1")
    order = sorted(names)
    Random(seed).shuffle(order)
    ends = np.round(np.cumsum(list(shares.values())) * len(order)).astype(int)
    starts = [0, *ends[:-1]]
    splits = {s: sorted(order[a:b]) for s, a, b in zip(shares, starts, ends, strict=True)}
    if empty := [split for split, members in splits.items() if not members]:
        raise UserError(f"--ratios {ratios}: {len(names)} pictures leave none for {', '.join(empty)}")
    return splits


def listed_splits(names: Sequence[str], lists: Sequence[str]) -> dict[str, list[str]]:
    """Read the splits from "train=FILE" texts: one name, or file name, per line; raises `UserError`."""
    splits: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for text in lists:
        split, equals, file = text.partition("=")
        if not (split and equals and Path(file).is_file()):
            raise UserError(f"--list {text}: write SPLIT=FILE, a file with one picture's name per line")
        lines = read_lines(Path(file), "--list")
        splits[split] = [line if line in names else line.rpartition(".")[0] for line in lines]
        for line, name in zip(lines, splits[split], strict=True):
            if name not in names:
                raise UserError(f"{file}: there is no picture '{line}'.{did_you_mean(line, names)}")
            if name in seen:
                raise UserError(f"{file}: '{line}' is listed twice, before in {seen[name]}")
            seen[name] = file
        if not lines:
            raise UserError(f"{file} is empty")
    if left := len(set(names) - set(seen)):
        print(f"note: {left} pictures are in no list and stay out")
    return splits


# --- classes ----------------------------------------------------------------------------------------------------------
def class_table(opt: argparse.Namespace, labels: Sequence[Path]) -> ClassTable:
    """Return the classes of --classes or --label_nc, or as many as the ids found in the label maps."""
    table, coloured = EMPTY_TABLE, False
    if opt.classes is not None:
        if not opt.classes.is_file():
            raise UserError(f"--classes {opt.classes}: no such file")
        if opt.classes.suffix == ".json":
            table, coloured = read_class_table(opt.classes) or table, True
        else:
            table, coloured = read_names(opt.classes)
    count = opt.label_nc or len(table.names) or highest_id(opt, labels) + 1
    if not (opt.label_nc or table.names) and count == 256:
        print("note: id 255 counts as a class here; if it means no class, start over with --ignore_label 255")
    table = table.resized(count)
    if not coloured and (stored := stored_palette(labels[0])) is not None:
        table.palette[: len(stored)] = stored[:count]
    things = table.things if opt.things is None else frozenset(parse_things(opt.things, table.names))
    ignore = table.ignore if opt.ignore_label is None else opt.ignore_label
    return ClassTable(table.names, table.palette, things, ignore)


def read_names(path: Path) -> tuple[ClassTable, bool]:
    """Read a text file with a class's name per line, id 0 first, each or none behind its colour: "128 64 128 road".

    Returns:
        The classes, and whether the file names their colours.
    """
    lines = read_lines(path, "--classes")
    if not 0 < len(lines) <= MOST_CLASSES:
        raise UserError(f"--classes {path}: {len(lines)} names; a data set has 1 to {MOST_CLASSES} classes")
    try:
        entries = [coloured_name(line) for line in lines]
    except ValueError as error:
        raise UserError(f"--classes {path}: {error}") from error
    names, colours = tuple(name for name, _ in entries), [colour for _, colour in entries if colour is not None]
    if colours and len(colours) < len(names):
        raise UserError(f"--classes {path}: {len(colours)} of {len(names)} classes have a colour; give all or none one")
    return ClassTable(names, np.array(colours, np.uint8) if colours else default_palette(len(names))), bool(colours)


def read_lines(path: Path, flag: str) -> list[str]:
    """Return the lines of a text file that are not blank; raises `UserError` unless it is UTF-8."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"{flag} {path}: no text in UTF-8 ({error.reason}, byte {error.start})") from error


def highest_id(opt: argparse.Namespace, labels: Sequence[Path]) -> int:
    """Find the ids of all label maps, without the ignored one."""
    rules = MapRules(label_nc=MOST_IDS, label_map=parse_label_map(opt.label_map))
    highest = 0
    for path in progress(labels, desc="counting classes", unit="map", leave=False):
        ids = rules.map_labels(read_map(path, "label map"))
        highest = max(highest, int(ids[ids != opt.ignore_label].max(initial=0)))
    return highest


def parse_things(text: str, names: Sequence[str]) -> list[int]:
    """Return the ids of a comma list of names or ids; raises `UserError`."""
    ids = []
    for part in filter(None, map(str.strip, text.split(","))):
        if part not in names and not (part.isdecimal() and int(part) < len(names)):
            raise UserError(f"--things: '{part}' is neither a class nor an id.{did_you_mean(part, names)}")
        ids.append(names.index(part) if part in names else int(part))
    return ids


# --- pictures ---------------------------------------------------------------------------------------------------------
def as_16_bit(inst: np.ndarray) -> np.ndarray:
    """Return ids as uint16: as they are where they fit, else numbered in ascending order."""
    if inst.max() >= MOST_IDS:
        inst = np.unique(inst, return_inverse=True)[1].reshape(inst.shape)
    return inst.astype(np.uint16)


def convert(
    table: ClassTable, label_map: str | None, label_colours: LabelColours | None, short_side: int, job: Job
) -> Mapping[str, np.ndarray]:
    """Return the parts of one picture; raises `DataError`, naming the flags that help, for ids beyond the classes."""
    rules = MapRules(
        label_nc=len(table.names), ignore_label=table.ignore, label_map=parse_label_map(label_map),
        inst_rgb=True, inst_8bit=True, label_colours=label_colours,
    )  # fmt: skip
    maps = scale_short_side(job.load(rules), short_side, name=job.name)
    wide = maps.label.max() > 255
    parts = {"images": maps.image, "labels": maps.label.astype(np.uint16 if wide else np.uint8)}
    if "inst_map" in job.targets:
        parts["inst_map"] = derived_ids(maps.label, table) if maps.inst is None else as_16_bit(maps.inst)
    return parts


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = script_parser(__doc__)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="pictures")
    parser.add_argument("--labels", type=Path, required=True, metavar="DIR", help="label maps")
    inst = parser.add_mutually_exclusive_group()
    inst.add_argument("--inst", type=Path, metavar="DIR", help="instance maps")
    inst.add_argument(
        "--derive_instances", action="store_true", help="connected components of --things, of 10 pixels or more"
    )
    for what in ("image", "label", "inst"):
        parser.add_argument(f"--{what}_suffix", default="", help="end of the file names, before the ending")
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="a classes.json, or per line a name, or 'R G B name'; default: ids"
    )
    parser.add_argument(
        "--label_colors", action="store_true", help="label maps are pictures in the colours of --classes (pix2pix)"
    )
    parser.add_argument(
        "--color_tolerance", type=weight, metavar="N",
        help="with --label_colors: colours count as the nearest class's up to this distance in RGB",
    )  # fmt: skip
    parser.add_argument("--label_nc", type=int, help="number of classes; default: by --classes, or the ids found")
    parser.add_argument("--things", help="comma list of classes that come in single things; default: by --classes")
    parser.add_argument("--ignore_label", type=int, help="label id without a class")
    parser.add_argument("--label_map", metavar="A:B,...", help="label ids to replace, as in 255:0,3:1")
    splits = parser.add_mutually_exclusive_group()
    splits.add_argument("--ratios", default="train=0.9,test=0.1", help="shares, drawn with --seed")
    splits.add_argument("--list", action="append", metavar="SPLIT=FILE", help="names of a split; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split by --ratios")
    parser.add_argument("--short_side", type=int, default=256, help="pixels; 0: sizes stay")
    parser.add_argument("--png", action="store_true", help="write pictures as PNG, without loss, instead of JPEG")
    add_common_flags(parser, output="datasets/custom")
    opt = parser.parse_args(arguments)
    if opt.derive_instances and opt.things is None and (opt.classes is None or opt.classes.suffix != ".json"):
        raise UserError("--derive_instances needs to know the things: --things car,person, or a classes.json")
    if opt.label_colors and opt.classes is None:
        raise UserError("--label_colors needs the colours: --classes FILE, a classes.json or lines such as 0 0 142 car")
    if opt.color_tolerance is not None and not opt.label_colors:
        raise UserError(f"--color_tolerance {opt.color_tolerance:g} needs --label_colors")
    if opt.short_side < 0 or (opt.label_nc is not None and opt.label_nc < 1):
        raise UserError("--short_side and --label_nc cannot be negative")
    return opt


def main(arguments: Sequence[str] | None = None) -> int:
    opt = parse(arguments)
    images = by_name(opt.images, opt.image_suffix, PICTURES, "images")
    labels = by_name(opt.labels, opt.label_suffix, PICTURES if opt.label_colors else MAPS, "labels")
    require(list(images), labels, "labels", opt.labels)
    insts = by_name(opt.inst, opt.inst_suffix, MAPS, "inst") if opt.inst else {}
    if insts:
        require(list(images), insts, "inst", opt.inst)
    names = list(images)
    splits = listed_splits(names, opt.list) if opt.list else draw_splits(names, opt.ratios, opt.seed)
    table = class_table(opt, list(labels.values()))
    colours = LabelColours.of(table, opt.classes, opt.color_tolerance or 0) if opt.label_colors else None
    kinds = ("images", "labels", *(["inst_map"] if insts or opt.derive_instances else []))
    jobs = [
        Job(name, images[name], labels[name], insts.get(name),
            target_files(opt.output / split, name, kinds, picture=".png" if opt.png else ".jpg"))
        for split, members in splits.items() for name in members
    ]  # fmt: skip
    settings: dict[str, Any] = {
        "splits": hashlib.sha256(repr(sorted(splits.items())).encode()).hexdigest()[:12], "kinds": list(kinds),
        "short_side": opt.short_side, "png": opt.png, "label_map": opt.label_map, "label_nc": len(table.names),
        "things": sorted(table.things), "ignore_label": table.ignore,
    }  # fmt: skip
    if colours is not None:
        settings |= {"label_colors": [list(colour) for colour in colours.palette], "tolerance": colours.tolerance}
    write_data_set(
        opt, jobs, partial(convert, table, opt.label_map, colours, opt.short_side),
        mode="custom", classes=table, script="prepare_folder.py", settings=settings, official={},
    )  # fmt: skip
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
