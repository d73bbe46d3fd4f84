"""The box around a mask, for features of the region alone."""

from __future__ import annotations

from torch import Tensor

REGION_SIDE = 32


def region_box(mask: Tensor) -> tuple[int, int, int, int] | None:
    """Return (top, bottom, left, right) of the box around a mask (1,H,W), None if it is empty.

    Sides under 32 pixels are grown around the centre and shifted to stay within the picture.
    """
    inside = mask[0] > 0
    if not bool(inside.any()):
        return None
    top, bottom = _span(inside.any(1))
    left, right = _span(inside.any(0))
    return top, bottom, left, right


def _span(line: Tensor) -> tuple[int, int]:
    places = line.nonzero().flatten()
    first, end = int(places[0]), int(places[-1]) + 1
    side = min(max(end - first, REGION_SIDE), len(line))
    start = min(max(0, first - (side - (end - first)) // 2), len(line) - side)
    return start, start + side


def cut(picture: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """Cut the box (top, bottom, left, right) from a picture (3, H, W)."""
    top, bottom, left, right = box
    return picture[:, top:bottom, left:right]
