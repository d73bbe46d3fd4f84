"""Fills by rule, of one picture at a time.

Shapes: a picture's `image` (H,W,3) uint8 has its masked pixels set to 0, so that no fill can see the truth; `mask`
(H,W) bool. Every fill returns (H,W,3) uint8; what it says of given pixels is not used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from testing.fills.patches import copy_patches
from testing.packs.forms import Picture
from util.errors import UserError

RADIUS = 3  # pixels around a point that OpenCV's fills look at
Fill = Callable[[Picture], np.ndarray]
Colours = Mapping[int, np.ndarray]


def mean_colour(item: Picture) -> np.ndarray:
    """Fill with the mean colour of the given pixels (grey if there are none)."""
    return painted(item, given_mean(item))


def nearest_pixel(item: Picture) -> np.ndarray:
    """Fill each pixel with the nearest given one."""
    if item.mask.all():
        return mean_colour(item)
    places = ndimage.distance_transform_edt(item.mask, return_distances=False, return_indices=True)
    return np.asarray(item.image[tuple(places)])


def class_mean(colours: Colours) -> Fill:
    """Return a fill by the mean colour that a class has in the training split."""

    def fill(item: Picture) -> np.ndarray:
        filled = painted(item, given_mean(item))  # of classes that do not occur there
        for label, colour in colours.items():
            filled[item.mask & (item.label == label)] = np.round(colour)
        return filled

    return fill


def patches(colours: Colours) -> Fill:
    """Return a fill by patches of the same class in the picture, see `copy_patches`."""
    base = class_mean(colours)
    return lambda item: copy_patches(item, base(item))


def opencv(method: str) -> Fill:
    """Return one of OpenCV's fills: "INPAINT_TELEA" or "INPAINT_NS"; raises `UserError` where OpenCV does not load."""
    try:
        cv2: Any = importlib.import_module("cv2")
    except ImportError as error:
        raise UserError(
            f"OpenCV, which this fill is of, does not load ({error}); pip install opencv-python-headless, which needs "
            "no libraries of a screen"
        ) from error
    return lambda item: np.asarray(cv2.inpaint(item.image, item.mask.astype(np.uint8), RADIUS, getattr(cv2, method)))


def given_mean(item: Picture) -> np.ndarray:
    """Return the mean colour (3,) of the given pixels."""
    given = item.image[~item.mask]
    return given.mean(0) if len(given) else np.full(3, 127.5)


def painted(item: Picture, colour: np.ndarray) -> np.ndarray:
    """Return the picture with one colour under its mask."""
    return np.where(item.mask[..., None], np.round(colour), item.image).astype(np.uint8)


FILLS: dict[str, Callable[[Colours], Fill]] = {
    "telea": lambda _: opencv("INPAINT_TELEA"),
    "navier_stokes": lambda _: opencv("INPAINT_NS"),
    "mean": lambda _: mean_colour,
    "nearest": lambda _: nearest_pixel,
    "class_mean": class_mean,
    "patches": patches,
}
