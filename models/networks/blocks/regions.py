"""Maps that are constant over regions, and their 3x3 convolutions as table look-ups.

Labels, edges, mask and an instance's style take few values together: a convolution of such a map is, at each pixel, the
sum of nine rows of a table, which has a row per tap and region. The sum is the same wherever a 3x3 neighbourhood looks
the same, so it is again a map of regions, finer ones. On a CPU this costs a fraction of the convolution.

Shapes: B batch, H x W pixels, R regions, F finer ones, K channels.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = 9


class Regions:
    """A partition of pixels.

    Args:
        ids: (B, H, W), the region of each pixel.
        count: R; ids are below.
    """

    def __init__(self, ids: Tensor, count: int) -> None:
        self.ids, self.count = ids, count

    @cached_property
    def refined(self) -> tuple[Tensor, Regions]:
        """Return the partition by equal 3x3 neighbourhoods, and the regions (F, 9) in those, row by row.

        R stands for what lies beyond the border.
        """
        taps = torch.arange(self.count + 1, device=self.ids.device)[:, None]  # the last one: beyond the border
        ids = self.ids
        for dim in (2, 1):  # three columns, then three rows of those: a number of nine ids could be too large
            padded = F.pad(ids, (1, 1) if dim == 2 else (0, 0, 1, 1), value=len(taps) - 1)
            ids, parts = combinations(*(padded.narrow(dim, shift, ids.shape[dim]) for shift in range(3)))
            taps = torch.cat([taps[part] for part in parts], dim=1)
            taps = F.pad(taps, (0, 0, 0, 1), value=self.count)
        return taps[:-1], Regions(ids, len(taps) - 1)

    @property
    def worth_refining(self) -> bool:
        """Whether neighbourhoods repeat often enough for look-ups to be cheaper than a convolution."""
        return 2 * self.refined[1].count < self.ids.numel()


class RegionMap:
    """A map (B, K, H, W) as rows (R, K) of its regions."""

    def __init__(self, rows: Tensor, regions: Regions) -> None:
        self.rows, self.regions = rows, regions

    def conv3x3(self, weight: Tensor, bias: Tensor | None) -> RegionMap:
        """Convolve with weight (C, K, 3, 3), zeros around: a map of finer regions."""
        taps, finer = self.regions.refined
        table = F.pad(self.rows @ weight.permute(2, 3, 1, 0).flatten(0, 1), (0, 0, 0, 1))  # (9, R + 1, C)
        rows = TapSum.apply(table, taps)
        return RegionMap(rows if bias is None else rows + bias, finer)

    def relu(self) -> RegionMap:
        """Return the map without its negative values."""
        return RegionMap(F.relu(self.rows), self.regions)

    def dense(self) -> Tensor:
        """Return (B, K, H, W), channels last."""
        ids = self.regions.ids
        return self.rows.index_select(0, ids.flatten()).unflatten(0, ids.shape).permute(0, 3, 1, 2)


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


def combinations(*parts: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Number the combinations of ids that occur.

    Args:
        parts: int64 ids (B, H, W) from 0; the product of their numbers is below 2^63.

    Returns:
        The combination (B, H, W) of each pixel, and the ids (R) of each part.
    """
    counts = [int(part.max()) + 1 for part in parts]
    key = torch.zeros_like(parts[0])
    for part, count in zip(parts, counts, strict=True):
        key = key * count + part
    if math.prod(counts) > 4 * key.numel():
        rest, place = torch.unique(key, return_inverse=True)
    else:  # several times faster than by sorting
        present = torch.zeros(math.prod(counts), dtype=torch.bool, device=key.device)
        present[key.flatten()] = True
        rest, place = present.nonzero().squeeze(1), (present.cumsum(0) - 1)[key]
    ids = []
    for count in reversed(counts):
        ids.append(rest % count)
        rest = rest // count
    return place, ids[::-1]
