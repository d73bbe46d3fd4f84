"""The files of a single-picture data set: a picture, its layout, and other layouts to render it for.

    <root>/img.<ext>      the picture
    <root>/label.<ext>    its layout, of the same size
    <root>/cond/<name>.*  target layouts, of the same size; results are named after them

A layout is a picture in which a class is a colour, or a map of class ids. Colours are distances in RGB, 0..255.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from util.decode import decode
from util.errors import DataError, UserError
from util.images import PictureFile, default_palette, read_map, rgb_of
from util.listing import entries

KINDS = ("colours", "ids")
MUCH_ALPHA = 0.02  # share of transparent pixels from which a picture is laid on white
SMALLEST_CLASS = 0.002  # share of a layout's pixels that makes a colour a class
FAR_COLOUR, FAR_PIXELS = 0.01, 0.05  # shares of a target: of one colour, of all colours, that may be near no class
MULTIPLE = 8  # pixels: what the networks halve three times
SMALLEST_SIDE = 32  # pixels


def find_picture(folder: Path, stem: str) -> Path:
    """Return `<folder>/<stem>.<any ending>`; raises `DataError` unless there is exactly one."""
    if not folder.is_dir():
        raise DataError(f"--dataroot {folder}: no such folder; it should hold img.*, label.* and cond/*")
    pictures = sorted(path for path in folder.glob(f"{stem}.*") if path.is_file())
    if not pictures:
        raise DataError(f"--dataroot {folder}: there is no {stem}.* (img.*, label.* and cond/* are needed)")
    if len(pictures) > 1:
        raise DataError(f"--dataroot {folder}: which is it? {', '.join(path.name for path in pictures)}; keep one")
    return pictures[0]


def find_targets(folder: Path) -> list[Path]:
    """Return the target layouts, by name; raises `DataError` if there are none or two of one name.

    Files of any ending count, unlike in `util.listing.files_by_name`: others are errors when they are read.
    """
    files = [path for path in entries(folder) if path.is_file()] if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder}: no target layouts; put pictures there, or name another folder with --cond DIR")
    stems = [path.stem for path in files]
    twice = next((path for path in files if stems.count(path.stem) > 1), None)
    if twice is not None:
        raise DataError(f"{folder}: two files are called {twice.stem}; results are named so, rename one")
    return files


def read_opaque(path: PictureFile) -> np.ndarray:
    """Return a picture (H, W, 3) uint8; says what became of an alpha channel that is not opaque.

    A few such pixels are antialiased borders, as in the authors' examples: they are taken as they are, as released.
    With more, their colours mean nothing.
    """
    picture = decode(path, "picture").picture
    rgb = rgb_of(picture, path)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        alpha = np.asarray(picture.convert("RGBA"))[..., 3:]
        share = float((alpha < 255).mean())
        if share >= MUCH_ALPHA:
            print(f"note: {path}: {100 * share:.1f} % of its pixels are transparent, laid on white", flush=True)
            return np.round(rgb * (alpha / 255) + (255.0 - alpha)).astype(np.uint8)
        if share:
            print(f"note: {path}: {100 * share:.2f} % of its pixels are transparent, taken as opaque", flush=True)
    return rgb


# --- classes ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class LayoutClasses:
    """The classes of the source's layout.

    Args:
        kind: "colours" or "ids".
        colours: (N, 3) uint8; of ids: made up, to be shown.
        ids: (N,) of "ids".
        tolerance: distance up to which a colour is near a class.
    """

    kind: str
    colours: np.ndarray
    ids: np.ndarray
    tolerance: float

    @property
    def names(self) -> list[str]:
        """Names of the classes: "id 7", or their colours as in "#8040ff"."""
        if self.kind == "ids":
            return [f"id {number}" for number in self.ids]
        return ["#" + bytes(colour.tolist()).hex() for colour in self.colours]

    def nearest(self, layout: np.ndarray) -> np.ndarray:
        """Return the class (H, W) int64 of each pixel of a layout: the nearest colour's, or that of its id."""
        if self.kind == "ids":
            return np.searchsorted(self.ids, layout)
        return np.argmin(_squared_distances(layout.reshape(-1, 3), self.colours), 1).reshape(layout.shape[:2])

    def show(self, layout: np.ndarray) -> np.ndarray:
        """Return a layout as a picture (H, W, 3) uint8."""
        return self.colours[self.nearest(layout)] if self.kind == "ids" else layout

    def check(self, layout: np.ndarray, path: PictureFile) -> None:
        """Raise `DataError` if a target shows colours or ids that the source does not have."""
        if self.kind == "ids":
            unknown = np.setdiff1d(layout, self.ids)
            if unknown.size:
                raise DataError(
                    f"{path}: id {unknown[0]} is not in the source's layout, so nobody knows what it looks like. Ids "
                    f"there: {', '.join(map(str, self.ids))}"
                )
            return
        colours, counts = np.unique(layout.reshape(-1, 3), axis=0, return_counts=True)
        squared = _squared_distances(colours, self.colours)
        far = squared.min(1) > self.tolerance**2
        shares = np.where(far, counts, 0) / counts.sum()
        worst = int(shares.argmax())
        if shares[worst] < FAR_COLOUR and shares.sum() <= FAR_PIXELS:
            return
        near, distance = self.names[int(squared[worst].argmin())], squared[worst].min() ** 0.5
        raise DataError(
            f"{path}: {100 * shares.sum():.1f} % of its pixels have colours near no class of the source's layout, most "
            f"of them #{bytes(colours[worst].tolist()).hex()}; the nearest class is {near}, {distance:.0f} away. "
            f"Classes: {', '.join(self.names)}. Repaint it, or raise --label_tolerance {self.tolerance:g}"
        )


