"""A row of line plots drawn with Pillow, with one key for all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from util.errors import UserError
from util.files import require_writable
from util.images import save_png

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 330, 240, 46, 14, 30, 34  # pixels, of a panel and its margins
KEY = 20  # pixels, a line of the key
COLOURS = ((31, 95, 153), (200, 90, 30), (60, 130, 60), (140, 70, 150), (110, 110, 110), (190, 150, 20))
INK, GRID = (60, 60, 60), (225, 225, 225)


@dataclass(frozen=True)
class Panel:
    """Lines over the same values of x.

    Args:
        title: what is drawn against what.
        x: ascending; drawn at equal distances.
        lines: values of y at these, by name, NaN where there is none; may be filled later.
    """

    title: str
    x: Sequence[float]
    lines: dict[str, list[float]] = field(default_factory=dict)


def require_plot(path: Path, flag: str) -> None:
    """Raise `UserError` unless a plot can be saved under this name."""
    if path.suffix != ".png":
        raise UserError(f"{flag} {path}: name a PNG file")
    require_writable(path.parent, flag)


def draw_panels(panels: Sequence[Panel], path: Path) -> None:
    """Save the panels side by side; y axes begin at zero, each with its own scale. One name has one colour."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    font = ImageFont.load_default(12)
    places, rows = _key_places(names, font, WIDTH * len(panels))
    sheet = Image.new("RGB", (WIDTH * len(panels), HEIGHT + KEY * rows), "white")
    draw = ImageDraw.Draw(sheet)
    for number, panel in enumerate(panels):
        _draw_panel(draw, panel, number * WIDTH, colours, font)
    for name, (x, y) in places.items():
        draw.line((x, y + 7, x + 14, y + 7), fill=colours[name], width=3)
        draw.text((x + 18, y), name, fill=INK, font=font)
    save_png(np.array(sheet), path)


def _key_places(
    names: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> tuple[dict[str, tuple[float, int]], int]:
    """Return where each name of the key begins, and its number of lines."""
    places, x, row = dict[str, tuple[float, int]](), float(LEFT), 0
    for name in names:
        length = 18 + font.getlength(name)
        if x > LEFT and x + length > width - RIGHT:
            x, row = float(LEFT), row + 1
        places[name] = (x, HEIGHT + KEY * row)
        x += length + 16
    return places, row + 1


def _draw_panel(
    draw: ImageDraw.ImageDraw,
    panel: Panel,
    place: int,
    colours: Mapping[str, tuple[int, int, int]],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    left, right = place + LEFT, place + WIDTH - RIGHT
    highest = max((y for line in panel.lines.values() for y in line if not math.isnan(y)), default=0) or 1
    step = (right - left) / max(1, len(panel.x) - 1)
    draw.text((left, 6), panel.title, fill=INK, font=font)
    for share in (0.0, 0.5, 1.0):
        y = _height_of(share)
        draw.line((left, y, right, y), fill=GRID)
        draw.text((left - 6, y), f"{share * highest:.3g}", fill=INK, font=font, anchor="rm")
    every = math.ceil(len(panel.x) / 8)  # as many labels as find room
    for i in range(0, len(panel.x), every):
        draw.text((left + i * step, HEIGHT - BOTTOM + 8), f"{panel.x[i]:g}", fill=INK, font=font, anchor="mt")
    for name, line in panel.lines.items():
        points = [(left + i * step, _height_of(y / highest)) for i, y in enumerate(line) if not math.isnan(y)]
        draw.line(points, fill=colours[name], width=2)
        for x, y in points:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colours[name])


def _height_of(share: float) -> float:
    """Return the row of a share of the highest value."""
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
