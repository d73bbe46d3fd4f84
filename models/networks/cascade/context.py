"""The context of the cascade's layers: styles, labels, edges and mask at every size (SPMPGAN, Sec. 3.2).

Shapes: B batch, S x S pixels, N label channels, D width of a style code, I instances.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.networks.blocks.regions import RegionMap, Regions, combinations
from models.networks.blocks.scales import resize_nearest
from models.networks.blocks.segments import Segments


class ContextPyramid:
    """The context [style, labels, edges, mask] at every size that a stage asks for, built once for all stages.

    Sizes divide the full one, so nearest resizing is a strided slice, equal bit for bit.
    """

    def __init__(self, ctx: Tensor, *, style_dim: int) -> None:
        self.ctx, self.style_dim = ctx, style_dim
        self._decoder: dict[int, Tensor] = {}
        self._encoder: dict[int, Tensor] = {}

    def decoder(self, size: int) -> Tensor | RegionMap:
        """Everything, (B, style_dim + N + 2, size, size)."""
        if size not in self._decoder:
            self._decoder[size] = self._slice(self.ctx, size)
        return self._decoder[size]

    def encoder(self, size: int) -> Tensor | RegionMap:
        """Without the style codes, (B, N + 2, size, size): given, so that no gradient is spent on it."""
        if not self.style_dim:
            return self.decoder(size)
        if size not in self._encoder:
            self._encoder[size] = self._slice(self.ctx.detach()[:, self.style_dim :], size)
        return self._encoder[size]

    @staticmethod
    def _slice(ctx: Tensor, size: int) -> Tensor:
        return resize_nearest(ctx, size).contiguous()


class RegionPyramid(ContextPyramid):
    """The same context as look-ups (`blocks/regions.py`).

    Args:
        ctx: rows (R, style_dim + N + 2), one per region.
        region: (B, S, S), the region of each pixel.
    """

    def __init__(self, ctx: Tensor, region: Tensor, *, style_dim: int) -> None:
        super().__init__(ctx, style_dim=style_dim)
        self.region = region
        self._maps: dict[int, RegionMap] = {}

    def decoder(self, size: int) -> RegionMap:
        """As the base."""
        if size not in self._maps:
            self._maps[size] = RegionMap(self.ctx, Regions(resize_nearest(self.region, size), len(self.ctx)))
        return self._maps[size]

    def encoder(self, size: int) -> RegionMap:
        """As the base."""
        return RegionMap(self.ctx.detach()[:, self.style_dim :], self.decoder(size).regions)


def build_context(
    seg: Tensor, edge: Tensor | None, mask: Tensor, codes: Tensor | None, inst: Tensor | None
) -> ContextPyramid:
    """Return the context; on a CPU as look-ups.

    Args:
        seg: (B, N, S, S), one-hot or zero at each pixel; edge, mask: (B, 1, S, S), 0 or 1.
        codes: (B, I, D), the style of each instance; inst: (B, S, S), ids below I.
    """
    on_cpu = seg.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    return (region_context if on_cpu else dense_context)(seg, edge, mask, codes, inst)


def dense_context(
    seg: Tensor, edge: Tensor | None, mask: Tensor, codes: Tensor | None, inst: Tensor | None
) -> ContextPyramid:
    """Return the context as maps; see `build_context`."""
    parts = [seg, mask] if edge is None else [seg, edge, mask]
    if codes is None or inst is None:
        return ContextPyramid(torch.cat(parts, dim=1), style_dim=0)
    style = Segments(inst, codes.shape[1]).paint(codes)
    return ContextPyramid(torch.cat([style, *parts], dim=1), style_dim=codes.shape[2])


def region_context(
    seg: Tensor, edge: Tensor | None, mask: Tensor, codes: Tensor | None, inst: Tensor | None
) -> RegionPyramid:
    """Return the context as look-ups; see `build_context`."""
    classes = seg.shape[1]
    numbers = torch.arange(1, classes + 1, dtype=seg.dtype, device=seg.device)
    label = torch.einsum("bnhw,n->bhw", seg, numbers).long()  # 0 where no label is
    flags = [part[:, 0].long() for part in (edge, mask) if part is not None]
    parts = [label, *flags]
    if codes is not None and inst is not None:
        first = torch.arange(len(inst), device=inst.device) * codes.shape[1]  # of each picture's instances
        parts.append(first[:, None, None] + inst)
    region, (label_ids, *ids) = combinations(*parts)
    rows = [F.one_hot(label_ids, classes + 1)[:, 1:], *(flag[:, None] for flag in ids[: len(flags)])]
    ctx = torch.cat(rows, dim=1).to(seg.dtype)
    if codes is None:
        return RegionPyramid(ctx, region, style_dim=0)
    return RegionPyramid(torch.cat([codes.flatten(0, 1)[ids[-1]], ctx], dim=1), region, style_dim=codes.shape[2])
