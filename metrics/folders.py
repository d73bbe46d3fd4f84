"""Folders of any pictures: listed, paired by base name, decoded strictly, in worker processes.

A picture must be 8-bit RGB, grey or palette and opaque; anything that needs guessing (16 bit, alpha, other sizes, NaN)
is an error that names the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from metrics.pictures import Pictures
from util.decode import NamedBytes, decode, read_regular
from util.errors import DataError
from util.images import read_binary, read_map
from util.listing import entries

LOSSY = (".jpg", ".jpeg", ".webp")  # ids and masks do not survive these
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def list_pictures(folder: str, flag: str) -> tuple[dict[str, Path], dict[str, str]]:
    """Return {base name: path} of a folder, not recursive, and {name: problem} of names that two files share.

    Hidden files (a leading dot) are skipped; `other_entries` lists everything else that is not read. Unlike
    `util.listing.files_by_name` it takes neither of two files of one name: a metric would have to guess which is meant.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    path = Path(folder)
    if not path.is_dir():
        raise DataError(f"{flag} {folder}: no such folder")
    files = [file for file in entries(path) if _is_picture(file)]
    if not files:
        inner = next((d for d in sorted(path.iterdir()) if d.is_dir()), None)
        hint = f"; it has folders, such as {inner}: name one of them" if inner else ""
        raise DataError(f"{flag} {folder}: no pictures ({', '.join(EXTENSIONS)}){hint}")
    by_name: dict[str, Path] = {}
    problems = {}
    for file in files:
        if file.stem in by_name:
            problems[file.stem] = f"{flag}: {by_name[file.stem].name} and {file.name} share the name {file.stem}"
        by_name[file.stem] = file
    return {name: file for name, file in by_name.items() if name not in problems}, problems


def other_entries(folder: str) -> list[str]:
    """Return the entries that are not read: other files, and folders with a slash; hidden ones are left out."""
    others = [entry for entry in entries(Path(folder)) if not _is_picture(entry)]
    return [f"{entry.name}/" if entry.is_dir() else entry.name for entry in others]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not path.is_dir()


