"""The contents of a data set on disk: names, files, classes, and the rules for its maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data.label_colours import LabelColours
from util.class_table import ClassTable
from util.errors import DataError, UserError
from util.images import default_palette
from util.listing import files_by_name
from util.object_rules import ANY_ASPECT, DEFAULT_FILL, ObjectRule
from util.text_files import parse_json

CLASSES_FILE = "classes.json"  # of a data set, and of a run
MOST_CLASSES = 1 << 16
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Record:
    """The files of one picture; `inst` is None where the data set has no instance maps."""

    name: str
    image: Path
    label: Path
    inst: Path | None


@dataclass
class Maps:
    """One decoded picture: image (H, W, 3) uint8 RGB, label and inst (H, W) ids; inst None means: the label."""

    image: np.ndarray
    label: np.ndarray
    inst: np.ndarray | None


@dataclass(frozen=True)
class MapRules:
    """What the maps may hold.

    Args:
        label_nc: ids 0..label_nc-1 are classes.
        ignore_label: one more id that is allowed, inside the classes or outside.
        label_map: ids to replace, before anything is checked.
        inst_rgb: instance maps are colour files whose whole colour is the id.
        inst_8bit: 8-bit instance maps are accepted.
        inst_zero_is_none: id 0 means "no instance": such pixels take their label as id.
        first_instance: smaller ids are of regions, never of single things, whatever their label.
        label_colours: label maps are colour files, and these are the classes' colours.
    """

    label_nc: int
    ignore_label: int | None = None
    label_map: Mapping[int, int] = field(default_factory=dict)
    inst_rgb: bool = False
    inst_8bit: bool = False
    inst_zero_is_none: bool = False
    first_instance: int = 0
    label_colours: LabelColours | None = None

    def map_labels(self, label: np.ndarray) -> np.ndarray:
        """Replace ids by `label_map`, all at once (3:4 and 4:3 swap)."""
        mapped = label.copy() if self.label_map else label
        for old, new in self.label_map.items():
            mapped[label == old] = new
        return mapped

    def own_ids(self, inst: np.ndarray | None, label: np.ndarray) -> np.ndarray:
        """Return instance ids in which every pixel without an instance has its label as id."""
        if inst is None:
            return label
        return np.where(inst == 0, label, inst) if self.inst_zero_is_none else inst

    def region_ids(self, inst_id: np.ndarray, inst_class: np.ndarray) -> np.ndarray:
        """Return the ids (I,) of a picture's instances in which those of regions are their classes (I,)."""
        return np.where(inst_id < self.first_instance, inst_class, inst_id)


def parse_label_map(text: str | None) -> dict[int, int]:
    """Return {255: 0, 3: 4} of "255:0,3:4"; raises `UserError` naming the flag."""
    pairs = {}
    for part in filter(None, (text or "").split(",")):
        old, colon, new = part.partition(":")
        if not (colon and old.strip().isdecimal() and new.strip().isdecimal()):
            raise UserError(f"--label_map: '{part}' is not OLD:NEW; write for example --label_map 255:0,3:4")
        pairs[int(old)] = int(new)
    return pairs


def read_class_table(path: Path) -> ClassTable | None:
    """Return the table of a classes.json, None if there is none; raises `DataError` as `parse_class_table` does."""
    if not path.is_file():
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: not a class table ({type(error).__name__}: {error})") from error
    return parse_class_table(content, str(path))


