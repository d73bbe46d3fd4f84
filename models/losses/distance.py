"""The mean absolute difference of maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def mean_distance(x: Tensor, target: Tensor) -> Tensor:
    """Return mean |x - target|, in float32 where they have fewer bits; the target may have to be broadcast.

    `F.l1_loss` bit for bit, as is the gradient of x, which takes two passes over the maps here and four there; the
    target has none.
    """
    distance: Tensor = MeanDistance.apply(*(each if each.itemsize >= 4 else each.float() for each in (x, target)))
    return distance


class MeanDistance(torch.autograd.Function):
    """See `mean_distance`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor) -> Tensor:
        """Return the mean."""
        difference = x - target
        ctx.save_for_backward(difference)
        return difference.abs().mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of x."""
        (difference,) = ctx.saved_tensors
        return difference.sign().mul_(grad / difference.numel()), None
