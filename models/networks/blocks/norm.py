"""Instance norm without parameters.

Shapes: B batch, C channels, H x W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5


def instance_norm(x: Tensor) -> Tensor:
    """Normalise each channel of each picture (B, C, H, W) to mean 0 and variance 1.

    `F.instance_norm`, up to rounding. That copies maps whose channels come last, so those go another way, but for bf16
    on a CPU.
    """
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    if channels_last and (x.device.type != "cpu" or x.dtype == torch.float32):
        return ChannelsLastNorm.apply(x)
    return F.instance_norm(x, eps=EPS)


class ChannelsLastNorm(torch.autograd.Function):
    """Instance norm of (B, C, H, W) in channels-last memory; statistics have 32 bits at least."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the normalised map."""
        pixels = rows(at_least_float32(x))
        centred = pixels - pixels.mean(1, keepdim=True)  # the difference of large sums of squares would be inexact
        scale = torch.rsqrt(centred.square().mean(1, keepdim=True) + EPS)
        y = centred.mul_(scale).to(x.dtype)
        ctx.save_for_backward(y, scale)
        return y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Return the gradient of x."""
        y, scale = ctx.saved_tensors
        g, y = rows(at_least_float32(grad)), at_least_float32(y)
        slope = (g * y).mean(1, keepdim=True)
        dx = torch.addcmul(g - g.mean(1, keepdim=True), y, slope, value=-1).mul_(scale)
        return dx.to(grad.dtype).unflatten(1, grad.shape[2:]).permute(0, 3, 1, 2)


def at_least_float32(x: Tensor) -> Tensor:
    """Return x in float32 if it has fewer bits."""
    return x if x.itemsize >= 4 else x.float()


def rows(x: Tensor) -> Tensor:
    """Return (B, C, H, W) as a row per pixel (B, HW, C): a view where the channels come last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
