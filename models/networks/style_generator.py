"""DivSem's generator: the cascade with style codes in the decoders' context (DivSem, Fig. 2)."""

from __future__ import annotations

from torch import Tensor

from models.networks.cascade import Cascade, CascadeGenerator
from models.networks.style_encoder import StyleEncoder


class StyleCodeGenerator(CascadeGenerator):
    """`CascadeGenerator` together with the mask-aware style encoder that feeds it.

    Args:
        nef, style_dim, style_pool: of the style encoder; the others are the cascade's.
    """

    def __init__(
        self,
        *,
        label_nc: int,
        crop_size: int,
        ngf: int,
        hidden: int = 64,
        style_dim: int = 128,
        nef: int = 16,
        style_pool: str = "valid",
    ) -> None:
        super().__init__(label_nc=label_nc, crop_size=crop_size, ngf=ngf, hidden=hidden, style_dim=style_dim)
        self.style_encoder = StyleEncoder(style_dim=style_dim, nef=nef, style_pool=style_pool)

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
