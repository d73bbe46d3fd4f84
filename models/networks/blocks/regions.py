"""Maps that are constant over regions, and their 3x3 convolutions as table look-ups.

Labels, edges, mask and an instance's style take few values together: a convolution of such a map is, at each pixel, the
sum of nine rows of a table, which has a row per tap and region. On a CPU this costs a fraction of the convolution.

Shapes: B batch, H x W pixels, R regions, K channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = 9


class RegionMap:
    """A map (B, K, H, W) as rows (R, K) and the region ids of a 3x3 neighbourhood.

    Args:
        rows: (R, K), the channels of each region.
        taps: (B, H, W, 9), the regions of a pixel and its neighbours, row by row; R stands for the zeros beyond the
            border.
    """

    def __init__(self, rows: Tensor, taps: Tensor) -> None:
        self.rows, self.taps = rows, taps

    @classmethod
    def of(cls, rows: Tensor, region: Tensor) -> RegionMap:
        """Make one of the region (B, H, W) of each pixel."""
        height, width = region.shape[-2:]
        padded = F.pad(region, (1, 1, 1, 1), value=len(rows))
        shifts = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
        return cls(rows, torch.stack(shifts, dim=-1))

    def conv3x3(self, conv: nn.Conv2d) -> Tensor:
        """Return what `conv`, 3x3 with zeros around, gives: (B, C, H, W), channels last."""
        weight = conv.weight.permute(2, 3, 1, 0).flatten(0, 1)  # (9, K, C)
        table = F.pad(self.rows @ weight, (0, 0, 0, 1))  # (9, R + 1, C)
        out = TapSum.apply(table, self.taps.flatten(0, 2)).unflatten(0, self.taps.shape[:3]).permute(0, 3, 1, 2)
        return out if conv.bias is None else out + conv.bias[:, None, None]


class TapSum(torch.autograd.Function):
    """Sum of nine rows of a table: table (9, R, C), taps (P, 9) below R -> (P, C)."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, taps: Tensor) -> Tensor:
        """Return the sums; `table[t]` is read at `taps[:, t]`."""
        ctx.save_for_backward(taps)
        ctx.shape = table.shape
        offset = torch.arange(TAPS, device=taps.device) * table.shape[1]
        return F.embedding_bag(taps + offset, table.flatten(0, 1), mode="sum")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the table's gradient."""
        (taps,) = ctx.saved_tensors
        table = grad.new_zeros(ctx.shape)
        for rows, ids in zip(table, taps.unbind(1), strict=True):
            rows.index_add_(0, ids, grad)
        return table, None


def split_regions(*parts: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Number the combinations of ids that occur.

    Args:
        parts: int64 ids (B, H, W) from 0.

    Returns:
        The combination (B, H, W) of each pixel, and the ids (R) of each part.
    """
    counts = [int(part.max()) + 1 for part in parts]
    key = torch.zeros_like(parts[0])
    for part, count in zip(parts, counts, strict=True):
        key = key * count + part
    present = torch.zeros(int(key.max()) + 1, dtype=torch.bool, device=key.device)
    present[key.flatten()] = True
    rest, ids = present.nonzero().squeeze(1), []
    for count in reversed(counts):
        ids.append(rest % count)
        rest = rest // count
    return (present.cumsum(0) - 1)[key], ids[::-1]
