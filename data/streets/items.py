"""The items of a street scene: place, size, colours and patterns. Metres; see `scene.py`."""

from __future__ import annotations

import numpy as np

from data.streets.paint import Canvas, Item, Pattern, Point, Scenery, Wall, hsv

BUILDING, TREE, CAR, PERSON, POLE = 1, 5, 6, 7, 8
_OCTAGON = ((0, 1), (0.7, 0.7), (1, 0), (0.7, -0.7), (0, -1), (-0.7, -0.7), (-1, 0), (-0.7, 0.7))


class Builder:
    """Draws items onto a canvas, far ones first; `items` grows as they are drawn."""

    def __init__(self, canvas: Canvas, scenery: Scenery, rng: np.random.RandomState) -> None:
        self.canvas, self.scenery, self.rng = canvas, scenery, rng
        self.items: list[Item] = []

    def add(self, item: Item) -> int:
        self.items.append(item)
        return len(self.items) - 1

    def vivid(self) -> np.ndarray:
        """Any hue, well saturated; at times nearly white, grey or black."""
        rng = self.rng
        if rng.rand() < 0.18:
            return hsv(rng.rand(), rng.uniform(0.0, 0.1), rng.choice([0.2, 0.6, 0.93]))
        return hsv(rng.rand(), rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.98))

    def pattern(self, kinds: tuple[str, ...], low: float, high: float, second: np.ndarray) -> Pattern:
        return Pattern(str(self.rng.choice(kinds)), float(self.rng.uniform(low, high)), second)


def build_street(b: Builder) -> list[Item]:
    """Draw a whole scene and return its items; the first four are sky, road, pavement and grass."""
    rng = b.rng
    half_road = float(rng.uniform(2.9, 3.9))
    half_all = half_road + float(rng.uniform(1.9, 3.0))
    _ground(b, half_road, half_all)
    _skyline(b, half_all)
    for side in (-1, 1):
        _houses(b, side, half_all)
    props: list[tuple[float, str, float]] = []
    for side in (-1, 1):
        z = rng.uniform(9, 15)
        while z < 46:
            kind = rng.choice(["tree", "pole", "tree", "none"])
            props.append((z, str(kind), side * (half_road + rng.uniform(0.5, 0.9))))
            z += rng.uniform(4.5, 9)
        z = rng.uniform(5.5, 10)
        while z < 34:
            props.append((z, "person", side * rng.uniform(half_road + 0.9, half_all - 0.3)))
            z += rng.uniform(1.5, 10)
        z = rng.uniform(6.5, 16) if rng.rand() < 0.85 else 99.0
        lane = side * half_road * rng.uniform(0.44, 0.54)
        while z < 42:
            props.append((z, "car", lane + rng.uniform(-0.2, 0.2)))
            z += rng.uniform(8, 18)
        z = rng.uniform(7, 22) if half_road > 3.5 else 99.0
        while z < 40:
            props.append((z, "car", side * (half_road - 1.05)))
            z += rng.uniform(6, 15)
    if rng.rand() < 0.3:
        props.append((float(rng.uniform(7, 12)), "person", float(rng.uniform(-0.6, 0.6)) * half_road))
    draw = {"tree": _tree, "pole": _pole, "person": _person, "car": _car}
    for z, kind, x in sorted(_without_crowding(props), reverse=True):
        if kind in draw:
            draw[kind](b, x, z)
    return b.items


def _without_crowding(props: list[tuple[float, str, float]]) -> list[tuple[float, str, float]]:
    """Leave out cars that would overlap."""
    kept: list[tuple[float, str, float]] = []
    for z, kind, x in sorted(props):
        clash = kind == "car" and any(k == "car" and abs(x - kx) < 2.0 and z - kz < 5.6 for kz, k, kx in kept)
        if not clash:
            kept.append((z, kind, x))
    return kept


def _ground(b: Builder, half_road: float, half_all: float) -> None:
    canvas = b.canvas
    sky, road, pavement, grass = (Item(c, [np.zeros(3, np.float32)] * 2) for c in (0, 2, 3, 4))
    for item in (sky, road, pavement, grass):
        b.add(item)
    far = (canvas.centre, canvas.horizon)
    low = canvas.height + 2.0
    z = canvas.focal * canvas.eye / (low - canvas.horizon)
    wide = [(0.0, canvas.horizon), (float(canvas.width), canvas.horizon), (float(canvas.width), low), (0.0, low)]
    canvas.polygon(wide, grass, 3)
    edge = (half_all, half_road + 0.22, half_road)
    for half, item, index, part in zip(edge, (pavement, pavement, road), (2, 2, 1), (0, 1, 0), strict=True):
        corners = [(canvas.centre + s * canvas.focal * half / z, low) for s in (-1, 1)]
        canvas.polygon([far, corners[1], corners[0]], item, index, part)