def _squared_distances(colours: np.ndarray, centres: np.ndarray) -> np.ndarray:
    colours = colours.astype(np.int32)
    return np.stack([((colours - centre) ** 2).sum(-1) for centre in centres.astype(np.int32)], 1)


def find_classes(layout: np.ndarray, kind: str, tolerance: float) -> LayoutClasses:
    """Return the classes of a layout: its ids, or its frequent colours, those apart that are near a more frequent one.

    Colours of antialiased borders and of JPEG noise are rare or near others, so they do not become classes.
    """
    if kind == "ids":
        ids = np.unique(layout)
        return LayoutClasses(kind, default_palette(len(ids)), ids, tolerance)
    colours, counts = np.unique(layout.reshape(-1, 3), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    chosen: list[np.ndarray] = []
    for k in order[counts[order] >= SMALLEST_CLASS * counts.sum()]:
        if not chosen or _squared_distances(colours[k : k + 1], np.array(chosen)).min() > tolerance**2:
            chosen.append(colours[k])
    if not chosen:
        raise DataError("the layout has no colour that covers 0.2 % of it: is it a photograph?")
    return LayoutClasses(kind, np.array(chosen), np.array([], np.int64), tolerance)


# --- reading ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Reader:
    """Reads pictures and layouts at the size of the run.

    Args:
        kind: see `LayoutClasses`.
        resize: factor on the sides.
    """

    kind: str
    resize: float

    def stored_layout(self, path: PictureFile) -> np.ndarray:
        """Return a layout as stored."""
        return read_opaque(path) if self.kind == "colours" else read_map(path, "layout").astype(np.int64)

    def scaled(self, array: np.ndarray) -> np.ndarray:
        """Return a picture or layout scaled: bicubic (released), ids by the nearest pixel."""
        if self.resize == 1:
            return array
        size = (round(array.shape[1] * self.resize), round(array.shape[0] * self.resize))
        if array.ndim == 2:
            return np.asarray(Image.fromarray(array.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
        return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BICUBIC))


def cropped(array: np.ndarray) -> np.ndarray:
    """Return an array without the rows below and columns to the right that exceed multiples of 8."""
    height, width = (size - size % MULTIPLE for size in array.shape[:2])
    return array[:height, :width]


def padded(array: np.ndarray) -> np.ndarray:
    """Return an array with its last row and column repeated up to multiples of 8."""
    pads = [(0, -size % MULTIPLE) for size in array.shape[:2]]
    return np.pad(array, [*pads, *[(0, 0)] * (array.ndim - 2)], mode="edge")


def check_sizes(sizes: Sequence[tuple[PictureFile, tuple[int, ...]]]) -> None:
    """Raise `DataError` naming both files if the second has another size (H, W) than the first."""
    (first, wanted), *others = sizes
    for path, size in others:
        if size[:2] != wanted[:2]:
            raise DataError(f"{path} is {size[1]}x{size[0]}, {first} is {wanted[1]}x{wanted[0]}: they must be equal")


def check_least(array: np.ndarray, path: Path, resize: float) -> None:
    """Raise `DataError` for a picture that is too small for the networks, after scaling and cropping."""
    height, width = array.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise DataError(
            f"{path}: {width}x{height} after --resize {resize:g} and cropping to multiples of {MULTIPLE}; at least "
            f"{SMALLEST_SIDE} pixels a side are needed. Raise --resize or take a larger picture"
        )


def require_root(dataroot: str | None) -> Path:
    """Return --dataroot as a path; raises `UserError` if it was not given."""
    if not dataroot:
        raise UserError("--dataroot is missing: a folder with img.*, label.* and cond/*")
    return Path(dataroot)
