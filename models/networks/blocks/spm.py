"""Style-preserved modulation (SPMPGAN, Sec. 3; DivSem adds style codes to the decoders' context).

A feature map is normalised, then modulated twice: by its own unnormalised features, which carry the style of the
visible pixels, and by the context (style codes, labels, edges, mask), which says what to generate.

Shapes: B batch, Cin and Cout features, K context channels, nh hidden channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.blocks.enlarge import enlarged_convs, upsample2
from models.networks.blocks.norm import instance_norm
from models.networks.blocks.regions import RegionMap
from models.networks.blocks.spectral import SpectralConv2d

LEAK = 0.2


@dataclass(frozen=True)
class Modulation:
    """How the layers of a generator are modulated.

    Args:
        hidden: nh, width of the hidden maps.
        kind: "spm", or "spade": by the context alone, as SPADE does (SPMPGAN's ablation).
        raw: the first modulation reads features as they are; False reads them normalised (SPMPGAN's ablation).
    """

    hidden: int = 64
    kind: str = "spm"
    raw: bool = True


SPM = Modulation()


def joined_conv(x: Tensor | RegionMap, convs: list[nn.Conv2d], *, plus: Sequence[float] = ()) -> tuple[Tensor, ...]:
    """Apply 3x3 convolutions of one input as a single one; equal to calling each, up to rounding.

    plus: numbers to add to their biases.
    """
    weight = torch.cat([conv.weight for conv in convs])
    biases = [conv.bias for conv in convs if conv.bias is not None]
    bias = torch.cat([b + number if number else b for b, number in zip(biases, plus or [0] * len(convs), strict=True)])
    if isinstance(x, RegionMap) and x.regions.worth_refining:
        out = x.conv3x3(weight, bias).dense()
    else:
        out = F.conv2d(x.dense() if isinstance(x, RegionMap) else x, weight, bias, padding=1)
    return out.chunk(len(convs), dim=1)


class SPMConv(nn.Module):
    """Convolution, instance norm, and style-preserved modulation.

    Args:
        ctx_channels: K, channels of the context.
        modulation: see there.
        stride: of the convolution; the context comes at the output's size.
        spectral: spectral norm on the convolution (decoders).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        ctx_channels: int,
        modulation: Modulation = SPM,
        stride: int = 1,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        conv = SpectralConv2d if spectral else nn.Conv2d
        self.conv = conv(in_channels, out_channels, 3, stride=stride, padding=1)
        self.modulation, hidden = modulation, modulation.hidden
        if modulation.kind == "spade":
            self.ctx_hidden = nn.Conv2d(ctx_channels, hidden, 3, padding=1)
            self.ctx_gamma = nn.Conv2d(hidden, out_channels, 3, padding=1)
            self.ctx_beta = nn.Conv2d(hidden, out_channels, 3, padding=1)
            return
        self.feat_hidden = nn.Conv2d(in_channels, hidden, 3, stride, padding=1)
        self.feat_gamma = nn.Conv2d(hidden, out_channels, 3, padding=1)
        self.feat_beta = nn.Conv2d(hidden, out_channels, 3, padding=1)
        self.ctx_hidden = nn.Conv2d(ctx_channels, hidden, 3, padding=1)
        self.ctx_gamma_scale = nn.Conv2d(hidden, out_channels, 3, padding=1)
        self.ctx_gamma_shift = nn.Conv2d(hidden, out_channels, 3, padding=1)
        self.ctx_beta_scale = nn.Conv2d(hidden, out_channels, 3, padding=1)
        self.ctx_beta_shift = nn.Conv2d(hidden, out_channels, 3, padding=1)

    def forward(self, x: Tensor, ctx: Tensor | RegionMap) -> Tensor:
        """x (B, Cin, H, W), ctx (B, K, H/stride, W/stride) -> (B, Cout, H/stride, W/stride)."""
        if self.modulation.kind == "spade":
            return self.modulate(self.conv(x), None, ctx)
        # Of x unnormalised: normalisation would remove its style.
        return self.modulate(self.conv(x), self.feat_hidden(x if self.modulation.raw else instance_norm(x)), ctx)

    def modulate(self, x: Tensor, feat: Tensor | None, ctx: Tensor | RegionMap) -> Tensor:
        """Normalise and modulate the convolved x (B, Cout, ...) by the features' hidden map and the context."""
        wanted: Tensor | RegionMap
        if isinstance(ctx, RegionMap):
            wanted = ctx.conv3x3(self.ctx_hidden.weight, self.ctx_hidden.bias).relu()
        else:
            wanted = F.relu(self.ctx_hidden(ctx))
        scale, shift = self.scale_shift(feat, wanted)
        return F.leaky_relu(torch.addcmul(shift, instance_norm(x), scale), LEAK)

    def scale_shift(self, feat: Tensor | None, wanted: Tensor | RegionMap) -> tuple[Tensor, Tensor]:
        """Return 1 + gamma and beta (B, Cout, ...) from the hidden maps of the features and the context."""
        if feat is None:
            scale, shift = joined_conv(wanted, [self.ctx_gamma, self.ctx_beta], plus=(1, 0))
            return scale, shift
        feat_gamma, feat_beta = joined_conv(F.relu(feat), [self.feat_gamma, self.feat_beta])
        gamma_scale, gamma_shift, beta_scale, beta_shift = joined_conv(
            wanted,
            [self.ctx_gamma_scale, self.ctx_gamma_shift, self.ctx_beta_scale, self.ctx_beta_shift],
            plus=(1, 1, 1, 0),
        )
        return torch.addcmul(gamma_shift, feat_gamma, gamma_scale), torch.addcmul(beta_shift, feat_beta, beta_scale)


class SPMUp(nn.Module):
    """Decoder layer: bilinear x2, the skip appended, then `SPMConv` with spectral norm."""

    def __init__(self, in_channels: int, out_channels: int, *, ctx_channels: int, modulation: Modulation = SPM) -> None:
        super().__init__()
        self.spm = SPMConv(in_channels, out_channels, ctx_channels=ctx_channels, modulation=modulation, spectral=True)

    def forward(self, x: Tensor, skip: Tensor | None, ctx: Tensor | RegionMap) -> Tensor:
        spm = self.spm
        if spm.modulation.kind == "spade":
            (x,) = enlarged_convs(x, skip, [spm.conv])
            return spm.modulate(x, None, ctx)
        if spm.modulation.raw:
            convolved, feat = enlarged_convs(x, skip, [spm.conv, spm.feat_hidden])
            return spm.modulate(convolved, feat, ctx)
        x = upsample2(x)
        return spm(x if skip is None else torch.cat([x, skip], dim=1), ctx)
