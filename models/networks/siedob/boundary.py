"""Patches on the boundary of the erased region, for the patch discriminator (SIEDOB, D_BAP).

Pixels are counted in a picture of `extent` pixels; the released constants are those of 256 and scale with it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RELEASED_EXTENT = 256
SMALLEST, LARGEST = 96, 160  # sides of a window, both included; patches are resized to the largest


@dataclass(frozen=True)
class Patch:
    """A window of one picture of a batch; rows and columns as (first, end), end excluded."""

    picture: int
    rows: tuple[int, int]
    columns: tuple[int, int]


def scaled(pixels: int, extent: int) -> int:
    """Return a released length at a picture of another size."""
    return round(pixels * extent / RELEASED_EXTENT)


def boundary_pixels(mask: Tensor) -> Tensor:
    """Mark erased pixels whose left, upper or upper left neighbour is known; borders of the picture do not count.

    The mask minus its erosion by a 2x2 square, as released: lower and right edges of a hole are not marked.

    Args:
        mask: (B, 1, H, W), 1 = erased.

    Returns:
        (B, 1, H, W) boolean.
    """
    erased = mask > 0.5
    near = F.pad(~erased, (1, 0, 1, 0), value=False)
    return erased & (near[..., 1:, :-1] | near[..., :-1, 1:] | near[..., :-1, :-1])


def window(centre: int, size: int, extent: int) -> tuple[int, int]:
    """Return (first, end) of a window of size // 2 pixels either side of `centre`, shifted into the picture.

    The picture's last pixel is in no window, as released.
    """
    half, last = size // 2, extent - 1
    if centre < half:
        return 0, 2 * half
    if centre + half >= last:
        return last - 2 * half, last
    return centre - half, centre + half


def patch_box(row: int, column: int, size: int, extent: int) -> tuple[int, int, int, int]:
    """Return first row, end row, first column, end column of the patch around a boundary pixel."""
    return *window(row, size, extent), *window(column, size, extent)


def choose_patches(mask: Tensor, rngs: Sequence[random.Random], *, count: int = 4) -> list[Patch]:
    """Draw `count` windows of random size around random boundary pixels of each picture.

    A picture without boundary has none; the list may be empty.

    Args:
        mask: (B, 1, S, S) on the CPU, 1 = erased.
        rngs: one per picture.
    """
    extent, patches = mask.shape[-1], []
    smallest, largest = scaled(SMALLEST, extent), scaled(LARGEST, extent)
    for picture, (marked, rng) in enumerate(zip(boundary_pixels(mask)[:, 0], rngs, strict=True)):
        pixels = marked.nonzero().tolist()
        for _ in range(count if pixels else 0):
            row, column = rng.choice(pixels)
            box = patch_box(row, column, rng.randint(smallest, largest), extent)
            patches.append(Patch(picture, box[:2], box[2:]))
    return patches


def cut_patches(x: Tensor, patches: Sequence[Patch]) -> Tensor:
    """Cut windows out of x (B, C, S, S), at least one, and resize them to a common size: (number, C, P, P).

    P is 160 at 256 pixels; resizing is bilinear without antialiasing, of one-hot maps too (as released).
    """
    size = scaled(LARGEST, x.shape[-1])
    cut = [x[p.picture, None, :, slice(*p.rows), slice(*p.columns)] for p in patches]
    return torch.cat([F.interpolate(c, (size, size), mode="bilinear", align_corners=False) for c in cut])
