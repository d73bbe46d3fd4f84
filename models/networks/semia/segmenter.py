"""SemIA's segmentation network: predicts a picture's layout as a picture (a regression in [-1, 1], no class scores)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.semia.blocks import Point2d, pointwise


def relu() -> nn.ReLU:
    """Return a ReLU that overwrites its input: the maps of the full size are this network's cost."""
    return nn.ReLU(inplace=True)


class _Branches(nn.Module):
    """Three convolutions of growing reach and the mean of the picture, joined by a 1 x 1 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        dilated = [nn.Conv2d(3, width, 3, padding=d, dilation=d, bias=False) for d in (8, 16)]
        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), Point2d(3, width, bias=False), relu())
        local = [Point2d(3, width, bias=False), *dilated]
        self.convs = nn.ModuleList([*(nn.Sequential(conv, relu()) for conv in local), pooled])
        self.project = nn.Sequential(Point2d(4 * width, width, bias=False), relu(), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        *local, pooled = [conv(x) for conv in self.convs]
        weight: Any = self.project[0].weight
        # The pooled branch is constant over the picture: its part of the 1 x 1 convolution is added, not spread out.
        near, far = weight[:, : 3 * len(weight)], weight[:, 3 * len(weight) :]
        y = pointwise(torch.cat(local, 1), near) + F.conv2d(pooled, far)
        out: Tensor = self.project[1:](y)
        return out


class LayoutSegmenter(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1] to segmentations (B, N, H, W).

    Args:
        seg_nc: N.
        width: channels.
    """

    def __init__(self, *, seg_nc: int = 3, width: int = 128) -> None:
        super().__init__()
        self.body = _Branches(width)
        conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.tail = nn.Sequential(conv, nn.BatchNorm2d(width), relu(), Point2d(width, seg_nc))

    def forward(self, picture: Tensor) -> Tensor:
        out: Tensor = self.tail(self.body(picture))
        return out

    def judge(self, picture: Tensor) -> Tensor:
        """Segment without dropout and by the picture's own statistics; the running ones are neither read nor moved.

        The running statistics were gathered under dropout, which makes them too wide: used without it, they flatten
        the result to nearly one colour until late in training.
        """
        training = self.training
        self.eval()
        norm: Any = self.tail[1]
        y = F.batch_norm(self.tail[0](self.body(picture)), None, None, norm.weight, norm.bias, True, eps=norm.eps)
        out: Tensor = self.tail[2:](y)
        self.train(training)
        return out
