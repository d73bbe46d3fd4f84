"""What a folder of object crops holds: its classes and its crops (`data/objects_dataset.py`).

Layout: <dataroot>/classes.json, <dataroot>/<class>/<split>/images/<name>.jpg and inst_mask/<name>.png (0 and 255).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.records import CLASSES_FILE, PICTURE_ENDINGS, Record, first_problem, read_class_table
from util.class_table import ClassTable
from util.errors import DataError, UserError
from util.listing import files_by_name

OUTSIDE = "outside"  # name of the last label


def class_folder(name: str) -> str:
    """Return the folder of a class: its name with '_' for what may not be in file names."""
    return re.sub(r"[^\w.+-]+", "_", name)


def find_crops(root: Path, classes: Sequence[str], split: str, *, every_class: bool) -> list[tuple[Record, int]]:
    """Return all crops of a split with their classes; `label` of a record is its object mask.

    Args:
        root: the data folder.
        classes: names.
        split: a folder within each class's folder.
        every_class: a class without crops is an error.

    Raises:
        DataError: a folder or a partner is missing, or two crops have one name.
    """
    crops: list[tuple[Record, int]] = []
    for number, name in enumerate(classes):
        folder = root / class_folder(name) / split
        parts = (folder / "images", folder / "inst_mask")
        if not every_class and not folder.is_dir():
            continue
        if missing := [str(part) for part in parts if not part.is_dir()]:
            raise DataError(f"{missing[0]} does not exist; --dataroot needs <class>/<split>/images and inst_mask")
        problems: list[str] = []
        images, masks = files_by_name(parts[0], PICTURE_ENDINGS, problems), files_by_name(parts[1], (".png",), problems)
        lacking = [(stem, path) for stem, path in images.items() if stem not in masks]
        problems += [f"{path}: {parts[1] / (stem + '.png')} is missing" for stem, path in lacking]
        strays = [path for stem, path in masks.items() if stem not in images]
        problems += [f"{path}: no picture of this name in images/" for path in strays]
        if not images and every_class:
            problems.append(f"{parts[0]} holds no .jpg, .jpeg or .png file")
        if problems:
            raise DataError(first_problem(problems))
        prefix = class_folder(name) + "_"
        for stem, image in images.items():
            crop_name = stem if stem.startswith(prefix) else prefix + stem
            crops.append((Record(crop_name, image, masks[stem], None), number))
    if not crops:
        raise DataError(f"{root}: no class has crops for the split '{split}'")
    twice = [name for name, count in Counter(record.name for record, _ in crops).items() if count > 1]
    if twice:
        raise DataError(f"{root}: two crops of '{split}' are called {twice[0]}; rename one")
    return crops


def with_outside(table: ClassTable) -> ClassTable:
    """Append the class "outside", drawn in grey."""
    palette = np.concatenate([table.palette, np.full((1, 3), 128, np.uint8)])
    things = frozenset(range(len(table.names)))
    return ClassTable((*table.names, OUTSIDE), palette, things, None, table.objects, table.scene_ids)


def read_objects_table(dataroot: str | None) -> ClassTable:
    """Return the classes of <dataroot>/classes.json; raises `UserError` showing how to write one if there is none."""
    if not dataroot:
        raise UserError("--dataset_mode objects needs --dataroot DIR (scripts/prepare_objects.py makes one)")
    path = Path(dataroot) / CLASSES_FILE
    table = read_class_table(path)
    if table is not None and table.names:
        return table
    classes = sorted(p.name for p in Path(dataroot).glob("[!.]*") if list(p.glob("*/inst_mask"))) or ["car", "person"]
    entries = [{"id": i, "name": name, "scene_id": 0} for i, name in enumerate(classes)]
    example = json.dumps({"num_classes": len(entries), "classes": entries})
    raise UserError(
        f"{path} does not exist or names no class. scripts/prepare_objects.py writes it when done; for crops from "
        f"elsewhere write, in the order of the network's classes and with their label ids in the scenes: {example}"
    )
