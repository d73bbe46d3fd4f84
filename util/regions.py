"""Where a picture of any size is edited: square windows around the regions of a mask.

Shapes: H x W pixels; masks (H, W) of 0 and 1, 1 = to be generated. Pixels everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CONTEXT = 1.5  # side of a window over the longer side of its region: a quarter of known picture on either side


@dataclass(frozen=True)
class Window:
    """A square of the picture."""

    top: int
    left: int
    side: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index arrays (H, W, ...)."""
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)


@dataclass(frozen=True)
class Box:
    """Rows top..bottom-1, columns left..right-1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def length(self) -> int:
        """The longer side, in pixels."""
        return max(self.bottom - self.top, self.right - self.left)

    def union(self, other: Box) -> Box:
        """Return the smallest box around both."""
        return Box(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )


def bounding_box(mask: np.ndarray) -> Box:
    """Return the box of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


@dataclass
class Region:
    """Parts of a mask that are generated together, in the order of `windows`; the mask is (H, W) booleans."""

    mask: np.ndarray
    windows: list[Window]


def plan_regions(mask: np.ndarray, crop_size: int) -> list[Region]:
    """Group a mask's connected parts and place windows for each group.

    Parts that fit together into the window that the larger one needs anyway share it. A window is at least
    `crop_size`, at most the picture's short side. A region too long for one window is covered in steps of half a
    window, starting where the picture is known, so that each step continues the previous one.

    Returns:
        Regions in reading order of their first pixel.
    """
    from scipy.ndimage import find_objects, label

    parts, _ = label(mask, structure=np.ones((3, 3), int))
    boxes = [Box(r.start, c.start, r.stop, c.stop) for r, c in find_objects(parts)]
    groups = _merge([(box, [i + 1]) for i, box in enumerate(boxes)], mask.shape, crop_size)
    groups.sort(key=lambda group: min(group[1]))
    return [Region(np.isin(parts, members), _windows(box, mask.shape, crop_size)) for box, members in groups]


def window_around(box: Box, shape: tuple[int, ...], crop_size: int) -> Window:
    """Return one window with the box at its centre, or as near to that as the picture's borders allow."""
    side = _side(box, shape, crop_size)
    return Window(_centred(box.top, box.bottom, shape[0], side), _centred(box.left, box.right, shape[1], side), side)


def _centred(low: int, high: int, size: int, side: int) -> int:
    return min(max((low + high - side) // 2, 0), size - side)


def _side(box: Box, shape: tuple[int, ...], crop_size: int) -> int:
    return min(max(crop_size, int(np.ceil(CONTEXT * box.length))), *shape)


def _merge(groups: list[tuple[Box, list[int]]], shape: tuple[int, ...], crop_size: int) -> list[tuple[Box, list[int]]]:
    """Join groups whose union needs no larger window than one of them; until nothing changes."""
    merged: list[tuple[Box, list[int]]] = []
    for box, members in groups:
        for k, (other, others) in enumerate(merged):
            union = box.union(other)
            side = _side(union, shape, crop_size)
            if union.length <= side <= max(_side(box, shape, crop_size), _side(other, shape, crop_size)):
                merged[k] = (union, others + members)
                break
        else:
            merged.append((box, members))
    return merged if len(merged) == len(groups) else _merge(merged, shape, crop_size)


def _windows(box: Box, shape: tuple[int, ...], crop_size: int) -> list[Window]:
    height, width = shape
    side = _side(box, shape, crop_size)
    spans = ((box.top, box.bottom, height), (box.left, box.right, width))
    tops, lefts = (_starts(low, high, size, side, roomy=side >= CONTEXT * box.length) for low, high, size in spans)
    return [Window(top, left, side) for top in tops for left in lefts]  # one of the two has a single entry


def _starts(low: int, high: int, size: int, side: int, *, roomy: bool) -> list[int]:
    """Return where windows begin along one axis to cover low..high-1 of `size` pixels.

    A region that reaches one end of the picture sees known pixels on one side alone: if there is no room for context,
    it is covered in steps as soon as it is longer than half a window.
    """
    ends = (low == 0) + (high == size)
    most = side // 2 if ends == 1 and not roomy else side
    if high - low <= most or size == side:
        return [_centred(low, high, size, side)]
    if low == 0 and ends == 1:  # known at the far end: walk backwards
        return [size - side - start for start in _starts(size - high, size, size, side, roomy=roomy)]
    step, starts = side // 2, [max(low - side // 2, 0)]
    while starts[-1] + side < high:
        starts.append(min(starts[-1] + step, size - side))
    return starts