def parse_class_table(content: bytes, source: str) -> ClassTable:
    """Return the table of a classes.json's content; `source` is its path or address, for messages.

    The file holds {"num_classes": n, "ignore_id": id or null, "objects": [id, ...],
    "classes": [{"id", "name", "color": [r, g, b], "thing", "object": {"fill", "aspect": [low, high]}, "scene_id"}]};
    only num_classes, id and name must be there. Raises `DataError` if it cannot be used.
    """
    try:
        table = parse_json(content)
        count = int(table["num_classes"])
        entries = {int(entry["id"]): entry for entry in table["classes"]}
        if not 0 < count <= MOST_CLASSES or min(entries, default=0) < 0:
            raise ValueError(f"num_classes is 1 to {MOST_CLASSES}, an id 0 or more")
        names = tuple(str(entries[i]["name"]) if i in entries else f"class {i}" for i in range(count))
        palette = default_palette(count)
        for i, entry in entries.items():
            if i < count and "color" in entry:
                palette[i] = entry["color"]
        things = frozenset(i for i, entry in entries.items() if entry.get("thing"))
        ignore = table.get("ignore_id")
        objects = _read_rules(entries, table.get("objects"), count)
        from_scenes = [i for i in sorted(entries) if "scene_id" in entries[i]]
        if from_scenes != list(range(len(from_scenes))):  # "outside", the last one, has none
            raise ValueError(f"class {from_scenes[0]} has a scene_id and one before it has none")
        scene_ids = tuple(int(entries[i]["scene_id"]) for i in from_scenes)
        return ClassTable(names, palette, things, None if ignore is None else int(ignore), objects, scene_ids)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise DataError(f"{source}: not a class table ({problem}); see datasets/README.md") from error


def _read_rules(entries: Mapping[int, Any], order: Any, count: int) -> tuple[ObjectRule, ...]:
    """Return the rules of the classes that have an "object", in the order of the list of ids, else by id."""
    described = sorted(i for i, entry in entries.items() if entry.get("object") is not None)
    order = described if order is None else [int(i) for i in order]
    if left := sorted(set(described) - set(order)):
        raise ValueError(f"class {left[0]} has an object rule and is not in the list of objects")
    rules = []
    for i in order:
        rule = entries[i].get("object") or {}
        low, high = map(float, rule.get("aspect", ANY_ASPECT))
        fill = float(rule.get("fill", DEFAULT_FILL))
        if not (0 <= fill < 1 and 0 <= low < high and i < count):
            raise ValueError(f"object rule of class {i}: fill in [0, 1), aspect [low, high] and an id below {count}")
        rules.append(ObjectRule(i, fill, (low, high)))
    if len({rule.label for rule in rules}) < len(rules):
        raise ValueError("a class stands twice in the list of objects")
    return tuple(rules)


def first_problem(problems: Sequence[str], *, all_shown_by: str = "") -> str:
    """Return the first problem, how many more there are, and the command that shows all."""
    shown = f": {all_shown_by} shows all" if all_shown_by else ""
    return problems[0] + (f" ({len(problems) - 1} more problems{shown})" if len(problems) > 1 else "")


def find_records(folder: Path) -> tuple[list[Record], list[str]]:
    """Pair the files of <folder>/{images,labels,inst_map}/ by base name, sorted by name; inst_map/ may be absent.

    Returns:
        The complete records, and every problem found in the pairing.

    Raises:
        DataError: the folder, images/ or labels/ does not exist, or there are no pictures.
    """
    for part in (folder, folder / "images", folder / "labels"):
        if not part.is_dir():
            root = folder.parent
            near = sorted(p.name for p in root.iterdir() if (p / "images").is_dir()) if root.is_dir() else []
            hint = f" Splits there: {', '.join(near)}." if near else ""
            raise DataError(f"{part} does not exist; --dataroot needs <split>/images and <split>/labels.{hint}")
    problems: list[str] = []
    images = files_by_name(folder / "images", PICTURE_ENDINGS, problems)
    kinds = [kind for kind in ("labels", "inst_map") if (folder / kind).is_dir()]
    partners = {kind: files_by_name(folder / kind, (".png",), problems) for kind in kinds}
    if not images:
        raise DataError(f"{folder / 'images'} holds no .jpg, .jpeg or .png file")
    records = []
    for name, image in images.items():
        missing = [kind for kind, files in partners.items() if name not in files]
        problems += [f"{image}: {folder / kind / (name + '.png')} is missing" for kind in missing]
        if not missing:
            records.append(Record(name, image, partners["labels"][name], partners.get("inst_map", {}).get(name)))
    strays = [path for files in partners.values() for name, path in files.items() if name not in images]
    return records, problems + [f"{path}: no picture of this name in images/" for path in strays]
