"""Pictures and maps on disk, as tensors, and as a grid to look at.

Shapes: H x W pixels; arrays are (H, W, 3) uint8 RGB or (H, W) int32 ids; tensors (3, H, W) float32 in [-1, 1].
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from util.decode import NamedBytes, decode
from util.errors import DataError
from util.files import atomic_file

_PICTURE_MODES = ("RGB", "L", "P", "RGBA", "CMYK", "LA")
GAP = 4  # pixels between the cells of a grid
PictureFile = str | os.PathLike[str] | NamedBytes
_MAP_BITS = {"1": 1, "L": 8, "P": 8, "I;16": 16, "I;16L": 16, "I;16B": 16, "I": 16}  # older Pillow opens I;16 as I


def read_image(path: PictureFile) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8 RGB, turned as its EXIF orientation says; alpha is dropped.

    Raises:
        DataError: what `decode` refuses, or not 8 bit per channel.
    """
    return rgb_of(decode(path, "picture").picture, path)


def rgb_of(picture: Image.Image, path: PictureFile) -> np.ndarray:
    """Return a decoded picture as (H, W, 3) uint8; raises `DataError` if it has not 8 bit per channel."""
    if picture.mode not in _PICTURE_MODES:
        raise DataError(f"{path}: a picture of mode {picture.mode}; 8 bit RGB or grey is needed, convert it")
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))  # convert copies what is RGB


@dataclass(frozen=True)
class IdMap:
    """Ids (H, W) int32 of a map, with the bit depth (1, 8, 16; 24 for colours) of its file."""

    ids: np.ndarray
    bits: int


def read_id_map(path: PictureFile, what: str, *, rgb_ids: bool = False) -> IdMap:
    """Return the ids of a label or instance PNG unchanged: palette indices and 16-bit values stay what they are.

    Args:
        path: the file.
        what: "label map", "instance map": for messages.
        rgb_ids: the whole colour is the id, r + 256 g + 65536 b; otherwise a colour file is an error.

    Raises:
        DataError: what `decode` refuses, colours where ids are expected, or ids below 0.
    """
    return ids_of(decode(path, what).picture, path, what, rgb_ids=rgb_ids)


def ids_of(picture: Image.Image, path: PictureFile, what: str, *, rgb_ids: bool = False) -> IdMap:
    """Return the ids of a decoded map; arguments and errors as of `read_id_map`."""
    if picture.mode in ("RGB", "RGBA") and rgb_ids:
        rgb = np.asarray(picture.convert("RGB")).astype(np.int32)
        return IdMap(rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2], 24)
    if picture.mode not in _MAP_BITS:
        ways_out = "edit.py --palette and prepare_folder.py --label_colors make ids of a label map's colours"
        raise DataError(
            f"{path}: the {what} has colours (mode {picture.mode}); ids are needed, one channel of 8 or 16 bit. "
            f"{ways_out}"
        )
    ids = np.array(picture).astype(np.int32)
    if ids.size and ids.min() < 0:  # of a file of 32 bit
        raise DataError(
            f"{path}: the {what} has ids below 0, such as {ids.min()} ({int((ids < 0).sum())} pixels); ids are 0 or "
            "more: replace them, e.g. by an id that --ignore_label names"
        )
    return IdMap(ids, _MAP_BITS[picture.mode])


def read_map(path: PictureFile, what: str, *, rgb_ids: bool = False) -> np.ndarray:
    """Return the ids (H, W) int32 of `read_id_map`, without the bit depth."""
    return read_id_map(path, what, rgb_ids=rgb_ids).ids


def read_binary(path: PictureFile) -> np.ndarray:
    """Return a mask file as (H, W) uint8 of 0 and 1.

    A mask is black and white, or 0 and 1: in one channel, by the colours of a palette, or in three equal channels.

    Raises:
        DataError: what `decode` refuses, other values, colours, or transparent pixels.
    """
    picture = decode(path, "mask").picture
    alpha = picture.mode in ("LA", "RGBA") or (picture.mode in _PICTURE_MODES and "transparency" in picture.info)
    if alpha and np.asarray(picture.convert("RGBA"))[..., 3].min(initial=255) < 255:
        raise DataError(
            f"{path}: the mask has transparent pixels, which are neither black nor white; save it without an alpha "
            "channel, white where pixels are generated"
        )
    if picture.mode in _PICTURE_MODES and picture.mode != "L":
        values = rgb_of(picture, path)
        if (values != values[..., :1]).any():
            raise DataError(
                f"{path}: the mask has colours; only black and white are allowed: save it as one channel, 255 where "
                "pixels are generated and 0 elsewhere"
            )
        values = values[..., 0]
    else:
        values = ids_of(picture, path, "mask").ids
    levels = set(np.unique(values).tolist())
    if not (levels <= {0, 255} or levels <= {0, 1}):
        raise DataError(
            f"{path}: the mask holds {len(levels)} values up to {max(levels)}, as blurred or scaled masks do; only 0 "
            "and 255 are allowed: set every pixel to one of them, and save it as PNG"
        )
    return (values > 0).astype(np.uint8)


