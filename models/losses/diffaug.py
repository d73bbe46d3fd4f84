"""Differentiable augmentation of what a discriminator sees (Zhao et al. 2020, Sec. 3 and A), labels and picture alike.

Real and generated pictures are changed in one way within a step, and the labels are moved with them. Draws come from
the CPU's generator: they are numbers, which no device has to be asked for, and the same for every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from util.errors import UserError
from util.registry import did_you_mean

POLICIES = ("color", "translation", "cutout")
SHIFT, HOLE = 1 / 8, 1 / 2  # of a side: the farthest shift, the side of the hole


@dataclass(frozen=True)
class Draw:
    """What is done to a picture: added brightness, factors, and places in pixels of the coarsest scale."""

    brightness: float = 0.0
    saturation: float = 1.0
    contrast: float = 1.0
    shift: tuple[int, int] = (0, 0)  # rows, columns
    hole: tuple[int, int] | None = None  # its first row and column


class DiffAugment:
    """Draws and applies the `policies`, some of `POLICIES`."""

    def __init__(self, policies: Sequence[str]) -> None:
        for name in policies:
            if name not in POLICIES:
                near = did_you_mean(name, POLICIES)
                raise UserError(f"--diffaug: '{name}' is unknown.{near} Known: {', '.join(POLICIES)}")
        self.policies = frozenset(policies)

    def draw(self, count: int, side: int) -> list[Draw]:
        """Return draws for `count` pictures whose coarsest scale has `side` pixels, from PyTorch's own generator."""
        draws = []
        most, edge = round(side * SHIFT), round(side * HOLE) // 2
        for a, b, c, down, right, row, column in torch.rand(count, 7).tolist():
            draw = Draw()
            if "color" in self.policies:
                draw = replace(draw, brightness=a - 0.5, saturation=2 * b, contrast=0.5 + c)
            if "translation" in self.policies:
                draw = replace(draw, shift=(int(down * (2 * most + 1)) - most, int(right * (2 * most + 1)) - most))
            if "cutout" in self.policies:
                draw = replace(draw, hole=(int(row * (side + 1)) - edge, int(column * (side + 1)) - edge))
            draws.append(draw)
        return draws

    @staticmethod
    def move(x: Tensor, draws: Sequence[Draw], side: int) -> Tensor:
        """Shift and cut out (B, C, s, s), s a multiple of `side`; what is then empty is 0."""
        factor = x.shape[-1] // side
        return torch.stack([_moved(each, draw, factor, side) for each, draw in zip(x, draws, strict=True)])

    @staticmethod
    def change(picture: Tensor, draws: Sequence[Draw], side: int) -> Tensor:
        """Change the colours of pictures (B, 3, s, s), and `move` them."""
        coloured = torch.stack([_coloured(each, draw) for each, draw in zip(picture, draws, strict=True)])
        return DiffAugment.move(coloured, draws, side)


def _coloured(x: Tensor, draw: Draw) -> Tensor:
    x = x + draw.brightness
    if draw.saturation != 1:
        grey = x.mean(0, keepdim=True)
        x = (x - grey) * draw.saturation + grey
    if draw.contrast != 1:
        mean = x.mean()
        x = (x - mean) * draw.contrast + mean
    return x


def _moved(x: Tensor, draw: Draw, factor: int, side: int) -> Tensor:
    down, right = (factor * shift for shift in draw.shift)
    if down or right:
        x = F.pad(x, (right, -right, down, -down))
    if draw.hole is None:
        return x
    length = round(side * HOLE)
    rows, columns = (slice(max(0, factor * at), max(0, factor * (at + length))) for at in draw.hole)
    keep = torch.ones_like(x[:1])
    keep[:, rows, columns] = 0
    return x * keep
