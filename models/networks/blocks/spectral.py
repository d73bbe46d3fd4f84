"""Convolution under spectral normalisation in its classic form (Miyato et al. 2018, Alg. 1; one power iteration).

The buffers keep the released names `weight_orig`, `weight_u`, `weight_v`. Unlike `torch.nn.utils.spectral_norm`, the
module can be deep-copied at any time, as it holds no derived weight; a test compares both.
"""

from __future__ import annotations

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

    def matrix(self) -> Tensor:
        """Return the weight as a matrix with a row per output channel."""
        return self.weight_orig.flatten(1)

    def normalised_weight(self) -> Tensor:
        """Return W / sigma; the gradient flows through W in sigma = u^T W v, not through u and v."""
        matrix = self.matrix()
        with torch.autocast(matrix.device.type, enabled=False):
            if self.training:
                with torch.no_grad():
                    self.weight_v.copy_(F.normalize(torch.mv(matrix.t(), self.weight_u), dim=0, eps=EPS))
                    self.weight_u.copy_(F.normalize(torch.mv(matrix, self.weight_v), dim=0, eps=EPS))
            # Copies: a later forward pass changes the buffers before this pass's backward.
            u, v = self.weight_u.clone(), self.weight_v.clone()
            return self.weight_orig / torch.dot(u, torch.mv(matrix, v))

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_mode == "replicate":
            x, padding = F.pad(x, (self.padding,) * 4, mode="replicate"), 0
        return F.conv2d(x, self.normalised_weight(), self.bias, self.stride, padding)
