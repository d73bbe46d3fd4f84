"""Files that people give to the page, and those that they take from it; all of them in memory."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import PurePath
from zipfile import ZipFile

import numpy as np
from PIL import Image

from data.instances import unique_ids
from data.records import MapRules
from data.transforms import nearest
from util.decode import NamedBytes, picture_size
from util.errors import DataError
from util.images import labels_picture
from util.pictures import resized

MOST_BYTES = 32 << 20  # of a file
MOST_PIXELS = 50_000_000  # of a file, before it is scaled down
SIGNATURES = (re.compile(rb"\x89PNG\r\n\x1a\n"), re.compile(rb"\xff\xd8\xff"), re.compile(rb"RIFF....WEBP", re.S))
LONGEST_NAME = 60


def checked_file(content: bytes, name: str, what: str) -> NamedBytes:
    """Return a picture file that may be decoded: a PNG, JPEG or WebP of bounded size; raises `DataError` for others."""
    if len(content) > MOST_BYTES:
        raise DataError(
            f"{name}: the {what} has {len(content) >> 20} MiB; the page takes files of up to {MOST_BYTES >> 20}"
        )
    if not any(signature.match(content) for signature in SIGNATURES):
        raise DataError(f"{name}: the {what} is no PNG, JPEG or WebP file, whatever its name says; save it as one")
    width, height = picture_size(NamedBytes(content, name), what)
    if width * height > MOST_PIXELS:
        raise DataError(
            f"{name}: the {what} has {width}x{height} pixels; the page takes {MOST_PIXELS // 10**6} million. "
            "Scale it down or cut it"
        )
    return NamedBytes(content, name)


def plain_name(name: str) -> str:
    """Return what is left of a file's name, without its ending, as the name of files that a shell takes as it is."""
    stem = PurePath(name.replace("\\", "/")).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")[:LONGEST_NAME] or "picture"


def fitting_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return (width, height) scaled down so that the longer is `side` at most."""
    scale = min(1, side / max(size))
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def fitted(picture: np.ndarray, side: int) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 of at most `side` pixels a side, by LANCZOS."""
    return resized(picture, fitting_size((picture.shape[1], picture.shape[0]), side))


def fitted_ids(ids: np.ndarray, side: int) -> np.ndarray:
    """Return a map (H, W) of int32 or booleans scaled as `fitted` scales its picture: nearest ids."""
    width, height = fitting_size((ids.shape[1], ids.shape[0]), side)
    return ids if ids.shape == (height, width) else nearest(ids.astype(np.int32), height, width).astype(ids.dtype)


def storable_ids(inst: np.ndarray, rules: MapRules, inst_class_rule: str) -> np.ndarray:
    """Return instance ids that a file can hold, 16 bit or a colour: larger ones become unused ids.

    Under "mod120", which reads classes from ids, they keep their remainder.
    """
    limit = 1 << (24 if rules.inst_rgb else 16)
    used = set(unique_ids(inst).tolist())
    if max(used) < limit:
        return inst
    step = 120 if inst_class_rule == "mod120" else 1
    stored = inst.copy()
    for number in sorted(number for number in used if number >= limit):
        first = max(rules.first_instance, 1)
        first += (number - first) % step
        new = next((n for n in range(first, limit, step) if n not in used), None)
        if new is None:
            raise DataError(f"more instances than the {limit} that a file can number")
        used.add(new)
        stored[inst == number] = new
    return stored


def picture_png(picture: np.ndarray) -> bytes:
    """Return the PNG of (H, W, 3) or (H, W) uint8 that `util.images.save_png` writes."""
    return _png(Image.fromarray(picture))


def label_png(label: np.ndarray, palette: np.ndarray) -> bytes:
    """Return the PNG of a label map: ids, in colours to look at where they fit a palette."""
    return _png(labels_picture(label, palette))


def inst_png(inst: np.ndarray, *, rgb: bool) -> bytes:
    """Return the PNG of an instance map: of 16 bit, or of colours that are ids."""
    if rgb:
        return picture_png(np.stack([inst & 255, inst >> 8 & 255, inst >> 16], -1).astype(np.uint8))
    return _png(Image.fromarray(inst.astype(np.uint16)))


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a ZIP of files."""
    content = io.BytesIO()
    with ZipFile(content, "w") as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return content.getvalue()
