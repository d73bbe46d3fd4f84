"""Drawing of street scenes: shapes go to a map of codes first, colours and patterns are computed for what is visible.

A code is 16 * item + part. Colours are float32 RGB in [0, 1].
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
_NOISE = np.random.RandomState(7).rand(256, 256).astype(np.float32)  # a fixed grain
_NEAREST_Z = 1.2
_HAZE_LENGTH = 200.0  # metres


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """Return RGB (3,) float32 in [0, 1]; a hue wraps around at 1."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), np.float32)


@dataclass
class Pattern:
    """How two colours alternate over a surface: kind, period in metres, and the second colour."""

    kind: str
    period: float
    second: np.ndarray

    def weight(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the share in {0, 1} of the second colour at surface coordinates (a across, b up), in metres."""
        p = self.period
        if self.kind == "across":
            return (b % p < 0.45 * p).astype(np.float32)
        if self.kind == "upright":
            return (a % p < 0.45 * p).astype(np.float32)
        if self.kind == "slanted":
            return ((a + b) % p < 0.45 * p).astype(np.float32)
        if self.kind == "checks":
            return ((np.floor(2 * a / p) + np.floor(2 * b / p)) % 2).astype(np.float32)
        if self.kind == "dots":
            return ((a % p / p - 0.5) ** 2 + (b % p / p - 0.5) ** 2 < 0.08).astype(np.float32)
        if self.kind == "bricks":
            shift = 0.5 * (np.floor(2 * b / p) % 2)
            return ((2 * b / p % 1 < 0.22) | ((a / p + shift) % 1 < 0.12)).astype(np.float32)
        return np.zeros_like(a)


@dataclass
class Wall:
    """The two visible faces of a house: along the street at x, towards the camera at z; and its windows."""

    x: float
    z: float
    top: float
    period: Point
    share: Point
    sill: float
    glass: np.ndarray
    lit: float
    shop: np.ndarray


@dataclass
class Item:
    """One thing or one kind of ground: class, colour of each part, and the pattern of the parts `patterned`.

    `depth` is z in metres for haze; `foot` the pixel (u, v) where surface coordinates start; `box` its bounds in
    pixels (left, top, right, bottom), grown as shapes are drawn.
    """

    class_id: int
    colours: list[np.ndarray]
    pattern: Pattern | None = None
    patterned: tuple[int, ...] = (0,)
    depth: float = 0.0
    foot: Point = (0.0, 0.0)
    wall: Wall | None = None
    box: list[float] = field(default_factory=lambda: [1e9, 1e9, -1e9, -1e9])


class Scenery:
    """What is drawn once per scene: light, sky, road and ground hues."""

    def __init__(self, rng: np.random.RandomState) -> None:
        sky_hue = rng.choice([0.57, 0.60, 0.54, 0.50, 0.64, 0.94, 0.08, 0.74]) + rng.uniform(-0.03, 0.03)
        self.zenith = hsv(sky_hue, rng.uniform(0.3, 0.65), rng.uniform(0.72, 0.98))
        warm = hsv(rng.uniform(0.02, 0.16), rng.uniform(0.05, 0.35), 1.0)
        self.horizon = 0.55 * warm + 0.45 * (0.35 * self.zenith + 0.65)
        self.light = 0.88 + 0.12 * warm
        self.road = hsv(rng.rand(), rng.uniform(0.04, 0.26), rng.uniform(0.30, 0.52))
        self.pavement = hsv(rng.rand(), rng.uniform(0.03, 0.25), rng.uniform(0.62, 0.82))
        self.grass = hsv(rng.uniform(0.18, 0.38), rng.uniform(0.35, 0.65), rng.uniform(0.50, 0.72))
        self.marking = hsv(0.13, rng.choice([0.0, 0.0, 0.5]), 0.95)
        self.sunny_left = bool(rng.randint(2))
        self.tile = float(rng.uniform(0.8, 1.6))
        self.cloud = float(rng.uniform(0.0, 0.9))


class Canvas:
    """The map of codes at the enlarged size, and the camera that projects onto it."""

    def __init__(self, height: int, width: int, rng: np.random.RandomState) -> None:
        self.height, self.width = height, width
        self.focal = 1.1 * height
        self.eye = float(rng.uniform(1.6, 2.2))
        self.horizon = height * float(rng.uniform(0.45, 0.54))
        self.centre = width * 0.5 + height * float(rng.uniform(-0.16, 0.16))
        self._image = Image.new("I", (width, height), 0)
        self._draw = ImageDraw.Draw(self._image)
        self.shade = Image.new("L", (width // 3, height // 3), 0)  # shadows on the ground
        self._shade_draw = ImageDraw.Draw(self.shade)

    def point(self, x: float, y: float, z: float) -> Point:
        """Project metres to pixels."""
        z = max(z, _NEAREST_Z)
        return self.centre + self.focal * x / z, self.horizon - self.focal * (y - self.eye) / z

    def polygon(self, points: Sequence[Point], item: Item, index: int, part: int = 0) -> None:
        self._grow(item, [p[0] for p in points], [p[1] for p in points])
        self._draw.polygon([(round(u), round(v)) for u, v in points], fill=16 * index + part)

    def ellipse(self, centre: Point, radii: Point, item: Item, index: int, part: int = 0) -> None:
        box = (centre[0] - radii[0], centre[1] - radii[1], centre[0] + radii[0], centre[1] + radii[1])
        self._grow(item, [box[0], box[2]], [box[1], box[3]])
        self._draw.ellipse([round(c) for c in box], fill=16 * index + part)

    def line(self, points: Sequence[Point], width: float, item: Item, index: int, part: int = 0) -> None:
        half = width / 2 + 1
        self._grow(
            item, [p[0] + s for p in points for s in (-half, half)], [p[1] + s for p in points for s in (-half, half)]
        )
        self._draw.line([(round(u), round(v)) for u, v in points], fill=16 * index + part, width=max(1, round(width)))

    def shadow(self, x: float, z: float, radii: Point, strength: float = 0.5) -> None:
        """Darken the ground around (x, z); radii in metres across and ahead."""
        left, right = (self.point(x + s * radii[0], 0, z)[0] for s in (-1, 1))
        v0, v1 = (self.point(x, 0, z + s * radii[1])[1] for s in (-1, 1))
        self._shade_draw.ellipse([round(c / 3) for c in (left, v1, right, v0)], fill=int(255 * strength))

    def codes(self) -> np.ndarray:
        """Return the codes (height, width) int32."""
        return np.array(self._image)

    def _grow(self, item: Item, us: list[float], vs: list[float]) -> None:
        box = item.box
        item.box = [min(box[0], *us), min(box[1], *vs), max(box[2], *us), max(box[3], *vs)]


def paint(
    code: np.ndarray, items: list[Item], canvas: Canvas, scenery: Scenery, rng: np.random.RandomState
) -> np.ndarray:
    """Colour a map of codes; returns (height, width, 3) float32 in about [0, 1], before the scene's light."""
    table = np.zeros((len(items) * 16, 3), np.float32)
    for i, item in enumerate(items):
        table[16 * i : 16 * i + len(item.colours)] = [_haze(c, item.depth, scenery) for c in item.colours]
    picture = np.take(table, code, axis=0)  # several times faster than table[code]
    _paint_sky(picture, code, canvas, scenery, rng)
    _paint_ground(picture, code, canvas, scenery)
    for i, item in enumerate(items):
        if item.wall is not None or item.pattern is not None:
            _paint_item(picture, code, i, item, canvas, scenery)
    return picture


def _fading(depth: np.ndarray, length: float) -> np.ndarray:
    """Fall from 1 to 0 with depth. Not `exp`: only +, -, *, / give the same bits on every processor."""
    near = 1 / (1 + depth * np.float32(1 / length))
    return near * near


def _haze(colour: np.ndarray, depth: np.ndarray | float, scenery: Scenery) -> np.ndarray:
    """Blend colours (..., 3) towards the horizon's over depths (...) in metres."""
    clear = _fading(np.asarray(depth, np.float32), _HAZE_LENGTH)[..., None]
    return scenery.horizon + (colour - scenery.horizon) * clear


def _paint_sky(
    picture: np.ndarray, code: np.ndarray, canvas: Canvas, scenery: Scenery, rng: np.random.RandomState
) -> None:
    rows = int(canvas.horizon) + 2
    height = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    colour = scenery.zenith + (scenery.horizon - scenery.zenith) * height * (0.7 + 0.3 * height)
    coarse = Image.fromarray((rng.rand(6, 8) * 255).astype(np.uint8)).resize((24, 18), Image.Resampling.BICUBIC)
    fine = np.asarray(coarse, np.float32) + 40 * (rng.rand(18, 24).astype(np.float32) - 0.5)
    blobs = Image.fromarray(np.clip(fine, 0, 255).astype(np.uint8)).resize(
        (picture.shape[1], rows), Image.Resampling.BICUBIC
    )
    cloud = np.clip((np.asarray(blobs, np.float32)[..., None] / 255 - 0.52) * 2.4, 0, 1) * scenery.cloud
    visible = (code[:rows] >> 4) == 0
    picture[:rows][visible] = (colour + (1.0 - colour) * 0.85 * cloud)[visible]


def _paint_ground(picture: np.ndarray, code: np.ndarray, canvas: Canvas, scenery: Scenery) -> None:
    """Lane marks and asphalt, pavement tiles and grass, in metres on the ground; then shadows and haze."""
    top = int(canvas.horizon)
    item, part = code[top:] >> 4, code[top:] & 15
    below = np.maximum(np.arange(top, canvas.height) + 0.5 - canvas.horizon, 0.5)
    z = (canvas.focal * canvas.eye / below).astype(np.float32)[:, None]
    x = (np.arange(canvas.width, dtype=np.float32) + np.float32(0.5 - canvas.centre)) * (z / np.float32(canvas.focal))
    road, pavement, grass = item == 1, item == 2, item == 3
    fade = _fading(z, 20.0)
    strength = (0.10 * road + 0.06 * pavement + 0.30 * grass).astype(np.float32)
    grain = _NOISE[(z * 9).astype(np.int32) & 255, (x * 9).astype(np.int32) & 255] - np.float32(0.5)
    factor = 1 + strength * grain * (0.3 + fade)
    seam = 0.07 * scenery.tile
    factor -= 0.16 * fade * (((x % scenery.tile < seam) | (z % scenery.tile < seam)) & pavement)
    factor[part == 1] *= 0.72  # the kerb
    shade = canvas.shade.resize((canvas.width, canvas.height), Image.Resampling.BILINEAR)
    factor *= 1 - np.asarray(shade)[top:] * np.float32(1 / 255)
    base = np.stack([scenery.road, scenery.pavement, scenery.grass, scenery.marking])
    kind = np.clip(item - 1, 0, 2)
    kind[road & (np.abs(x) < 0.09) & (z % 5 < 2.6)] = 3
    clear = _fading(z, _HAZE_LENGTH)
    colour = np.take(base, kind, axis=0) * (factor * clear)[..., None] + ((1 - clear) * scenery.horizon)[:, None]
    np.copyto(picture[top:], colour, where=(road | pavement | grass)[..., None])


def _paint_item(
    picture: np.ndarray, code: np.ndarray, index: int, item: Item, canvas: Canvas, scenery: Scenery
) -> None:
    """Apply the pattern, and for houses the windows, to the visible pixels of the patterned parts."""
    left, top = max(0, int(item.box[0])), max(0, int(item.box[1]))
    right, bottom = min(canvas.width, int(item.box[2]) + 2), min(canvas.height, int(item.box[3]) + 2)
    if left >= right or top >= bottom:
        return
    window = code[top:bottom, left:right]
    for part in item.patterned:
        rows, columns = np.nonzero(window == 16 * index + part)
        if not len(rows):
            continue
        u, v = (columns + left).astype(np.float32), (rows + top).astype(np.float32)
        if item.wall is not None:
            colour = _haze(*_wall_colour(u, v, part, item, item.wall, canvas), scenery)
        else:
            scale = np.float32(item.depth / canvas.focal)
            a, b = (u - item.foot[0]) * scale, (item.foot[1] - v) * scale
            colour = _haze(_patterned(item, part, a, b), item.depth, scenery)
        picture[rows + top, columns + left] = colour


def _patterned(item: Item, part: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    colour = np.broadcast_to(item.colours[part], (len(a), 3))
    if item.pattern is None:
        return colour
    brightness = item.colours[part].max() / max(item.colours[0].max(), 1e-3)
    weight = item.pattern.weight(a, b)[:, None]
    if item.pattern.kind == "leaves":
        grain = _NOISE[
            (b / item.pattern.period).astype(np.int32) & 255, (a / item.pattern.period).astype(np.int32) & 255
        ]
        weight = 0.6 * (grain[:, None] > 0.62).astype(np.float32)
    return colour + (item.pattern.second * brightness - colour) * weight


def _wall_colour(
    u: np.ndarray, v: np.ndarray, part: int, item: Item, wall: Wall, canvas: Canvas
) -> tuple[np.ndarray, np.ndarray]:
    """Colours of pixels of a house: part 0 runs along the street, part 1 faces the camera."""
    offset: np.ndarray = u + np.float32(0.5 - canvas.centre)
    depth: np.ndarray
    if part == 0:
        depth = np.float32(canvas.focal * wall.x) / np.where(np.abs(offset) < 1, np.float32(1), offset)
        a = depth - np.float32(wall.z)
    else:
        depth = np.full(u.shape, wall.z, np.float32)
        a = np.abs(offset) * np.float32(wall.z / canvas.focal) - np.float32(abs(wall.x))
    y = np.float32(canvas.eye) - (v + 0.5 - np.float32(canvas.horizon)) * depth / np.float32(canvas.focal)
    colour = _patterned(item, part, a, y).copy()
    colour[y > wall.top - 0.45] = item.colours[2]
    cell_a, cell_y = np.floor(a / wall.period[0]), np.floor((y - wall.sill) / wall.period[1])
    in_a = np.abs(a / wall.period[0] - cell_a - 0.5) < wall.share[0] / 2
    in_y = np.abs((y - wall.sill) / wall.period[1] - cell_y - 0.5) < wall.share[1] / 2
    windows = in_a & in_y & (cell_y >= 0) & (y < wall.top - 0.6)
    lit = _NOISE[cell_y.astype(np.int32) & 255, (cell_a.astype(np.int32) * 5 + part * 3) & 255] < wall.lit
    tilt = 1 - 0.25 * ((y - wall.sill) / wall.period[1] - cell_y)
    shade = item.colours[part].max() / max(item.colours[0].max(), item.colours[1].max())
    glass = np.where(lit[:, None], np.array([1.0, 0.86, 0.55], np.float32), wall.glass * tilt[:, None]) * shade
    colour[windows] = glass[windows]
    shop = (y < wall.sill - 0.25) & (y > 0.35) & (np.abs(a / wall.period[0] - cell_a - 0.5) < 0.38)
    colour[shop] = (wall.shop * shade)[None]
    return colour, depth
