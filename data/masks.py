"""Masks: what is to be generated (1) and what is kept (0), from `dataset.py` of SPMPGAN's release.

Every function returns (size, size) or (H, W) uint8 in {0, 1}. R is a `random.Random`, NP a `numpy.random.RandomState`;
the order of their draws is that of the release, so that its seeds give its masks at 256 pixels. At other sizes the
pixel constants are multiplied by size / 256.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from util.errors import DataError, UserError
from util.images import read_binary
from util.listing import entries
from util.regions import bounding_box
from util.registry import did_you_mean

MASK_TYPES = ("free_form", "extension", "outpainting", "class", "instance")  # in this order: type = index % 5
ADDITION, REMOVAL = OBJECT_TASKS = ("object_addition", "object_removal")  # `data/tasks.py`
TASKS = (*MASK_TYPES, *OBJECT_TASKS)
BOX_MARGIN, BOX_LEAST = 5, 400  # pixels of a 256 picture: around an instance's box; instances must be larger
FOLDER, NONE, TRAIN = "folder", "none", "train"  # masks from files; nothing erased; the types in turn or at random


def has_truth(task: str) -> bool:
    """Return whether the real pictures show what a task's labels ask for: not where an object is removed from these."""
    return task != REMOVAL


def real_title(task: str) -> str:
    """Return the title of the real pictures in a task's grid."""
    return "truth" if has_truth(task) else "original"


def parse_mask_types(text: str, known: tuple[str, ...] = MASK_TYPES) -> tuple[str, ...]:
    """Read "free_form,extension"; a type named twice comes twice as often. Raises `UserError`."""
    types = tuple(filter(None, map(str.strip, text.split(","))))
    for name in types:
        if name not in known:
            raise UserError(f"--mask_types: '{name}' is unknown.{did_you_mean(name, known)} Known: {', '.join(known)}")
    if not types:
        raise UserError(f"--mask_types is empty. Known: {', '.join(known)}")
    return types


@dataclass(frozen=True)
class Brush:
    """Limits of a brush, both included: how many steps it takes, and its width in pixels of a picture of `side`."""

    steps: tuple[int, int]
    widths: tuple[int, int]
    side: int


SCENE_BRUSH = Brush((4, 8), (50, 140), 256)
OBJECT_BRUSH = Brush((3, 6), (30, 60), 64)  # of SIEDOB's objects: instance_inpainting/dataset.py


def brush_strokes(
    R: Random, NP: np.random.RandomState, size: int, limits: Brush = SCENE_BRUSH
) -> tuple[list[tuple[int, int]], int]:
    """Draw the vertices (x, y) and the width, in pixels, of a brush stroke."""
    count = R.randint(*limits.steps)
    mean_angle, spread = 2 * math.pi / 5, 2 * math.pi / 15
    angle_min = mean_angle - R.uniform(0, spread)
    angle_max = mean_angle + R.uniform(0, spread)
    angles = []
    for i in range(count):
        angle = R.uniform(angle_min, angle_max)
        angles.append(2 * math.pi - angle if i % 2 == 0 else angle)
    radius = math.sqrt(2 * size**2) / 8
    # the release's floor of half the mean radius: 22 pixels of 256
    deviation = math.sqrt(2 * limits.side**2) / 8 // 2 * size / limits.side
    vertices = [(R.randint(0, size), R.randint(0, size))]
    for angle in angles:
        r = float(np.clip(NP.normal(loc=radius, scale=deviation), 0, 2 * radius))
        x = np.clip(vertices[-1][0] + r * math.cos(angle), 0, size)
        y = np.clip(vertices[-1][1] + r * math.sin(angle), 0, size)
        vertices.append((int(x), int(y)))
    width = int(R.uniform(*limits.widths) * size / limits.side)
    NP.normal()  # two flips that the release draws and throws away
    NP.normal()
    return vertices, width


def brush(R: Random, NP: np.random.RandomState, size: int, limits: Brush = SCENE_BRUSH) -> np.ndarray:
    """Free-form brush: a thick poly-line with round joints; it covers 24 % on average, 8 to 46 % in most cases."""
    vertices, width = brush_strokes(R, NP, size, limits)
    mask = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(mask)
    draw.line(vertices, fill=1, width=width)
    half = width // 2
    for x, y in vertices:
        draw.ellipse((x - half, y - half, x + half, y + half), fill=1)
    return np.array(mask)