def read_exact(path: Path) -> tuple[np.ndarray, str]:
    """Return (H,W,3) uint8 RGB and the SHA-1 of the file; raises `DataError` for any other kind of picture."""
    data = read_regular(path, "picture")
    picture, stored = decode(NamedBytes(data, str(path)), "picture")
    if picture.mode.startswith(("I", "F")) or ";16" in stored:  # Pillow cuts 16-bit colours to 8
        values = np.asarray(picture)
        what = "NaN or infinite values" if not np.isfinite(values).all() else "more than 8 bit per channel"
        raise DataError(f"{path}: {what}; save it as 8 bit")
    if "A" in picture.mode or "transparency" in picture.info:
        alpha = np.asarray(picture.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            raise DataError(f"{path}: transparent pixels; compose it on what should show behind it")
    if picture.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "1"):
        raise DataError(f"{path}: mode {picture.mode}; convert it to RGB")
    return np.asarray(picture.convert("RGB")), hashlib.sha1(data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Item:
    """Files of one name; `fake` holds a path per draw."""

    name: str
    fake: Sequence[Path]
    real: Path | None
    mask: Path | None = None
    label: Path | None = None
    inst: Path | None = None


@dataclass(frozen=True)
class Loaded:
    """A decoded item: draws (K,3,H,W) and real (3,H,W) uint8, mask (1,H,W) uint8, label and inst (H,W) int64.

    `hashes` are of the picture files; `problem` says what is wrong, if anything: then
    there are no pictures.
    """

    name: str
    draws: Tensor | None = None
    real: Tensor | None = None
    mask: Tensor | None = None
    label: Tensor | None = None
    inst: Tensor | None = None
    hashes: Mapping[str, str] | None = None
    problem: str | None = None


class Items(Dataset[Loaded]):
    """Decodes items; problems are returned, not raised, so that the reader may skip and count them.

    Args:
        label_nc, ignore_label: labels must lie in 0..label_nc - 1 or be ignored; None: not checked.
        smallest_side: pixels that the metrics need.
        side: pictures and maps are scaled to this short side; None: left as they are.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        label_nc: int | None = None,
        ignore_label: int | None = None,
        smallest_side: int = 1,
        side: int | None = None,
    ) -> None:
        self.items, self.label_nc, self.ignore_label = list(items), label_nc, ignore_label
        self.smallest_side, self.side = smallest_side, side

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Loaded:
        item = self.items[index]
        try:
            return self._load(item)
        except DataError as error:
            return Loaded(item.name, problem=str(error))

    def _load(self, item: Item) -> Loaded:
        fakes = [(scaled(picture, self.side), digest) for picture, digest in map(read_exact, item.fake)]
        for path in (item.mask, item.label, item.inst):
            if path is not None and path.suffix.lower() in LOSSY:
                raise DataError(f"{path}: a lossy format changes ids and the mask's border; save maps as PNG")
        real, real_hash = read_exact(item.real) if item.real else (None, "")
        real = None if real is None else scaled(real, self.side)
        mask = None if item.mask is None else scaled(read_binary(item.mask), self.side)
        label, inst = (
            None if path is None else scaled(read_map(path, what), self.side)
            for path, what in ((item.label, "label map"), (item.inst, "instance map"))
        )
        arrays = [*zip(item.fake, (fake for fake, _ in fakes), strict=True)]
        arrays += [(path, a) for path, a in ((item.mask, mask), (item.label, label), (item.inst, inst))
                   if path is not None and a is not None]  # fmt: skip
        for path, array in arrays:
            if real is not None and array.shape[:2] != real.shape[:2]:
                sizes = "{}x{}, {} is {}x{}".format(*array.shape[1::-1], item.real, *real.shape[1::-1])
                raise DataError(f"{path} is {sizes}; pairs must have one size, and are not resized here")
        for path, array in arrays:
            if min(array.shape[:2]) < self.smallest_side:
                size = "{}x{}".format(*array.shape[1::-1])
                raise DataError(f"{path} is {size}; SSIM or LPIPS needs at least {self.smallest_side} pixels a side")
        self._check(item, label)
        return Loaded(
            name=item.name,
            draws=torch.from_numpy(np.stack([fake for fake, _ in fakes])).movedim(-1, 1) if fakes else None,
            real=None if real is None else torch.from_numpy(real.copy()).movedim(-1, 0),
            mask=None if mask is None else torch.from_numpy((mask > 0).astype(np.uint8))[None],
            label=None if label is None else torch.from_numpy(label.astype(np.int64)),
            inst=None if inst is None else torch.from_numpy(inst.astype(np.int64)),
            hashes={"fake": " ".join(h for _, h in fakes), "real": real_hash},
        )

    def _check(self, item: Item, label: np.ndarray | None) -> None:
        if label is None or self.label_nc is None:
            return
        outside = (label < 0) | (label >= self.label_nc)
        if self.ignore_label is not None:
            outside &= label != self.ignore_label
        if outside.any():
            id_outside = int(label[outside][0])
            raise DataError(f"{item.label}: label {id_outside} lies outside 0..{self.label_nc - 1}; leave it out with "
                            "--ignore_label ID, or correct --label_nc")  # fmt: skip


def scaled(array: np.ndarray, side: int | None) -> np.ndarray:
    """Scale a picture (H,W,3) uint8 (bicubic, antialiased) or a map (H,W) of ids (nearest) to a short side."""
    if side is None or min(array.shape[:2]) == side:
        return array
    factor = side / min(array.shape[:2])
    size = tuple(max(side, round(length * factor)) for length in array.shape[1::-1])
    if array.ndim == 3:
        return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BICUBIC))
    return np.asarray(Image.fromarray(array.astype(np.int32), "I").resize(size, Image.Resampling.NEAREST))


def batches(loaded: Sequence[Loaded], *, has_truth: bool = True) -> list[Pictures]:
    """Stack decoded pairs by size; `has_truth` as of `Pictures`."""
    sizes: dict[tuple[int, ...], list[Loaded]] = {}
    for one in loaded:
        if one.real is not None:
            sizes.setdefault(tuple(one.real.shape), []).append(one)
    return [_stack(group, has_truth) for group in sizes.values()]


def _stack(group: Sequence[Loaded], has_truth: bool) -> Pictures:
    def stacked(what: str) -> Tensor | None:
        parts = [getattr(one, what) for one in group]
        return None if parts[0] is None else torch.stack(parts)

    draws, real = stacked("draws"), stacked("real")
    assert draws is not None and real is not None
    return Pictures(
        fake=draws[:, 0],
        real=real,
        mask=stacked("mask"),
        label=stacked("label"),
        name=[one.name for one in group],
        has_truth=has_truth,
        inst=stacked("inst"),
        draws=draws,
    )
