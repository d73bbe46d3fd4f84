"""A procedural picture with its layout and two others, to try SemIA on without any download.

A lake below a mountain: four classes, each with a distinct texture. Drawn from a seed, at any size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SKY, MOUNTAIN, GRASS, WATER = range(4)
COLOURS = np.array([(0, 253, 255), (148, 33, 146), (0, 249, 0), (4, 51, 255)], np.uint8)  # of the authors' examples


@dataclass(frozen=True)
class Lake:
    """A layout, in shares of width and height.

    Args:
        peaks: of the mountain: place, height above the horizon, half width at its foot.
        horizon: height of the line between sky and grass, from above.
        lake: centre (x, y) and half axes of the water.
    """

    peaks: tuple[tuple[float, float, float], ...]
    horizon: float
    lake: tuple[float, float, float, float]


LAYOUTS = {
    "label": Lake(((0.34, 0.36, 0.30),), 0.55, (0.64, 0.78, 0.24, 0.12)),
    "two_peaks": Lake(((0.24, 0.28, 0.22), (0.70, 0.40, 0.26)), 0.55, (0.64, 0.78, 0.24, 0.12)),
    "large_lake": Lake(((0.60, 0.36, 0.30),), 0.48, (0.40, 0.78, 0.36, 0.17)),
}


def draw_layout(lake: Lake, height: int, width: int) -> np.ndarray:
    """Return the classes (H, W) int64 of a layout."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    x, y = (x + 0.5) / width, (y + 0.5) / height
    classes = np.where(y > lake.horizon, GRASS, SKY)
    for place, top, foot in lake.peaks:
        rise = top * (1 - np.abs(x - place) / foot)
        classes[(lake.horizon - y < rise) & (y <= lake.horizon)] = MOUNTAIN
    cx, cy, rx, ry = lake.lake
    classes[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1] = WATER
    return classes


def without_lake(classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a layout without its water, and a mask (H, W) uint8 of 0 and 255: the box around the water, with a rim."""
    water = classes == WATER
    mask, rim = np.zeros(classes.shape, np.uint8), max(1, len(classes) // 32)
    (top, bottom), (left, right) = ((i.min(), i.max()) for i in np.nonzero(water))
    mask[max(top - rim, 0) : bottom + rim + 1, max(left - rim, 0) : right + rim + 1] = 255
    return np.where(water, GRASS, classes), mask


def smooth_noise(rng: np.random.RandomState, height: int, width: int, cell: float) -> np.ndarray:
    """Return noise in [-1, 1], bilinear between random values `cell` pixels apart."""
    coarse = rng.uniform(-1, 1, (int(height / cell) + 2, int(width / cell) + 2))
    y, x = np.arange(height) / cell, np.arange(width) / cell
    i, j = y.astype(int), x.astype(int)
    v, u = (y - i)[:, None], x - j
    top = coarse[i][:, j] * (1 - u) + coarse[i][:, j + 1] * u
    return top * (1 - v) + (coarse[i + 1][:, j] * (1 - u) + coarse[i + 1][:, j + 1] * u) * v


def draw_picture(classes: np.ndarray, seed: int) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 of a layout."""
    rng, (height, width) = np.random.RandomState(seed), classes.shape
    y, x = np.mgrid[0:height, 0:width].astype(float)
    unit = height / 64  # textures keep their size in the picture
    grain = rng.uniform(-1, 1, (height, width))
    cloud = np.clip(smooth_noise(rng, height, width, 14 * unit) * 1.6, 0, 1)[..., None]
    sky = np.array([120, 170, 230]) + (y / height)[..., None] * [70, 45, 10]
    sky = sky * (1 - cloud) + np.array([245, 245, 250]) * cloud
    strata = np.sin((x + 2 * y) / (1.9 * unit) + 2 * smooth_noise(rng, height, width, 8 * unit))
    mountain = np.array([125, 100, 85]) + (24 * strata + 10 * grain)[..., None] * [1, 0.9, 0.8]
    tufts = smooth_noise(rng, height, width, 2.5 * unit)
    grass = np.array([85, 140, 50]) + (34 * tufts + 12 * grain)[..., None] * [0.8, 1, 0.5]
    waves = np.sin(y / (0.9 * unit) + 1.5 * smooth_noise(rng, height, width, 10 * unit))
    water = np.array([35, 75, 130]) + (18 * waves + 4 * grain)[..., None] * [0.7, 1, 1.2]
    textures = np.stack([sky, mountain, grass, water])
    picture = np.take_along_axis(textures, classes[None, ..., None], 0)[0]
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