def _house_item(b: Builder, x: float, z: float, top: float) -> Item:
    rng = b.rng
    hue = rng.uniform(0, 0.16) if rng.rand() < 0.5 else rng.rand()
    body = hsv(hue, rng.uniform(0.15, 0.6), rng.uniform(0.6, 0.95))
    second = np.clip(body * rng.choice([0.72, 0.82, 1.18]), 0, 1) if rng.rand() < 0.7 else hsv(rng.rand(), 0.4, 0.8)
    sunny = (x < 0) != b.scenery.sunny_left
    along, front = (1.0, 0.8) if sunny else (0.74, 0.92)
    wall = Wall(
        x, z, top,
        period=(float(rng.uniform(1.7, 3.2)), float(rng.uniform(2.4, 3.4))),
        share=(float(rng.uniform(0.4, 0.72)), float(rng.uniform(0.42, 0.7))),
        sill=float(rng.uniform(2.5, 3.3)),
        glass=hsv(rng.uniform(0.5, 0.66), rng.uniform(0.15, 0.5), rng.uniform(0.35, 0.8)),
        lit=float(rng.choice([0.0, 0.1, 0.35])),
        shop=b.vivid() * np.float32(0.85),
    )  # fmt: skip
    kinds = ("plain", "plain", "bricks", "across", "upright", "checks", "dots")
    pattern = b.pattern(kinds, 0.9, 2.2, second.astype(np.float32))
    return Item(BUILDING, [body * along, body * front, second * along * 0.7], pattern, (0, 1), depth=z, wall=wall)


def _skyline(b: Builder, half_all: float) -> None:
    """Houses across the far end of the street."""
    rng, x = b.rng, -70.0
    while x < 70:
        wide, top = rng.uniform(8, 16), rng.uniform(6, 20)
        if rng.rand() < 0.75:
            item = _house_item(b, x, 95.0, top)
            item.pattern = None
            index = b.add(item)
            corners = [(x, -0.5), (x + wide, -0.5), (x + wide, top), (x, top)]
            b.canvas.polygon([b.canvas.point(u, y, 95.0) for u, y in corners], item, index, 1)
        x += wide


def _houses(b: Builder, side: int, half_all: float) -> None:
    """A row along one side, from far to near, with gaps."""
    rng, near, row = b.rng, 3.0, []
    while near < 82:
        far = near + rng.uniform(7, 15)
        row.append((near, far, half_all + rng.uniform(0.1, 1.2), rng.uniform(4.8, 14)))
        near = far + (rng.uniform(2.5, 7) if rng.rand() < 0.4 else 0.0)
    for near, far, x, top in reversed(row):
        item = _house_item(b, side * x, near, top)
        index, project = b.add(item), b.canvas.point
        front = [(x, 0.0), (x + 14, 0.0), (x + 14, top), (x, top)]
        b.canvas.polygon([project(side * u, y, near) for u, y in front], item, index, 1)
        along = [(near, 0.0), (far, 0.0), (far, top), (near, top)]
        b.canvas.polygon([project(side * x, y, z) for z, y in along], item, index, 0)