def save_png(array: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write (H, W), RGB or RGBA uint8, or (H, W) uint16 as PNG, whole or not at all; folders are made."""
    _save(Image.fromarray(array), path)


def _save(picture: Image.Image, path: str | os.PathLike[str]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(Path(path), durable=False) as file:
        picture.save(file, format="PNG")


def save_labels(label: np.ndarray, palette: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write ids (H, W) as a PNG that `read_id_map` reads, see `labels_picture`."""
    _save(labels_picture(label, palette), path)


def labels_picture(label: np.ndarray, palette: np.ndarray) -> Image.Image:
    """Return ids (H, W) as a picture: its pixels are the ids, its palette shows their colours.

    Ids above 255, which no palette has, make it a 16-bit picture without colours; ids below 0 (ignored) become 255.
    """
    label = np.where(label < 0, 255, label)
    if label.max(initial=0) > 255:
        return Image.fromarray(label.astype(np.uint16))
    picture = Image.fromarray(label.astype(np.uint8), mode="P")
    colours = np.zeros((256, 3), np.uint8)  # all 256, or Pillow saves too few bits for ids beyond the classes
    colours[: len(palette)] = palette[:256]
    picture.putpalette(colours.tobytes())
    return picture


def read_labels_coloured(path: str | os.PathLike[str]) -> np.ndarray:
    """Return (H, W, 3) uint8 of a file of `save_labels`, to look at."""
    labels = read_id_map(path, "label map")
    if labels.bits > 8:
        return colour_labels(labels.ids, default_palette(int(labels.ids.max()) + 1))
    return read_image(path)


def to_tensor(array: np.ndarray) -> Tensor:
    """Return (3, H, W) float32 in [-1, 1] of (H, W, 3) uint8."""
    return from_levels(torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1))))


def from_levels(levels: Tensor) -> Tensor:
    """Return float32 in [-1, 1] of uint8: (v / 255 - 0.5) / 0.5, with the same bits on every device."""
    if levels.device.type == "cpu":
        return levels.to(torch.float32).div_(255).sub_(0.5).div_(0.5)
    # Looked up, as on a GPU PyTorch multiplies by 1 / 255, which is rounded otherwise
    table = from_levels(torch.arange(256, dtype=torch.uint8)).to(levels.device, non_blocking=True)
    return table.index_select(0, levels.flatten().int()).view(levels.shape)


def to_uint8(tensor: Tensor) -> np.ndarray:
    """Return uint8 (..., H, W, 3) of (..., 3, H, W) in [-1, 1], rounded: the exact inverse of `to_tensor`."""
    levels = tensor.detach().to(torch.float32).mul(0.5).add_(0.5).mul_(255).round_().clamp_(0, 255)
    return levels.to(torch.uint8).movedim(-3, -1).cpu().numpy()


def default_palette(n: int) -> np.ndarray:
    """Return (n, 3) uint8 colours, each unlike its neighbours: hues at the golden angle in three brightnesses."""
    colours = []
    for i in range(n):
        hue, value = (i * 0.61803398875) % 1.0, (0.9, 0.65, 0.45)[i % 3]
        ramp = np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
        colours.append(value * (0.3 + 0.7 * np.clip(ramp, 0, 1)))
    return np.round(255 * np.array(colours).reshape(n, 3)).astype(np.uint8)


def colour_labels(label: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 of ids (H, W); ids outside the palette, such as an ignored 255, are black."""
    label = np.asarray(label)
    inside = (label >= 0) & (label < len(palette))
    return np.where(inside[..., None], palette[np.where(inside, label, 0)], 0).astype(np.uint8)


def _to_cell(picture: np.ndarray, height: int) -> Image.Image:
    """Scale a picture to `height`: enlarged in whole pixels first, so that small ones stay crisp."""
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    factor = max(1, height // picture.shape[0])
    enlarged = Image.fromarray(picture.repeat(factor, 0).repeat(factor, 1))
    if enlarged.height == height:
        return enlarged
    return enlarged.resize((round(enlarged.width * height / enlarged.height), height), Image.Resampling.BICUBIC)


def picture_grid(
    rows: Sequence[Sequence[np.ndarray]], *, titles: Sequence[str] = (), min_cell: int = 128
) -> np.ndarray:
    """Lay out pictures as a table on white, with a title above each column.

    Args:
        rows: pictures (H, W, 3) or (H, W) uint8, of one height within a row; rows may differ in length.
        titles: one per column, or none.
        min_cell: cells are at least this high, in pixels; smaller pictures are enlarged, by whole factors if possible.

    Returns:
        (H, W, 3) uint8.
    """
    from PIL import ImageDraw, ImageFont

    cells: list[list[Image.Image]] = []
    for row in rows:
        height = row[0].shape[0]
        if height < min_cell:
            height *= -(-min_cell // height)
        cells.append([_to_cell(picture, height) for picture in row])
    columns = max(len(row) for row in cells)
    widths = [max(row[c].width for row in cells if c < len(row)) for c in range(columns)]
    head = 22 if titles else 0
    size = (sum(widths) + GAP * (columns + 1), head + sum(row[0].height + GAP for row in cells) + GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    lefts = [GAP + sum(widths[:c]) + GAP * c for c in range(columns)]
    for left, width, title in zip(lefts, widths, titles, strict=False):
        font = ImageFont.load_default(13)
        while draw.textlength(title, font=font) > width and font.size > 8:  # type: ignore[union-attr]
            font = ImageFont.load_default(font.size - 1)  # type: ignore[union-attr]
        draw.text((left + width / 2, head / 2 + GAP / 2), title, fill=(50, 50, 50), font=font, anchor="mm")
    top = head + GAP
    for row_cells in cells:
        for left, cell in zip(lefts, row_cells, strict=False):
            sheet.paste(cell, (left, top))
        top += row_cells[0].height + GAP
    return np.array(sheet)