def extension(size: int) -> np.ndarray:
    """Erase the right half."""
    mask = np.zeros((size, size), np.uint8)
    mask[:, size // 2 :] = 1
    return mask


def outpainting(R: Random, size: int) -> np.ndarray:
    """Erase all but a window of half the side, at a random place: 75 %."""
    low, high, side = round(32 * size / 256), round(96 * size / 256), size // 2
    left = R.randint(low, high)
    top = R.randint(low, high)
    mask = np.ones((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 0
    return mask


def class_mask(label: np.ndarray, chosen: int) -> np.ndarray:
    """Erase all pixels of one label."""
    return (label == chosen).astype(np.uint8)


def instance_box(inst: np.ndarray, chosen: int) -> np.ndarray:
    """Erase the bounding box of one instance, without its last row and column, as released."""
    rows, columns = np.nonzero(inst == chosen)
    mask = np.zeros(inst.shape, np.uint8)
    mask[rows.min() : rows.max(), columns.min() : columns.max()] = 1
    return mask


def strip(R: Random, size: int) -> np.ndarray:
    """Erase 15 to 65 % of the picture, from one of its four sides on (SIEDOB's `instance_inpainting/dataset.py`)."""
    mask = np.zeros((size, size), np.uint8)
    mask[: int(size * (R.random() / 2 + 0.15))] = 1
    return np.ascontiguousarray(np.rot90(mask, R.randrange(4)))


def thing_boxes(inst: np.ndarray, numbers: Iterable[int]) -> np.ndarray:
    """Erase the bounding boxes of the larger ones of some instances, with a margin (SIEDOB).

    Differs from SIEDOB's `background/dataset.py`, which never erases the last row and column of the picture, so that
    an object there shows through; here a box ends with the picture.
    """
    scale = inst.shape[0] / 256
    margin, least = round(BOX_MARGIN * scale), BOX_LEAST * scale**2
    mask = np.zeros(inst.shape, np.uint8)
    for number in numbers:
        where = inst == number
        if where.sum() > least:
            box = bounding_box(where)
            rows = slice(max(0, box.top - margin), box.bottom - 1 + margin)  # as the release: one less at the end
            mask[rows, max(0, box.left - margin) : box.right - 1 + margin] = 1
    return mask


def make_mask(
    task: str, R: Random, NP: np.random.RandomState, *, label: np.ndarray, inst: np.ndarray, chosen_label: int,
    chosen_inst: int | None,
) -> np.ndarray:  # fmt: skip
    """Return the mask of one of `MASK_TYPES` or "none" for a square cut.

    Args:
        label, inst: (size, size) ids.
        chosen_label: the class for "class".
        chosen_inst: the instance for "instance"; None gives a brush mask.
    """
    size = label.shape[0]
    if task == NONE:
        return np.zeros((size, size), np.uint8)
    if task == "extension":
        return extension(size)
    if task == "outpainting":
        return outpainting(R, size)
    if task == "class":
        return class_mask(label, chosen_label)
    if task == "instance" and chosen_inst is not None:
        return instance_box(inst, chosen_inst)
    return brush(R, NP, size)


MOST_ERASED = 0.5  # share of a picture that is usually left as it is


def mask_files(folder: str | Path, count: int) -> list[Path]:
    """Return the first `count` PNGs of a folder by name: mask i belongs to sample i, as released, whatever its name."""
    if not Path(folder).is_dir():
        raise UserError(f"--mask_dir {folder} is no folder")
    files = [path for path in entries(Path(folder)) if path.suffix == ".png"]
    if len(files) < count:
        raise DataError(f"--mask_dir {folder} holds {len(files)} PNG files, {count} samples need one each")
    return files[:count]


def read_mask(path: Path, size: int) -> np.ndarray:
    """Return `read_binary` of a file of this size; raises `DataError` for another."""
    mask = read_binary(path)
    if mask.shape != (size, size):
        raise DataError(f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]}, --crop_size asks for {size}x{size}")
    return mask


def inverted_note(share: float, where: str) -> str:
    """Return a note on masks that look inverted, by the share of pixels that they erase; empty for others."""
    if share <= MOST_ERASED:
        return ""
    generated = f"{100 * share:.1f} % of the pixels are to be generated (white: generate)"
    return f"{where}: {generated}; if that is not meant, it is inverted"


class MaskSetHash:
    """Twelve hex digits that name a set of masks: SHA-256 over each name and its packed bits, in order."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def update(self, name: str, mask: np.ndarray) -> None:
        """Add a mask (..., H, W) of 0 and 1, any numeric type."""
        bits = np.asarray(mask) > 0.5
        self._sha.update(f"{name}\0{bits.shape[-2]}x{bits.shape[-1]}\0".encode())
        self._sha.update(np.packbits(bits).tobytes())

    def hexdigest(self) -> str:
        """Return the twelve digits."""
        return self._sha.hexdigest()[:12]
