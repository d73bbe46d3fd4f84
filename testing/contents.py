"""What test.py stylises: pictures, their edge maps, and where the style goes (S2PreST)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util.edge_maps import edge_picture
from util.errors import DataError, UserError
from util.images import PictureFile, read_binary, read_map
from util.opt import Opt
from util.pictures import Photo, find_pictures, read_photo, resized
from util.progress import progress

SMALLEST = 32  # pixels a side of a content


@dataclass(frozen=True)
class Content:
    """A picture to stylise. Its files are read where they are used: a folder may be larger than the memory.

    Args:
        name: of its results.
        path: of the picture, or its content.
        size: width and height.
        edge: kind of its edge map, one of `EDGES`.
        edge_side: "working": drawn at the size that is computed at; "released": at its own.
        region: file of its mask or label map; None: all of it is stylised.
        classes: ids of the label map, as in "8,11"; None: it is a mask.
    """

    name: str
    path: PictureFile
    size: tuple[int, int]
    edge: str
    edge_side: str
    region: Path | None
    classes: str | None

    def photo(self) -> Photo:
        """Return the picture with its alpha."""
        return read_photo(self.path)

    def picture(self) -> np.ndarray:
        """Return (H, W, 3) uint8."""
        return self.photo().rgb

    def edges(self, canvas: tuple[int, int]) -> np.ndarray:
        """Return the edge map (h, w, 3) uint8 as it was drawn; `canvas`: width and height that are computed at."""
        picture = self.picture()
        return edge_picture(resized(picture, canvas) if self.edge_side == "working" else picture, self.edge)

    def mask(self) -> np.ndarray | None:
        """Return (H, W) booleans, true where the style goes; None: everywhere."""
        return None if self.region is None else read_region(self.region, self.classes, self.size)


def read_contents(opt: Opt) -> list[Content]:
    """Check all contents and masks; raises `UserError` or `DataError` for those that cannot be used."""
    files = find_pictures(opt.content, "--content")
    masks = mask_files(opt, files)
    contents, untouched = [], []
    for name, path in progress(files.items(), desc="contents", unit="picture", shown=len(files) > 1):
        content = content_of(opt, name, path, masks.get(name))
        mask = content.mask()
        if mask is not None and not mask.any():
            untouched.append(name)
        contents.append(content)
    if untouched:
        what = f"ids {opt.mask_classes} of --mask_classes" if opt.mask_classes else "white pixels"
        note = f"--masks {opt.masks}: no {what} for {', '.join(untouched[:5])} ({len(untouched)} of {len(contents)})"
        if len(untouched) == len(contents):
            raise UserError(f"{note}: nothing would be stylised")
        print(f"note: {note}: returned as they are")
    return contents


def content_of(opt: Opt, name: str, path: PictureFile, region: Path | None = None) -> Content:
    """Return a picture as a content; raises `DataError` for one that is damaged or too small."""
    height, width = read_photo(path).rgb.shape[:2]
    if min(height, width) < SMALLEST:
        raise DataError(f"{path}: {width}x{height}; a content needs at least {SMALLEST} pixels a side")
    return Content(name, path, (width, height), opt.edge, opt.edge_side, region, opt.mask_classes)


def mask_files(opt: Opt, contents: dict[str, Path]) -> dict[str, Path]:
    """Pair the files of --masks with the contents: a file with the only content, a folder's files by base name."""
    if not opt.masks:
        return {}
    masks = find_pictures(opt.masks, "--masks")
    if Path(opt.masks).is_file():
        if len(contents) > 1:
            raise UserError(f"--masks {opt.masks} is one file for {len(contents)} contents; give a folder of masks")
        return dict.fromkeys(contents, Path(opt.masks))
    if missing := [name for name in contents if name not in masks]:
        raise UserError(f"--masks {opt.masks}: no mask for {', '.join(missing[:5])} ({len(missing)} in all)")
    return masks


def read_region(path: Path, classes: str | None, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W) booleans: white pixels of a mask, or the ids `classes` of a label map; `size`: width, height."""
    try:
        ids = read_map(path, "label map") if classes else read_binary(path)
    except DataError as error:
        raise error if classes else DataError(f"{error}; label maps need --mask_classes") from error
    if ids.shape[::-1] != size:
        raise DataError(f"{path} is {ids.shape[1]}x{ids.shape[0]}, its content {size[0]}x{size[1]}")
    if classes:
        try:
            wanted = [int(number) for number in classes.split(",")]
        except ValueError as error:
            raise UserError(f"--mask_classes {classes}: write ids, as in 8,11") from error
        return np.isin(ids, wanted)
    return ids > 0
