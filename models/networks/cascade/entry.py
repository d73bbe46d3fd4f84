"""What the erased part looks like to the first stage.

In the papers it is mid-grey, whatever the picture. A stage first learns to copy what it sees, the hole as well, and so
fills dark scenes too bright. Grey that is as bright as the visible pixels turns this habit into a help. The simplest
other way, to shift the picture by its brightness before the stages and back after them, ties every output to it; but
they end at black and white (tanh), so that nothing in a dark scene, shifted back, could be white: no lamp, no sky.

Shapes: B batch, S x S pixels, I instances.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.networks.blocks.segments import Segments

HOLE_ENTRIES = ("grey", "picture", "instance")
RED, GREEN, BLUE = 0.299, 0.587, 0.114  # of luminance, ITU-R BT.601


def first_entry(image: Tensor, mask: Tensor, kind: str, inst: Tensor | None = None, count: int = 0) -> Tensor:
    """Return the picture (B, 3, S, S) that the first stage refines, the hole filled by one of `HOLE_ENTRIES`.

    Args:
        image: (B, 3, S, S) in [-1, 1]; mask: (B, 1, S, S), 1 = erased.
        kind: "grey" for 0, "picture" for the mean luminance of a picture's visible pixels, "instance" for that of the
            visible pixels of the instance a pixel is of, or of the picture's where it has none.
        inst: (B, S, S) dense ids below `count`, for "instance".
    """
    valid = 1 - mask
    if kind == "grey":
        return image * valid
    red, green, blue = image.split(1, dim=1)
    luminance = RED * red + GREEN * green + BLUE * blue
    mean = (luminance * valid).sum((1, 2, 3)) / valid.sum((1, 2, 3)).clamp(min=1)
    if kind == "picture":
        return image * valid + mean[:, None, None, None] * mask
    assert inst is not None
    segments = Segments(inst, count)
    seen = segments.mean(valid) > 0
    means = torch.where(seen, segments.mean(luminance, valid), mean[:, None, None])
    return image * valid + segments.paint(means) * mask
