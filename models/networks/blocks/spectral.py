"""Convolution under spectral normalisation in its classic form (Miyato et al. 2018, Alg. 1; one power iteration).

The buffers keep the released names `weight_orig`, `weight_u`, `weight_v`. Unlike `torch.nn.utils.spectral_norm`, the
module can be deep-copied at any time, as it holds no derived weight; a test compares both.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-12


class SpectralConv2d(nn.Module):
    """2-D convolution whose weight is divided by an estimate of its largest singular value.

    In training each forward pass refines the estimate by one power iteration; in evaluation it is used as stored.

    Args:
        padding_mode: "zeros" or "replicate".
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        padding_mode: str = "zeros",
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.padding_mode = stride, padding, padding_mode
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_orig = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight_orig, a=5**0.5)
        self.register_buffer("weight_u", F.normalize(torch.randn(out_channels), dim=0, eps=EPS))
        self.register_buffer("weight_v", F.normalize(torch.randn(in_channels * kernel_size**2), dim=0, eps=EPS))

    def by_output(self) -> Tensor:
        """Return the stored weight (C, K, k, k) with an output channel per row."""
        return self.weight_orig

    def normalised_weight(self) -> Tensor:
        """Return `by_output` / sigma; the gradient flows through W in sigma = u^T W v, not through u and v."""
        u, v = self.vectors()
        with torch.autocast(u.device.type, enabled=False):
            return DividedBySigma.apply(self.by_output(), u, v)

    def sigma(self) -> Tensor:
        """Return what `normalised_weight` divides by, for layers that divide their output instead."""
        weight, (u, v) = self.by_output(), self.vectors()
        with torch.autocast(u.device.type, enabled=False):
            return torch.dot(u, torch.mv(as_stored(weight, weight).flatten(1), v))

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return u, and v in the order of the stored weight; in training after another power iteration.

        They are tensors of their own: a later forward pass changes the buffers before this pass's backward.
        """
        weight = self.by_output()
        stored_v = as_stored(self.weight_v.view(1, *weight.shape[1:]), weight)
        if not self.training:
            return self.weight_u.clone(), stored_v.flatten().clone()
        iterate = power_iteration_as_one if torch.compiler.is_compiling() else power_iteration
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            u, v = iterate(as_stored(weight, weight).flatten(1), self.weight_u)
            self.weight_u.copy_(u)
            stored_v.copy_(v.view(stored_v.shape))
        return u, v

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.normalised_weight(), self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve with this layer's stride and padding."""
        padding = self.padding
        if self.padding_mode == "replicate":
            x, padding = F.pad(x, (self.padding,) * 4, mode="replicate"), 0
        return F.conv2d(x, weight, bias, self.stride, padding)


def power_iteration(matrix: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return better estimates of the singular vectors u (rows) and v (columns) of the largest singular value."""
    v = F.normalize(torch.mv(matrix.t(), u), dim=0, eps=EPS)
    return F.normalize(torch.mv(matrix, v), dim=0, eps=EPS), v


# For `torch.compile`, which must not look inside. It saves memory by computing small things again in the backward pass,
# v from u, when u's buffer holds the next estimate already (PyTorch's pull request 197039), and so returns wrong
# gradients without a word.
power_iteration_as_one = torch.library.custom_op(
    "semedit::power_iteration", power_iteration, mutates_args=(), schema="(Tensor matrix, Tensor u) -> (Tensor, Tensor)"
)


@power_iteration_as_one.register_fake
def _(matrix: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    return u.new_empty(matrix.shape[0]), u.new_empty(matrix.shape[1])


def as_stored(x: Tensor, weight: Tensor) -> Tensor:
    """Return a view of x (.., K, k, k) whose last three dimensions are ordered as the weight's lie in memory."""
    channels_last = weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    return x.movedim(1, -1) if channels_last else x


class DividedBySigma(torch.autograd.Function):
    """W / (u^T W v) for a weight (C, K, k, k), u (C), and v (K k k) in the order of the stored weight.

    Reading the weights takes long where a map has few pixels. PyTorch's own gradient reads them four times as often.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the divided weight."""
        sigma = torch.dot(u, torch.mv(as_stored(weight, weight).flatten(1), v))
        ctx.save_for_backward(weight, u, v, sigma)
        return weight / sigma

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the weight: (G - (G . W) / sigma u v^T) / sigma."""
        weight, u, v, sigma = ctx.saved_tensors
        stored = as_stored(grad, weight)
        rows = stored.flatten(1)
        along = torch.dot(rows.flatten(), as_stored(weight, weight).flatten()) / sigma
        rows = torch.addr(rows, -along * u, v).div_(sigma)
        result = rows.view(stored.shape)
        return (result if stored is grad else result.movedim(-1, 1)), None, None
