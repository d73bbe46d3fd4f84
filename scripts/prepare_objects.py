"""Cut single objects out of the scenes of a data set: what SIEDOB's object networks train on (--dataset_mode objects).

    python scripts/prepare_objects.py --dataset_mode camvid --dataroot datasets/camvid --output datasets/camvid_objects
    python scripts/prepare_objects.py --dataset_mode streets --load_size 256 --output datasets/streets_objects

The classes.json of the scenes, or --foreground car:0.6,person:0.35:2:6 (class, least
share of its box, least and highest height / width), say which are objects, as in the scene models. Boxes have a
margin of 2 pixels of a 256 picture. Pixels come from <split>/images2048/ if it exists (any whole multiple of the
maps' size), bilinear, JPEG quality 95; masks are nearest. Run again to continue after an interruption; a split that is
done is not cut again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import numpy as np
import torch

from data import DATASETS, scene_dataset
from data.base_dataset import BaseDataset
from data.instances import dense_instances
from data.object_crops import class_folder, with_outside
from data.objects_dataset import ObjectsDataset
from data.packed import is_url
from data.prepare.crops import cut_image, cut_mask, open_picture
from data.prepare.cutting import Outcome, crop_files, read_finished, write_finished
from data.prepare.writing import claim_output, run_jobs, save_picture, write_class_table
from data.records import MapRules, Maps
from data.sampling import Sampling
from models.networks.siedob.crops import Objects, find_objects
from options.base_options import add_data_flags
from options.parser import StrictParser, script_parser
from util.class_table import ClassTable
from util.errors import EXIT_OK, DataError, UserError, run_main
from util.flags import natural, positive_int
from util.images import picture_grid, save_png, to_uint8
from util.object_rules import ObjectRule, parse_rules
from util.opt import Opt

JPEG_QUALITY = 95
AUTHORS_LEAST = 1000  # crops per class with which the authors trained
NO_CLASS, LINE, FILL, ASPECT, VANISHES = (
    "of other classes", "one pixel high or wide", "fill too little of their box", "too flat or too high",
    "too thin for the crop",
)  # fmt: skip
SHEET = "contact_sheet.png"
SHEET_ROWS, SHEET_COLUMNS = 2, 12  # per class


@dataclass(frozen=True)
class Plan:
    """How the scenes of a split are cut; hashable and picklable."""

    options: tuple[tuple[str, Any], ...]
    split: str
    rules: tuple[ObjectRule, ...]
    folders: tuple[Path, ...]  # one per rule, of the split
    size: int


# --- one scene --------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=1)
def open_scenes(options: tuple[tuple[str, Any], ...], split: str) -> BaseDataset:
    torch.set_num_threads(1)  # a process does one scene at a time, too small for several
    opt = Opt(**dict(options))
    return DATASETS.get(opt.dataset_mode).from_options(opt, split=split, augment=False, task="none")


def cut_scene(job: tuple[Plan, int]) -> Outcome:
    """Write the crops of one scene that are not there yet."""
    plan, index = job
    scenes = open_scenes(plan.options, plan.split)
    name, maps = scenes.names[index], scenes.maps(index)
    if maps.inst is None:
        raise UserError(
            f"{name}: no instance map, and objects are cut by instances; scripts/prepare_folder.py takes them (--inst) "
            "or makes them (--derive_instances)"
        )
    outcome = Outcome()
    objects = select(scenes, maps, plan.rules, outcome.dropped)
    image: np.ndarray | None = None
    kept = 0
    for i in objects.number.argsort().tolist():  # by instance id: the counter in the names
        slot, box = int(objects.slot[i]), objects.box[i].tolist()
        width = plan.size // 2 if plan.rules[slot].aspect[0] >= 2 else plan.size  # as the authors' persons
        mask = cut_mask(objects.where[i].numpy(), box, plan.size, width)
        if not mask.any():
            outcome.dropped[slot, VANISHES] += 1
            continue
        crop = f"{plan.folders[slot].parent.name}_{name}_{kept:02d}"
        kept += 1
        outcome.crops.setdefault(slot, []).append(crop)
        files = crop_files(plan.folders[slot], crop)
        if all(path.is_file() for path in files):
            continue
        if image is None:
            image, source = open_picture(scenes, index, maps)
            outcome.sources[source] += 1
        factor = image.shape[0] // maps.label.shape[0]
        save_picture(
            files[0], cut_image(image, [factor * side for side in box], plan.size, width), quality=JPEG_QUALITY
        )
        save_picture(files[1], mask * np.uint8(255))
    return outcome


def select(
    scenes: BaseDataset, maps: Maps, rules: Sequence[ObjectRule], dropped: Counter[tuple[int | None, str]]
) -> Objects:
    """Return the objects of a scene whose class is the majority of their pixels, and count what is dropped."""
    dense, inst_id, inst_class = dense_instances(scenes.rules.own_ids(maps.inst, maps.label), maps.label)
    inst_id = scenes.rules.region_ids(inst_id, inst_class)
    label, inst, ids = (torch.from_numpy(x.astype(np.int64))[None] for x in (maps.label, dense, inst_id))
    everywhere = torch.ones(1, 1, *maps.label.shape)
    objects = find_objects(label, inst, ids, everywhere, rules=rules)
    objects = subset(objects, objects.label == torch.from_numpy(inst_class)[objects.number])
    shapeless = [ObjectRule(rule.label, fill=0.0, aspect=(0.0, float("inf"))) for rule in rules]
    boxed = find_objects(label, inst, ids, everywhere, rules=shapeless)
    boxed_numbers, kept = boxed.number.tolist(), set(objects.number.tolist())
    slots = {rule.label: slot for slot, rule in enumerate(rules)}
    for number, (own_id, own_class) in enumerate(zip(inst_id.tolist(), inst_class.tolist(), strict=True)):
        if number in kept or own_id == own_class:  # an object, or stuff
            continue
        slot = slots.get(own_class)
        if slot is None:
            why = NO_CLASS
        elif number not in boxed_numbers:
            why = LINE
        else:
            k = boxed_numbers.index(number)
            top, bottom, left, right = boxed.box[k].tolist()
            why = FILL if boxed.where[k].sum() <= rules[slot].fill * (bottom - top) * (right - left) else ASPECT
        dropped[slot, why] += 1
    return objects


def subset(objects: Objects, keep: torch.Tensor) -> Objects:
    return Objects(**{name: values[keep] for name, values in vars(objects).items()})


# --- all scenes -------------------------------------------------------------------------------------------------------
def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Return the options, and those of them that decide what the crops are."""
    probe = StrictParser(add_help=False)
    probe.add_argument("--dataset_mode", default="streets")
    mode = scene_dataset(probe.parse_known_args(arguments)[0].dataset_mode)
    parser = script_parser(__doc__)
    add_data_flags(parser)
    group = parser.add_argument_group("objects")
    group.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    group.add_argument("--splits", nargs="+", default=["train", "test"], help="splits of the scenes")
    group.add_argument("--size", type=positive_int, default=64, help="pixels of the square crops")
    group.add_argument("--foreground", metavar="CLASS,...", help="classes with their rules; default: by data set")
    group.add_argument("--min_crops", type=natural, default=50,
                       help="a class with fewer in the first split is left to the background")  # fmt: skip
    group.add_argument("--num_workers", type=natural, default=min(8, os.cpu_count() or 1), help="processes; 0: none")
    parser.set_defaults(load_size=0)
    shared = set(parser.actions_by_name())
    mode.modify_commandline_options(parser, is_train=True)
    opt = parser.parse_args(arguments)
    opt.cache = "none"  # every scene is read once
    vars(opt).update(mode.complete_options(opt))
    table = mode.class_table(opt.dataroot).resized(opt.label_nc)
    described = table.foreground
    opt.rules = (
        parse_rules(opt.foreground, list(table.names), described, "--foreground") if opt.foreground else described
    )
    if not opt.rules:
        raise UserError(
            f"--dataset_mode {opt.dataset_mode}: no class is a thing; say which are objects by --foreground"
        )
    if bad := [rule.label for rule in opt.rules if rule.label >= len(table.names)]:
        raise UserError(f"--foreground: no class {bad[0]}; the scenes have {len(table.names)} classes")
    opt.table = table
    own = set(parser.actions_by_name()) - shared
    names = {"dataset_mode", "load_size", "label_map", "label_nc", "ignore_label", "size", *own}
    settings = {name: getattr(opt, name) for name in sorted(names)}
    root = opt.dataroot
    if root and not is_url(root):
        root = str(Path(root).resolve())
    return opt, {**settings, "dataroot": root, "rules": [str(rule) for rule in opt.rules]}


