"""Edge maps of pictures: suppressed gradients as in S2PreST's `kornia_canny.py`, and Canny's edges.

Shapes: pictures (B, 3, H, W) RGB, float in [0, 1] or uint8, which are computed in float64; maps (B, 1, H, W). All is
computed in strips, so that large photographs need little memory.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from util.gaussian import gaussian_blur
from util.strips import row_strips

EDGES = ("gradient", "canny")
EDGE_SIDES = ("working", "released")
GREY = (0.299, 0.587, 0.114)
SIGMA, RADIUS = 1.0, 2  # of the blur: 5 x 5
LOW, HIGH = 0.1, 0.2  # Canny's thresholds, on the unnormalised gradient
NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1))  # (rows, columns) along the directions 0, 45, 90, 135 degrees, y down
FLAT = 1.5e-3  # a plain surface has 1e-3, a step of one grey level 1e-2
FRACTIONS = 2**14  # of the step from black to white, what magnitudes are rounded to: 60 times float32's error
REACH = RADIUS + 2  # pixels that a value depends on, to each side: blur, Sobel, neighbours
SMALLEST = 3  # pixels a side: the blur's reflected border needs as many


def grey(pictures: Tensor) -> Tensor:
    """Return luminance (B, 1, H, W)."""
    weights = pictures.new_tensor(GREY).view(1, 3, 1, 1)
    return (pictures * weights).sum(1, keepdim=True)


def suppressed_gradient(pictures: Tensor) -> Tensor:
    """Return the Sobel magnitude where it is a maximum along its direction, else 0; it can exceed 1.

    Gaussian blur (5 x 5, sigma 1, reflected border), Sobel without normalisation (replicated border), magnitude
    sqrt(gx^2 + gy^2 + 1e-6); beyond the border the magnitude counts as 0.

    Differs from S2PreST, which asks for a strict maximum: both sides of a straight border are equally steep, so the
    last bits of a convolution, which differ between processors, decided. Here magnitudes are rounded, and the second
    side is kept.
    """
    height, width = pictures.shape[-2:]
    strips = []
    for rows in row_strips(height, width):
        top, bottom = max(0, rows.start - REACH), min(height, rows.stop + REACH)
        strip = _suppressed_gradient(_unit(pictures[..., top:bottom, :]))
        strips.append(strip[..., rows.start - top : rows.stop - top, :])
    return torch.cat(strips, -2)


def _unit(pictures: Tensor) -> Tensor:
    return pictures.double() / 255 if pictures.dtype == torch.uint8 else pictures


def _suppressed_gradient(pictures: Tensor) -> Tensor:
    padded = F.pad(grey(pictures), (RADIUS,) * 4, mode="reflect")
    gx, gy = _sobel(gaussian_blur(padded, sigma=SIGMA, radius=RADIUS))
    magnitude = ((gx.square() + gy.square() + 1e-6).sqrt() * FRACTIONS).round() / FRACTIONS
    direction = torch.round(torch.atan2(gy, gx) * (4 / math.pi)).remainder(4)
    padded = F.pad(magnitude, (1, 1, 1, 1))
    kept = torch.zeros_like(magnitude, dtype=torch.bool)
    for number, (rows, columns) in enumerate(NEIGHBOURS):
        ahead, behind = (_shifted(padded, sign * rows, sign * columns) for sign in (1, -1))
        kept |= (direction == number) & (magnitude > ahead) & (magnitude >= behind)
    return magnitude * (kept & (magnitude > FLAT))


def canny(pictures: Tensor) -> Tensor:
    """Return Canny's edges, 0 or 1: suppressed gradients above `HIGH`, and those above `LOW` connected to them."""
    magnitude = suppressed_gradient(pictures)
    weak, edges = magnitude > LOW, (magnitude > HIGH).float()
    while True:
        grown = F.max_pool2d(edges, 3, stride=1, padding=1) * weak
        if torch.equal(grown, edges):
            return edges
        edges = grown


def edge_picture(picture: np.ndarray, kind: str) -> np.ndarray:
    """Return (H, W, 3) uint8 of a picture (H, W, 3) uint8: dark lines on white; `kind` is one of `EDGES`."""
    tensor = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].float() / 255
    lines = suppressed_gradient(tensor) if kind == "gradient" else canny(tensor)
    drawn = ((1 - lines.clamp(0, 1)) * 255).round().to(torch.uint8)[0, 0].numpy()
    return np.repeat(drawn[..., None], 3, axis=2)


def _sobel(x: Tensor) -> tuple[Tensor, Tensor]:
    kernel = x.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(x, kernel.view(1, 1, 3, 3)), F.conv2d(x, kernel.T.reshape(1, 1, 3, 3))


def _shifted(padded: Tensor, rows: int, columns: int) -> Tensor:
    height, width = padded.shape[-2:]
    return padded[..., 1 + rows : height - 1 + rows, 1 + columns : width - 1 + columns]
