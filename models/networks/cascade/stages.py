"""The multi-scale generator: three U-Nets, each refining the previous one at twice its size (SPMPGAN, Sec. 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from models.networks.blocks.enlarge import upsample2
from models.networks.blocks.scales import resize_bilinear, resize_nearest, stage_sizes
from models.networks.blocks.spm import SPM, Modulation
from models.networks.cascade.context import build_context
from models.networks.cascade.entry import first_entry
from models.networks.cascade.mask_aware import MaskAwareEncoder
from models.networks.cascade.unet import SPMUNet
from util.shapes import check_shape


@dataclass
class Cascade:
    """What the three stages see and make; each a list of (B, 3, s, s), coarse to fine.

    real: the picture at the stage's size; entry: the stage's input; fake: its raw output; composite: `fake` under the
    mask, `real` elsewhere. The last composite is the result.
    """

    real: list[Tensor]
    entry: list[Tensor]
    fake: list[Tensor]
    composite: list[Tensor]


class CascadeInputs(NamedTuple):
    """What the generator is called with.

    image (B, 3, S, S); seg (B, N, S, S) one-hot and edge (B, 1, S, S), both zero outside the mask; mask (B, 1, S, S).
    Of generators with styles also inst (B, S, S) with ids below inst_count, and bank_codes (B, inst_count, D) for
    instances that are fully erased; None takes those from the unerased picture, as in training. hidden says whether
    there is such an instance; None looks for one, and so waits for a GPU.
    """

    image: Tensor
    seg: Tensor
    edge: Tensor
    mask: Tensor
    inst: Tensor | None = None
    inst_count: int = 0
    bank_codes: Tensor | None = None
    hidden: bool | None = None


class CascadeGenerator(nn.Module):
    """SPMPGAN's generator, and DivSem's with a style encoder, whose codes join the decoders' context (DivSem, Fig. 2).

    Args:
        label_nc: N, number of one-hot label channels.
        crop_size: pixels of the square pictures, a multiple of 64.
        ngf: base width.
        multi_scale: False has the last stage alone, fed with the masked picture.
        edge_input: False leaves the edge map out of the context.
        style_encoder: trained as a part of the generator.
        hole_entry: what the erased part looks like to the first stage, see `entry.py`; "instance" with styles only.
    """

    def __init__(
        self,
        *,
        label_nc: int,
        crop_size: int,
        ngf: int,
        modulation: Modulation = SPM,
        multi_scale: bool = True,
        edge_input: bool = True,
        style_encoder: MaskAwareEncoder | None = None,
        hole_entry: str = "grey",
    ) -> None:
        super().__init__()
        self.label_nc, self.crop_size, self.edge_input = label_nc, crop_size, edge_input
        self.hole_entry = hole_entry
        self.style_dim = style_dim = 0 if style_encoder is None else style_encoder.style_dim
        self.sizes = stage_sizes(crop_size, multi_scale=multi_scale)
        channels = label_nc + edge_input
        self.stages = nn.ModuleList(
            SPMUNet(size=s, label_channels=channels, ngf=ngf, modulation=modulation, style_dim=style_dim)
            for s in self.sizes
        )
        self.style_encoder = style_encoder

    def forward(
        self,
        image: Tensor,
        seg: Tensor,
        edge: Tensor,
        mask: Tensor,
        inst: Tensor | None = None,
        inst_count: int = 0,
        bank_codes: Tensor | None = None,
        hidden: bool | None = None,
    ) -> Cascade:
        """See `CascadeInputs`."""
        codes = None
        if self.style_encoder is not None:
            assert inst is not None
            codes = self.style_encoder(image, mask, inst, inst_count, bank_codes, hidden)
        return self.render(image, seg, edge, mask, codes, inst)

    def render(
        self, image: Tensor, seg: Tensor, edge: Tensor, mask: Tensor, codes: Tensor | None, inst: Tensor | None
    ) -> Cascade:
        """As `forward`, with given style codes (B, inst_count, D)."""
        check_shape(image, (None, 3, self.crop_size, self.crop_size), "image")
        check_shape(seg, (None, self.label_nc, self.crop_size, self.crop_size), "seg")
        ctx = build_context(seg, edge if self.edge_input else None, mask, codes, inst)
        out = Cascade([], [], [], [])
        for stage, size in zip(self.stages, self.sizes, strict=True):
            real, hole = resize_bilinear(image, size), resize_nearest(mask, size)
            if out.fake:
                entry = hole * upsample2(out.fake[-1]) + (1 - hole) * real
            else:
                count = 0 if codes is None else codes.shape[1]
                entry = resize_bilinear(first_entry(image, mask, self.hole_entry, inst, count), size)
            fake = stage(entry, ctx)
            out.real.append(real)
            out.entry.append(entry)
            out.fake.append(fake)
            out.composite.append(hole * fake + (1 - hole) * real)
        return out