def cut_split(opt: argparse.Namespace, split: str) -> Outcome:
    """Cut the scenes of a split unless that is done; raises `DataError` if its folders hold crops of another run."""
    outside = ("rules", "table", "output", "splits", "foreground")
    options = tuple(sorted((k, v) for k, v in vars(opt).items() if k not in outside))
    folders = tuple(opt.output / class_folder(opt.table.names[rule.label]) / split for rule in opt.rules)
    plan = Plan(options, split, opt.rules, folders, opt.size)
    scenes, record = open_scenes(options, split).names, opt.output / f"finished_{split}.json"
    total = finished = read_finished(record, scenes, folders)
    if total is None:
        total, jobs = Outcome(), [(plan, index) for index in range(len(scenes))]
        for outcome in run_jobs(cut_scene, jobs, num_workers=opt.num_workers, title=split):
            total.add(outcome)
    else:
        print(f"{split}: all {len(scenes)} scenes are cut already; to look at them again, remove {record}")
    for slot, folder in enumerate(folders):
        crops = set(total.crops.get(slot, []))
        for kind in ("images", "inst_mask"):
            others = sorted(path for path in (folder / kind).glob("[!.]*") if path.stem not in crops)
            if others:
                raise DataError(f"{others[0]} and {len(others) - 1} more are of another run; clear {opt.output}")
    if finished is None:
        write_finished(record, total, scenes)
    return total