def _tree(b: Builder, x: float, z: float) -> None:
    rng, canvas = b.rng, b.canvas
    hue = rng.choice([rng.uniform(0.2, 0.42), rng.uniform(0.02, 0.14), rng.uniform(0.88, 0.98)], p=[0.6, 0.25, 0.15])
    leaf = hsv(hue, rng.uniform(0.45, 0.8), rng.uniform(0.45, 0.85))
    second = np.clip(hsv(hue + rng.uniform(-0.06, 0.06), 0.55, 0.9) * rng.choice([0.62, 1.1]), 0, 1)
    trunk = hsv(rng.uniform(0.04, 0.1), rng.uniform(0.25, 0.55), rng.uniform(0.25, 0.55))
    pattern = Pattern("leaves", float(rng.uniform(0.10, 0.28)), second.astype(np.float32))
    item = Item(TREE, [leaf, trunk, leaf * 0.68, leaf * 1.18], pattern, (0, 2, 3), depth=z, foot=canvas.point(x, 0, z))
    index, unit = b.add(item), canvas.focal / z
    top, stem = rng.uniform(3.6, 6.8), rng.uniform(1.3, 2.1)
    canvas.shadow(x, z, (1.3, 0.9), 0.42)
    base, crown = canvas.point(x, 0, z), canvas.point(x, stem + 0.5, z)
    canvas.line([base, crown], max(0.26 * unit, 3), item, index, 1)
    if rng.rand() < 0.3:
        for k in range(3):
            low, wide = stem + (top - stem) * k * 0.27, (1.35 - 0.32 * k)
            tip = canvas.point(x, low + (top - stem) * 0.46, z)
            corners = [canvas.point(x - wide, low, z), canvas.point(x + wide, low, z)]
            canvas.polygon([tip, *corners], item, index, 0)
            canvas.polygon([tip, corners[1], canvas.point(x + 0.2 * wide, low, z)], item, index, 2)
        return
    radius = (top - stem) / 2
    wide = radius * rng.uniform(0.75, 1.05)
    lobes = [(rng.uniform(-0.55, 0.55), rng.uniform(-0.55, 0.6), rng.uniform(0.42, 0.62)) for _ in range(6)]
    lobes.append((0.0, 0.0, 0.75))
    for part, lift, size in ((2, -0.10, 1.0), (0, 0.02, 0.93), (3, 0.28, 0.42)):
        for du, dv, r in lobes:
            u, v = canvas.point(x + du * wide, stem + radius * (1 + dv + lift), z)
            canvas.ellipse((u, v), (r * size * wide * unit, r * size * radius * unit), item, index, part)


def _pole(b: Builder, x: float, z: float) -> None:
    rng, canvas = b.rng, b.canvas
    shaft, sign, rim = b.vivid(), b.vivid(), hsv(0.0, 0.0, 0.95)
    pattern = b.pattern(("across", "plain", "slanted"), 0.6, 1.3, hsv(rng.rand(), rng.uniform(0, 0.8), 0.9))
    item = Item(POLE, [shaft, sign, rim], pattern, depth=z, foot=canvas.point(x, 0, z))
    index, unit = b.add(item), canvas.focal / z
    thick, lamp = max(0.17 * unit, 4.0), rng.rand() < 0.5
    top = rng.uniform(4.6, 6.0) if lamp else rng.uniform(2.5, 3.2)
    canvas.shadow(x, z, (0.35, 0.3), 0.4)
    canvas.line([canvas.point(x, 0, z), canvas.point(x, top, z)], thick, item, index)
    if lamp:
        reach = x - np.sign(x) * 1.2
        canvas.line([canvas.point(x, top, z), canvas.point(reach, top + 0.25, z)], thick, item, index)
        canvas.ellipse(canvas.point(reach, top + 0.12, z), (0.38 * unit, 0.2 * unit), item, index, 1)
        return
    centre, size = canvas.point(x, top, z), max(0.42 * unit, 4)
    if rng.rand() < 0.6:
        canvas.ellipse(centre, (size, size), item, index, 2)
        canvas.ellipse(centre, (0.76 * size, 0.76 * size), item, index, 1)
    else:
        u, v = centre
        canvas.polygon([(u, v - size), (u + size, v), (u, v + size), (u - size, v)], item, index, 2)
        canvas.polygon(
            [(u, v - 0.7 * size), (u + 0.7 * size, v), (u, v + 0.7 * size), (u - 0.7 * size, v)], item, index, 1
        )


def _person(b: Builder, x: float, z: float) -> None:
    rng, canvas = b.rng, b.canvas
    skin = hsv(rng.uniform(0.04, 0.09), rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.95))
    hair = hsv(rng.uniform(0.02, 0.13), rng.uniform(0.2, 0.7), rng.uniform(0.1, 0.7))
    shirt, trousers = b.vivid(), b.vivid() * np.float32(0.75)
    pattern = b.pattern(("across", "upright", "checks", "plain", "dots"), 0.24, 0.45, b.vivid())
    item = Item(PERSON, [shirt, trousers, skin, hair], pattern, depth=z, foot=canvas.point(x, 0, z))
    index, k = b.add(item), rng.uniform(0.88, 1.06)
    canvas.shadow(x, z, (0.5, 0.35), 0.5)

    def at(dx: float, y: float) -> Point:
        return canvas.point(x + dx * k, y * k, z)

    step, lean = rng.uniform(0.06, 0.3), rng.choice([-1, 1])
    unit = canvas.focal / z
    for s in (-1, 1):
        canvas.line([at(0.08 * s, 0.9), at(step * s, 0.02)], 0.2 * unit * k, item, index, 1)
        hand = at(s * rng.uniform(0.28, 0.42), 0.85)
        canvas.line([at(0.22 * s, 1.38), hand], 0.13 * unit * k, item, index, 0)
    if rng.rand() < 0.3:  # a skirt or coat
        canvas.polygon([at(-0.2, 1.0), at(0.2, 1.0), at(0.34, 0.45), at(-0.34, 0.45)], item, index, 1)
    canvas.polygon([at(-0.25, 1.45), at(0.25, 1.45), at(0.2, 0.84), at(-0.2, 0.84)], item, index, 0)
    canvas.ellipse(at(0.02 * lean, 1.66), (0.155 * unit * k, 0.18 * unit * k), item, index, 3)
    canvas.ellipse(at(0.05 * lean, 1.61), (0.125 * unit * k, 0.14 * unit * k), item, index, 2)


