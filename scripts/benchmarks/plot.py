"""A row of line plots drawn with Pillow: one quantity against several others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from util.images import save_png

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 330, 250, 46, 14, 44, 34  # pixels, of a panel and its margins
COLOURS = ((31, 95, 153), (200, 90, 30), (60, 130, 60))
INK, GRID = (60, 60, 60), (225, 225, 225)


@dataclass(frozen=True)
class Panel:
    """Lines over the same values of x.

    Args:
        title: what the lines are drawn against.
        x: its values, drawn at equal distances.
        lines: values of y at these, by name; may be filled later.
    """

    title: str
    x: Sequence[float]
    lines: dict[str, list[float]] = field(default_factory=dict)


def draw_panels(panels: Sequence[Panel], path: Path, *, unit: str) -> None:
    """Save the panels side by side; y axes begin at zero, each with its own scale."""
    sheet = Image.new("RGB", (WIDTH * len(panels), HEIGHT), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, panel in enumerate(panels):
        left, right = number * WIDTH + LEFT, (number + 1) * WIDTH - RIGHT
        highest = max(value for line in panel.lines.values() for value in line)
        step = (right - left) / max(1, len(panel.x) - 1)
        draw.text((left, 6), f"{unit} against {panel.title}", fill=INK, font=font)
        for share in (0.0, 0.5, 1.0):
            y = height_of(share)
            draw.line((left, y, right, y), fill=GRID)
            draw.text((left - 6, y), f"{share * highest:.3g}", fill=INK, font=font, anchor="rm")
        for i, x in enumerate(panel.x):
            draw.text((left + i * step, HEIGHT - BOTTOM + 8), f"{x:g}", fill=INK, font=font, anchor="mt")
        key = float(left)
        for colour, (name, line) in zip(COLOURS, panel.lines.items(), strict=False):
            points = [(left + i * step, height_of(value / highest)) for i, value in enumerate(line)]
            draw.line(points, fill=colour, width=2)
            for x, y in points:
                draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
            draw.text((key, 22), name, fill=colour, font=font)
            key += draw.textlength(name, font=font) + 14
    save_png(np.array(sheet), path)


def height_of(share: float) -> float:
    """Return the row of a share of the highest value."""
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
