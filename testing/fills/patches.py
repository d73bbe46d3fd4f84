"""Copying of patches within a class: what a picture shows of a class elsewhere is laid over its masked pixels.

After the idea of image quilting (Efros and Freeman 2001): a tile at a time, the patch whose overlap with what is there
already fits best; here among a fixed number of drawn patches, without cuts along the overlap. Our own rule.
"""

from __future__ import annotations

import numpy as np

from testing.packs.forms import Picture
from util.seeds import random_pair

TILES = 16  # along a side
MARGIN = 4  # pixels of a 256 picture around a tile that are compared
DRAWN = 48  # patches tried per tile and class


def copy_patches(item: Picture, base: np.ndarray) -> np.ndarray:
    """Fill tile after tile, row by row; `base` (H,W,3) is kept where a class is not seen in the picture."""
    size = min(item.mask.shape)
    tile, margin = max(4, size // TILES), max(1, MARGIN * size // 256)
    canvas, known = np.where(item.mask[..., None], base, item.image).astype(np.float32), ~item.mask
    draw = random_pair("patches", item.name)[1]
    sources = {int(label): np.argwhere(known & (item.label == label)) for label in np.unique(item.label[item.mask])}
    for top in range(0, item.mask.shape[0], tile):
        for left in range(0, item.mask.shape[1], tile):
            inside = (slice(top, top + tile), slice(left, left + tile))
            for label in np.unique(item.label[inside][item.mask[inside]]):
                if len(seen := sources[int(label)]):
                    _fill_tile(item, canvas, known, inside, int(label), seen, margin, draw)
    return np.round(canvas).astype(np.uint8)


def _fill_tile(
    item: Picture, canvas: np.ndarray, known: np.ndarray, inside: tuple[slice, slice], label: int, seen: np.ndarray,
    margin: int, draw: np.random.RandomState,
) -> None:  # fmt: skip
    """Fill the pixels of one class in a tile from the drawn patch that covers most of them and fits best around."""
    limits = np.array(item.mask.shape) - 1
    start = np.array([inside[0].start, inside[1].start])
    wanted = start + np.argwhere(item.mask[inside] & (item.label[inside] == label))
    low, high = np.maximum(wanted.min(0) - margin, 0), np.minimum(wanted.max(0) + margin, limits) + 1
    around = low + np.argwhere(known[low[0] : high[0], low[1] : high[1]])  # compared, whatever their class
    chosen = seen[draw.randint(len(seen), size=DRAWN)]
    shifts = chosen - wanted[draw.randint(len(wanted), size=DRAWN)]  # (D,2): where a pixel's colour is taken from
    given = ~item.mask & (item.label == label)
    places = wanted[None] + shifts[:, None]
    usable = ((places >= 0) & (places <= limits)).all(2)
    places = places.clip(0, limits)
    usable &= given[places[..., 0], places[..., 1]]
    beside = around[None] + shifts[:, None]
    valid = ((beside >= 0) & (beside <= limits)).all(2)
    beside = beside.clip(0, limits)
    valid &= ~item.mask[beside[..., 0], beside[..., 1]]
    steps = np.abs(item.image[beside[..., 0], beside[..., 1]] - canvas[around[:, 0], around[:, 1]]).mean(2)
    misfit = np.where(valid, steps, 0).sum(1) / np.maximum(valid.sum(1), 1) + 255 * (valid.sum(1) == 0)
    cover = usable.mean(1)
    best = int(np.argmin(misfit - 255 * cover))
    taken, left = usable[best], ~usable[best]
    target, source = wanted[taken], places[best][taken]
    canvas[target[:, 0], target[:, 1]] = item.image[source[:, 0], source[:, 1]]
    if left.any():  # no patch covers all: the nearest seen pixels, one by one
        distance = np.abs(wanted[left][:, None] - seen[None, :: max(1, len(seen) // 1024)]).sum(2)
        source = seen[:: max(1, len(seen) // 1024)][distance.argmin(1)]
        canvas[wanted[left][:, 0], wanted[left][:, 1]] = item.image[source[:, 0], source[:, 1]]
    known[wanted[:, 0], wanted[:, 1]] = True