def object_classes(opt: argparse.Namespace, counts: Sequence[int]) -> ClassTable:
    """Return the classes with enough crops, as ids 0, 1, ... of the objects; says which are left out."""
    kept = []
    for rule, count in zip(opt.rules, counts, strict=True):
        name = opt.table.names[rule.label]
        if count < max(opt.min_crops, 1):
            print(f"note: {name} has {count} crops of '{opt.splits[0]}', fewer than --min_crops {opt.min_crops}: it is "
                  "left out of classes.json, and the scene models draw it as background")  # fmt: skip
            continue
        if count < AUTHORS_LEAST:
            print(f"note: {name} has {count} crops; the authors trained with at least {AUTHORS_LEAST}")
        kept.append(rule)
    if not kept:
        raise UserError(f"no class has --min_crops {opt.min_crops} crops; give a smaller number, or other --foreground")
    labels = [rule.label for rule in kept]
    return ClassTable(
        tuple(opt.table.names[label] for label in labels), opt.table.palette[labels], frozenset(range(len(kept))),
        objects=tuple(ObjectRule(i, rule.fill, rule.aspect) for i, rule in enumerate(kept)), scene_ids=tuple(labels),
    )  # fmt: skip


def print_report(opt: argparse.Namespace, outcomes: dict[str, Outcome]) -> None:
    """Print crops per class and split, what was dropped and why, and where the pixels are from."""
    names = [opt.table.names[rule.label] for rule in opt.rules]
    print(f"\n{'crops':<20}" + "".join(f"{split:>10}" for split in outcomes))
    for slot, name in enumerate(names):
        print(f"{name:<20}" + "".join(f"{len(o.crops.get(slot, [])):>10}" for o in outcomes.values()))
    print("dropped instances")
    for dropped in sorted({key for o in outcomes.values() for key in o.dropped}, key=str):
        place, why = dropped
        subject = "" if place is None else f"{names[place]}: "
        print(f"  {subject + why:<40}" + "".join(f"{o.dropped[dropped]:>8}" for o in outcomes.values()))
    for split, outcome in outcomes.items():
        for source, count in outcome.sources.items():
            print(f"{split}: pixels of {count} scenes from {source}")
        if not outcome.sources:
            print(f"{split}: no crop was left to cut")


def contact_sheet(opt: argparse.Namespace, table: ClassTable) -> np.ndarray:
    """Return crops of every class, evenly from the first split, as the networks get them."""
    crops = ObjectsDataset(
        dataroot=str(opt.output), split=opt.splits[0], table=table, rules=MapRules(len(with_outside(table).names)),
        sampling=Sampling(crop_size=opt.size, load_size=opt.size, augment=False, task="none"),
    )  # fmt: skip
    rows = []
    for members in crops.of_class:
        places = np.unique(np.linspace(0, len(members) - 1, SHEET_ROWS * SHEET_COLUMNS).astype(int))
        pictures = [to_uint8(crops[members[place]]["image"]) for place in places]
        rows += [pictures[i : i + SHEET_COLUMNS] for i in range(0, len(pictures), SHEET_COLUMNS)]
    return picture_grid(rows, min_cell=64)


def main(arguments: Sequence[str] | None = None) -> int:
    opt, settings = parse(arguments)
    claim_output(opt.output, "prepare_objects.py", settings)
    outcomes = {split: cut_split(opt, split) for split in opt.splits}
    print_report(opt, outcomes)
    first = outcomes[opt.splits[0]]
    table = object_classes(opt, [len(first.crops.get(slot, [])) for slot in range(len(opt.rules))])
    write_class_table(opt.output, table)
    save_png(contact_sheet(opt, table), opt.output / SHEET)
    print(f"look at: {opt.output / SHEET}, rows of {', '.join(table.names)}")
    print(f"use: --dataset_mode objects --dataroot {opt.output} --crop_size {opt.size}")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