def _car(b: Builder, x: float, z: float) -> None:
    """A box body with a tapered cabin: rear view on the right side of the road, front view on the left."""
    rng, canvas = b.rng, b.canvas
    body, rear = b.vivid(), x > 0
    colours = [body, body * 0.72, hsv(0.58, 0.25, rng.uniform(0.25, 0.6)), np.full(3, 0.1, np.float32)]
    lights = np.array([0.95, 0.12, 0.1] if rear else [1.0, 0.95, 0.75], np.float32)
    colours += [lights, np.clip(body * 1.15, 0, 1), np.full(3, 0.85, np.float32), colours[2] * np.float32(0.75)]
    pattern = b.pattern(("plain", "plain", "across", "upright", "checks", "slanted"), 0.5, 1.1, b.vivid())
    item = Item(CAR, colours, pattern, (0, 1, 5), depth=z, foot=canvas.point(x, 0, z))
    index = b.add(item)
    half, deck, roof, length = 0.88, rng.uniform(0.85, 1.0), rng.uniform(1.4, 1.75), rng.uniform(3.8, 4.6)
    canvas.shadow(x, z + length / 2, (half + 0.35, length / 2 + 0.5), 0.62)
    near_side = -np.sign(x) * half if abs(x) > half else None  # the flank that the camera sees

    def quad(points: list[tuple[float, float, float]], part: int) -> None:
        canvas.polygon([canvas.point(x + dx, y, z + dz) for dx, y, dz in points], item, index, part)

    def wheel(dz: float) -> None:
        if near_side is not None:
            rim = [(near_side, 0.32 + 0.32 * up, dz + 0.32 * ahead) for up, ahead in _OCTAGON]
            quad(rim, 3)

    for s in (-1, 1):  # tyres under the near end
        quad([(s * 0.86, 0, 0.15), (s * 0.58, 0, 0.15), (s * 0.58, 0.4, 0.15), (s * 0.86, 0.4, 0.15)], 3)
    quad([(-half, deck, 0), (half, deck, 0), (half, deck, length), (-half, deck, length)], 5)
    if near_side is not None:
        f = near_side
        quad([(f, 0.28, 0), (f, 0.28, length), (f, deck, length), (f, deck, 0)], 1)
        wheel(0.85)
        wheel(length - 0.8)
    front, back, a, c = (
        (0.45, length - 1.3, half - 0.08, half - 0.24) if rear else (1.1, length - 0.4, half - 0.08, half - 0.24)
    )
    if near_side is not None:
        f, g = np.sign(near_side) * a, np.sign(near_side) * c
        quad([(f, deck, front), (f, deck, back), (g, roof, back - 0.6), (g, roof, front + 0.5)], 7)
    quad([(-c, roof, front + 0.5), (c, roof, front + 0.5), (c, roof, back - 0.6), (-c, roof, back - 0.6)], 5)
    quad([(-a, deck, front), (a, deck, front), (c, roof, front + 0.5), (-c, roof, front + 0.5)], 2)
    quad([(-half, 0.28, 0), (half, 0.28, 0), (half, deck, 0), (-half, deck, 0)], 0)
    for s in (-1, 1):
        quad([(s * 0.82, 0.62, 0), (s * 0.5, 0.62, 0), (s * 0.5, 0.8, 0), (s * 0.82, 0.8, 0)], 4)
    quad([(-0.26, 0.4, 0), (0.26, 0.4, 0), (0.26, 0.54, 0), (-0.26, 0.54, 0)], 6)
