"""Semantic-aware self-propagation (SASPM; SIEDOB, Sec. 3.2): known pixels of a class lend their style to erased ones.

Shapes: B batch, C features, N classes, S x S pixels of the features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.blocks.scales import resize_nearest
from models.networks.blocks.segments import Segments
from models.networks.blocks.spade import SPADE
from models.networks.blocks.spm import LEAK


class ClassSegments(Segments):
    """The pixels of each class of one-hot maps (B, N, S, S); a pixel may belong to none."""

    def __init__(self, seg: Tensor) -> None:
        self.size = seg.shape[-2:]
        self.member = seg.float().flatten(2)
        self.pixels = self.member.sum(2)


class SASPM(nn.Module):
    """Modulates features by the mean code of each class's known background, painted over all of its background.

    Args:
        channels: C.
        label_nc: N.
        width: of a class's code.
    """

    def __init__(self, channels: int, *, label_nc: int, width: int = 64) -> None:
        super().__init__()
        self.code = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.spade = SPADE(channels, width + label_nc)

    def forward(self, x: Tensor, seg: Tensor, background: Tensor, mask: Tensor, styled: Tensor) -> Tensor:
        """Return features (B, C, S, S) that replace x: there is no residual (as released).

        Args:
            x: (B, C, S, S).
            seg: (B, N, n S, n S) one-hot; background, mask: (B, 1, n S, n S) in {0, 1}; mask 1 = erased.
            styled: (N,) boolean, the classes that may have a code. One without code or known pixels propagates zeros.
        """
        seg, background, mask = (resize_nearest(t, x.shape[-1]) for t in (seg, background, mask))
        seg = seg * background
        segments = ClassSegments(seg)
        codes = segments.mean(F.leaky_relu(self.code(x), LEAK), 1 - mask)
        painted = segments.paint(codes * styled[:, None])
        return F.leaky_relu(self.spade(self.conv(x), torch.cat([painted, seg], dim=1)), LEAK)
