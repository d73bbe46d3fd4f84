"""One picture to be edited, with its maps and its mask, at its stored size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.checks import check_sample, read_inst, read_label, size_problem
from data.edit.masks import WHITE, MaskRule, read_drawn_mask
from data.records import PICTURE_ENDINGS, MapRules, Maps, Record, first_problem
from util.decode import rotation_note
from util.errors import DataError, UserError
from util.images import read_image
from util.listing import files_by_name

SIDES = ("left", "right", "up", "down")
NO_FILE = Path("label")  # of a label map that comes from no file
Labelling = Callable[[np.ndarray], Maps]  # makes the maps of a picture (H, W, 3) uint8


@dataclass
class Scene:
    """image (H, W, 3) uint8; label, inst (H, W) int32, `inst` with every pixel's own id; mask (H, W) booleans."""

    name: str
    image: np.ndarray
    label: np.ndarray
    inst: np.ndarray
    mask: np.ndarray
    extended: bool = False  # by a `Margin`, which is then part of it
    notes: tuple[str, ...] = ()  # what was done to the files when they were read

    @property
    def maps(self) -> Maps:
        """Picture, label and instance map."""
        return Maps(self.image, self.label, self.inst)


@dataclass(frozen=True)
class SceneFiles:
    """The files of one scene; `inst` and `mask` may be missing."""

    record: Record
    mask: Path | None


@dataclass(frozen=True)
class Margin:
    """`pixels` more columns or rows on one of `SIDES`."""

    side: str
    pixels: int

    @classmethod
    def to_width(cls, image: Path, width: int) -> Margin:
        """Return what is missing on the right of a picture; raises `UserError` if it is already that wide."""
        present = read_image(image).shape[1]
        if width <= present:
            raise UserError(f"--panorama {width}: {image} is {present} pixels wide already; give a larger width")
        return cls("right", width - present)

    def pads(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows (above, below) and columns (left, right) to add."""
        n = self.pixels
        return {
            "left": ((0, 0), (n, 0)),
            "right": ((0, 0), (0, n)),
            "up": ((n, 0), (0, 0)),
            "down": ((0, n), (0, 0)),
        }[self.side]


def pair_files(flags: Mapping[str, str | None]) -> list[SceneFiles]:
    """Return the scenes that `image`, `label`, `inst` and `mask` name: a file each, or folders paired by base name.

    Without `label`, the records have `NO_FILE`.

    Raises:
        UserError: a path that does not exist, files and folders mixed, or a picture without its counterpart.
    """
    paths = {flag: Path(text) for flag, text in flags.items() if text is not None}
    for flag, path in paths.items():
        if not path.exists():
            raise UserError(f"--{flag} {path}: no such file or folder")
    kinds = {flag: path.is_dir() for flag, path in paths.items()}
    if len(set(kinds.values())) > 1:
        folders = ", ".join(f"--{flag}" for flag, is_folder in kinds.items() if is_folder)
        raise UserError(f"{folders} is a folder, the others are files: give files alone or folders alone")
    if not kinds["image"]:
        record = Record(paths["image"].stem, paths["image"], paths.get("label", NO_FILE), paths.get("inst"))
        return [SceneFiles(record, paths.get("mask"))]
    problems: list[str] = []
    files_of = {
        flag: files_by_name(path, PICTURE_ENDINGS if flag == "image" else (".png",), problems)
        for flag, path in paths.items()
    }
    if not files_of["image"]:
        raise UserError(f"--image {paths['image']} holds no .jpg, .jpeg or .png file")
    for flag, files in files_of.items():
        missing = [name for name in files_of["image"] if name not in files]
        problems += [f"--{flag} {paths[flag] / name}.png is missing" for name in missing]
        extra = [path for name, path in files.items() if name not in files_of["image"]]
        problems += [f"--{flag} {path}: no picture of this name in --image" for path in extra]
    if problems:
        raise UserError(first_problem(problems))
    labels, insts, masks = (files_of.get(flag, {}) for flag in ("label", "inst", "mask"))
    return [
        SceneFiles(Record(name, image, labels.get(name, NO_FILE), insts.get(name)), masks.get(name))
        for name, image in files_of["image"].items()
    ]


def load_scene(
    files: SceneFiles, rules: MapRules, margin: Margin | None = None, mask_rule: MaskRule = WHITE, *,
    labelling: Labelling | None = None,
) -> Scene:  # fmt: skip
    """Read and check a scene by the rules of a data set.

    Args:
        files: of the scene; without a mask nothing is erased.
        rules: what the maps may hold.
        mask_rule: how the mask is read.
        margin: the picture will be extended by this: maps that have the extended size already are accepted, and then
            the margin is part of the scene, erased.
        labelling: makes the maps instead of their files.

    Raises:
        DataError: a file that cannot be read, sizes that differ, ids outside the classes.
    """
    record = files.record
    image, bits = read_image(record.image), None
    if labelling is not None:
        maps = labelling(image)
    else:
        inst = read_inst(record, rules)
        bits = None if inst is None else inst.bits
        maps = Maps(image, read_label(record, rules), None if inst is None else inst.ids)
    mask, notes = None, list(filter(None, [rotation_note(record.image)]))
    if files.mask is not None:
        mask, more = read_drawn_mask(files.mask, image.shape[:2], mask_rule)
        notes += more
    return make_scene(record, maps, mask, rules, margin, mask_file=files.mask or Path(), inst_bits=bits, notes=notes)


def make_scene(
    record: Record, maps: Maps, mask: np.ndarray | None, rules: MapRules, margin: Margin | None = None, *,
    mask_file: Path = Path("mask"), inst_bits: int | None = None, notes: Sequence[str] = (),
) -> Scene:  # fmt: skip
    """Check a picture with its maps by the rules of a data set; errors and `margin` as of `load_scene`.

    Args:
        record: where they come from, for messages.
        maps: as stored; without an instance map each class is one instance.
        mask: (H, W), what is erased; None for nothing.
        rules: what the maps may hold.
        mask_file: the mask's file, for messages.
        inst_bits: bit depth of the instance map's file, None if it comes from none.
        notes: what was done to the files when they were read.
    """
    image, label = maps.image, rules.map_labels(maps.label)
    if mask is None:
        mask = np.zeros(image.shape[:2], bool)
    if mask.shape != image.shape[:2]:
        raise DataError(size_problem("mask", mask_file, mask, record.image, image))
    extended = margin is not None and label.shape != image.shape[:2]
    if margin is not None and extended:
        image, mask = widen(image, margin), np.pad(mask, margin.pads(), constant_values=True)
    problems = check_sample(record, rules, Maps(image, label, maps.inst), inst_bits=inst_bits)
    if problems:
        added = f" (the {margin.pixels} pixels added {margin.side} included)" if margin and extended else ""
        raise DataError(problems[0] + added)
    return Scene(record.name, image, label, rules.own_ids(maps.inst, label), mask, extended, tuple(notes))


def widen(image: np.ndarray, margin: Margin) -> np.ndarray:
    """Add a margin to a picture (H, W, 3), filled with its border pixels."""
    return np.pad(image, (*margin.pads(), (0, 0)), mode="edge")
