"""DivSem's generator: the cascade with style codes in the decoders' context (DivSem, Fig. 2)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from models.networks.cascade.stages import Cascade, CascadeGenerator
from models.networks.cascade.style_encoder import StyleEncoder


class StyleCodeGenerator(CascadeGenerator):
    """`CascadeGenerator` together with the mask-aware style encoder that feeds it.

    Args:
        style_encoder: gives the codes; cascade: what `CascadeGenerator` takes.
    """

    def __init__(self, *, style_encoder: StyleEncoder, **cascade: Any) -> None:
        super().__init__(style_dim=style_encoder.style_dim, **cascade)
        self.style_encoder = style_encoder

    def forward(  # type: ignore[override]
        self,
        image: Tensor,
        seg: Tensor,
        edge: Tensor,
        mask: Tensor,
        inst: Tensor,
        count: int,
        bank_codes: Tensor | None = None,
    ) -> Cascade:
        """As the cascade; `inst` (B, S, S) with ids below `count`, `bank_codes` (B, count, D) for erased instances."""
        style = self.style_encoder(image, mask, inst, count, bank_codes)
        return super().forward(image, seg, edge, mask, style)
