"""SemIA's progressive augmentation: flip, thin-plate warp and zoom of a picture and its layout, growing with training.

Shapes: pictures (H, W, 3) uint8, layouts (H, W, 3) or (H, W) uint8. The formulas, oddities included, are those of the
released code (commit 875b2c7); the thin-plate spline is written from its mathematics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GRID = 3  # control points along each axis
FRACTIONS = 2**16  # of a pixel, what source coordinates are rounded to before a picture is read


def progress(step: int, stable_steps: int) -> float:
    """Return how far the augmentation has grown, 0 to 1 in hundredths; `step` counts from 0."""
    return min(1.0, round(step / stable_steps * 100) / 100)


# --- zoom -------------------------------------------------------------------------------------------------------------
def zoom_indices(size: int, scale: float, *, centre_offset: float = 0.0) -> np.ndarray:
    """Return the source index of each of `size` pixels under a zoom about the centre; outside ones are not in range.

    Args:
        centre_offset: 0, or 0.5 for the centre of torchvision before mid-2020.
    """
    centre = size / 2 + centre_offset
    return np.floor((np.arange(size) + 0.5) / scale + centre - centre / scale).astype(np.int64)


def zoom(picture: np.ndarray, scale: float, *, centre_offset: float = 0.0) -> np.ndarray:
    """Return the picture zoomed in about its centre by nearest-neighbour sampling; black outside (never for >= 1)."""
    rows, columns = (zoom_indices(size, scale, centre_offset=centre_offset) for size in picture.shape[:2])
    inside = [(i >= 0) & (i < size) for i, size in zip((rows, columns), picture.shape[:2], strict=True)]
    out = picture[np.where(inside[0], rows, 0)[:, None], np.where(inside[1], columns, 0)]
    out[~(inside[0][:, None] & inside[1])] = 0
    return out


# --- thin-plate spline ------------------------------------------------------------------------------------------------
def grid_points(height: int, width: int) -> np.ndarray:
    """Return the control points (9, 2): the first coordinate runs over the width, the second over the height."""
    steps = [np.linspace(0, size, GRID) for size in (width, height)]
    return np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 2)


def warp_coordinates(height: int, width: int, moves: np.ndarray) -> np.ndarray:
    """Return the source (row, column) of every pixel, (H, W, 2) float64.

    The spline takes the moved points back to their places; the four corners are pinned too, so they contradict the
    moved ones, and displacements near the borders exceed `moves`. The first coordinate of a point, which runs over
    the width, is used as a row: a mix-up of the release, kept. The spline is evaluated on every other pixel
    and interpolated, which stretches even sizes by up to a pixel, as released.

    Args:
        moves: (9, 2) displacements of `grid_points`, pixels.
    """
    points = grid_points(height, width)
    corners = np.array([(0, 0), (0, height), (width, 0), (width, height)], float)
    moved, fixed = np.concatenate([points + moves, corners]), np.concatenate([points, corners])
    system = np.zeros((len(moved) + 3, len(moved) + 3))
    system[: len(moved), : len(moved)] = _kernel(moved, moved)
    affine = np.concatenate([np.ones((len(moved), 1)), moved], 1)
    system[: len(moved), len(moved) :], system[len(moved) :, : len(moved)] = affine, affine.T
    # The pseudo-inverse: without moves, grid corners and pinned corners coincide.
    weights = np.linalg.pinv(system) @ np.concatenate([fixed, np.zeros((3, 2))])
    coarse = [np.linspace(0, size - 1, (size - 1) // 2) for size in (height, width)]
    at = np.stack(np.meshgrid(*coarse, indexing="ij"), -1).reshape(-1, 2)
    basis = np.concatenate([_kernel(at, moved), np.ones((len(at), 1)), at], 1)
    coarse_map = (basis @ weights).reshape(len(coarse[0]), len(coarse[1]), 2)
    return _refine(_refine(coarse_map, height).swapaxes(0, 1), width).swapaxes(0, 1)


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squared = ((a[:, None] - b[None]) ** 2).sum(-1)
    return np.where(squared > 0, 0.5 * squared * np.log(np.where(squared > 0, squared, 1)), 0)  # r^2 ln r


def _refine(coarse: np.ndarray, size: int) -> np.ndarray:
    """Interpolate the first axis from every other pixel to `size` of them."""
    last = (size - 1) / 2 - 1
    index = last * np.arange(size) / (size - 1)
    lower = index.astype(np.int64)
    upper = np.minimum(lower + 1, last).astype(np.int64)
    share = (index - lower).reshape(-1, *[1] * (coarse.ndim - 1))
    return coarse[lower] * (1 - share) + coarse[upper] * share


def warp(picture: np.ndarray, coordinates: np.ndarray, *, nearest: bool = False) -> np.ndarray:
    """Return the picture read at `warp_coordinates`: bilinear and rounded, or nearest (ids); mirrored outside.

    Where the spline moves little, many pixels lie half between two values, and its last bits, which differ between
    processors, would decide. Coordinates are therefore rounded to binary fractions: halves stay halves, and the sums
    below are exact in any order.
    """
    size = picture.shape[:2]
    coordinates = np.rint(coordinates * FRACTIONS) / FRACTIONS
    if nearest:
        rows, columns = (_mirror(np.rint(coordinates[..., k]).astype(np.int64), size[k]) for k in range(2))
        return picture[rows, columns]
    low = np.floor(coordinates).astype(np.int64)
    share = coordinates - low
    total = np.zeros(picture.shape)
    for i in (0, 1):
        for j in (0, 1):
            weight = np.abs(1 - i - share[..., 0]) * np.abs(1 - j - share[..., 1])
            rows, columns = _mirror(low[..., 0] + i, size[0]), _mirror(low[..., 1] + j, size[1])
            total += weight.reshape(weight.shape + (1,) * (picture.ndim - 2)) * picture[rows, columns]
    return np.clip(np.rint(total), 0, 255).astype(np.uint8)


def _mirror(index: np.ndarray, size: int) -> np.ndarray:
    """Reflect indices at the outer edges of the first and last pixel."""
    index = index % (2 * size)
    return np.where(index < size, index, 2 * size - 1 - index)


# --- all of it --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Augmentation:
    """Strengths at full progress.

    Args:
        flip: probability of a horizontal flip.
        zoom: largest enlargement, 0.2 for up to 1.2 times.
        warp: largest move of a control point, as a share of the width; half of all pictures are warped.
    """

    flip: float = 0.5
    zoom: float = 0.2
    warp: float = 0.02

    def __call__(
        self, pictures: Sequence[np.ndarray], rng: np.random.RandomState, factor: float, *, nearest: Sequence[bool]
    ) -> list[np.ndarray]:
        """Return the pictures, all of one size, under one draw.

        Args:
            factor: `progress`.
            nearest: for each picture, whether its values are ids.
        """
        height, width = pictures[0].shape[:2]
        flipped, warped = rng.uniform() < self.flip * factor, rng.uniform() < 0.5
        moves = rng.uniform(-1, 1, (GRID**2, 2)) * factor * self.warp * width
        scale = 1 + self.zoom * factor * rng.uniform()
        coordinates = warp_coordinates(height, width, moves) if warped and self.warp else None
        augmented = []
        for picture, ids in zip(pictures, nearest, strict=True):
            out = picture[:, ::-1] if flipped else picture
            out = out if coordinates is None else warp(out, coordinates, nearest=ids)
            augmented.append(zoom(out, scale))
        return augmented
