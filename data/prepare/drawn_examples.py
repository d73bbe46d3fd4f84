"""Drawn pictures with layouts, to try SemIA on without any download: a lake, a face with its parts, a sketched bag.

Each stands for a kind of the authors' examples. All are drawn from a seed, at any size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from data.prepare import single_image_example as lake
from util.edges import mark_edges

Texture = Callable[["Canvas"], np.ndarray]  # (H, W, 3) float
Ellipse = tuple[int, float, float, float, float]  # class, centre (x, y) and half axes, in shares of width and height


@dataclass(frozen=True)
class Example:
    """What one folder holds.

    Args:
        ratio: width / height.
        regions: classes (H, W) of height and width, by name; "label" is the picture's own, the others are targets.
        paint: picture (H, W, 3) uint8 of classes and seed.
        show: layout (H, W, 3) uint8 of classes.
    """

    ratio: float
    regions: Mapping[str, Callable[[int, int], np.ndarray]]
    paint: Callable[[np.ndarray, int], np.ndarray]
    show: Callable[[np.ndarray], np.ndarray]


class Canvas:
    """Coordinates (x, y) of the pixels in shares of the sides, (H, W) each, and noise on them."""

    def __init__(self, height: int, width: int, seed: int) -> None:
        y, x = np.mgrid[0:height, 0:width].astype(float)
        self.x, self.y, self.unit = (x + 0.5) / width, (y + 0.5) / height, height / 64
        self.rng = np.random.RandomState(seed)
        self.grain = self.rng.uniform(-1, 1, (height, width))

    def noise(self, cell: float) -> np.ndarray:
        """Return smooth noise in [-1, 1] of cells of so many pixels of a picture 64 high."""
        height, width = self.x.shape
        return lake.smooth_noise(self.rng, height, width, cell * self.unit)

    def shade(self, colour: tuple[int, int, int], light: np.ndarray) -> np.ndarray:
        """Return a colour (H, W, 3) lightened by so many levels (H, W)."""
        return np.array(colour) + light[..., None]


def draw_regions(ellipses: Sequence[Ellipse], height: int, width: int) -> np.ndarray:
    """Return the classes (H, W) int64 of ellipses, the later above the earlier; class 0 lies behind them."""
    canvas = Canvas(height, width, 0)
    classes = np.zeros((height, width), np.int64)
    for label, cx, cy, rx, ry in ellipses:
        classes[((canvas.x - cx) / rx) ** 2 + ((canvas.y - cy) / ry) ** 2 < 1] = label
    return classes


def paint_regions(textures: Sequence[Texture], classes: np.ndarray, seed: int) -> np.ndarray:
    """Return the picture (H, W, 3) uint8 in which each class has its texture."""
    canvas = Canvas(classes.shape[0], classes.shape[1], seed)
    layers = np.stack([texture(canvas) for texture in textures])
    picture = np.take_along_axis(layers, classes[None, ..., None], 0)[0]
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


# --- a face with its parts --------------------------------------------------------------------------------------------
CLOTHES, HAIR, SKIN, BROW, EYE, NOSE, LIPS = range(1, 8)
PARTS = np.array(
    [(0, 0, 0), (0, 0, 255), (255, 255, 0), (255, 0, 0), (0, 255, 0), (0, 255, 255), (255, 0, 255), (255, 255, 255)],
    np.uint8,
)


def face(*, hair: float = 0.31, turn: float = 0.0, mouth: float = 0.025) -> list[Ellipse]:
    """Return a portrait: half height of the hair, how far the features are turned aside, half height of the mouth."""
    pairs = [(BROW, 0.37, 0.065, 0.018), (EYE, 0.44, 0.05, 0.025)]
    middle = 0.5 + turn
    return [
        (HAIR, 0.5, 0.1 + hair, 0.3, hair), (CLOTHES, 0.5, 1.05, 0.45, 0.24), (SKIN, 0.5, 0.78, 0.1, 0.15),
        (SKIN, 0.5, 0.48, 0.22, 0.3), (HAIR, 0.5 - turn, 0.2, 0.22, 0.09),
        *((part, middle + side * 0.1, y, rx, ry) for part, y, rx, ry in pairs for side in (-1, 1)),
        (NOSE, middle, 0.53, 0.03, 0.06), (LIPS, middle, 0.64 + mouth / 2, 0.08, mouth),
    ]  # fmt: skip


FACE_TEXTURES: list[Texture] = [
    lambda c: c.shade((120, 150, 160), 30 * c.noise(20) - 40 * c.y),
    lambda c: c.shade((60, 70, 120), 25 * np.sign(np.sin(60 * (c.x + 0.4 * c.y))) + 4 * c.grain),
    lambda c: c.shade((70, 45, 30), 22 * np.sin(90 * c.x + 4 * c.noise(9)) + 6 * c.grain),
    lambda c: c.shade((225, 180, 150), 70 * (0.25 - (c.x - 0.42) ** 2 * 4 - (c.y - 0.42) ** 2 * 2) + 3 * c.grain),
    lambda c: c.shade((60, 40, 28), 12 * c.grain),
    lambda c: c.shade((70, 95, 110), 60 * c.noise(1.5)),
    lambda c: c.shade((235, 190, 160), 40 * np.sin(8 * (c.x - c.y))),
    lambda c: c.shade((185, 75, 80), 25 * np.sin(70 * c.y) + 6 * c.grain),
]

# --- a bag and its sketch ---------------------------------------------------------------------------------------------
STRAP, BODY, FLAP, BUCKLE = range(1, 5)
INK = np.array([(255, 255, 255), (0, 0, 0)], np.uint8)


def bag(*, width: float = 0.36, height: float = 0.26, strap: float = 0.3, flap: float = 0.13) -> list[Ellipse]:
    """Return a bag with its strap: half axes of body, strap and flap."""
    top = 0.66 - height
    return [
        (STRAP, 0.5, top + 0.1, 0.6 * width, strap), (0, 0.5, top + 0.1, 0.6 * width - 0.06, strap - 0.06),
        (BODY, 0.5, 0.66, width, height), (FLAP, 0.5, top + flap, 0.8 * width, flap),
        (BUCKLE, 0.5, top + 2 * flap, 0.07, 0.06),
    ]  # fmt: skip


BAG_TEXTURES: list[Texture] = [
    lambda c: c.shade((238, 238, 235), -30 * c.y + 2 * c.grain),
    lambda c: c.shade((80, 50, 35), 25 * np.sin(100 * (c.x + c.y)) + 5 * c.grain),
    lambda c: c.shade((165, 95, 50), 60 * (0.6 - c.y) + 22 * c.noise(3) + 8 * c.grain),
    lambda c: c.shade((130, 65, 35), 40 * (0.5 - c.y) + 14 * c.noise(2) + 6 * c.grain),
    lambda c: c.shade((225, 190, 80), 50 * np.sin(30 * (c.x - c.y))),
]


# --- all --------------------------------------------------------------------------------------------------------------
def of_ellipses(
    layouts: Mapping[str, list[Ellipse]], textures: Sequence[Texture], show: Callable[[np.ndarray], np.ndarray]
) -> Example:
    """Return a square example whose layouts are ellipses."""
    regions = {name: partial(draw_regions, ellipses) for name, ellipses in layouts.items()}
    return Example(1.0, regions, partial(paint_regions, textures), show)


FACES = {"label": face(), "long_hair": face(hair=0.44), "turned": face(turn=0.06), "astonished": face(mouth=0.06)}
BAGS = {"label": bag(), "wide": bag(width=0.45, height=0.2), "long_strap": bag(height=0.24, strap=0.36, flap=0.1)}
LAKES = {name: partial(lake.draw_layout, layout) for name, layout in lake.LAYOUTS.items()}
EXAMPLES = {
    "lake": Example(1.5, LAKES, lake.draw_picture, lambda classes: lake.COLOURS[classes]),
    "face": of_ellipses(FACES, FACE_TEXTURES, lambda classes: PARTS[classes]),
    "sketch": of_ellipses(BAGS, BAG_TEXTURES, lambda classes: INK[mark_edges(torch.from_numpy(classes)).int().numpy()]),
}
