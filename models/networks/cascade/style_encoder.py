"""Mask-aware style encoder: one code per instance, read from its visible pixels (DivSem, Sec. 3).

An instance that is partly erased has a valid ratio r = visible / all pixels, and its code is scaled and shifted by
functions of r. One that is fully erased has nothing to read: in training its code comes from the unerased picture, at
inference it is drawn from a bank of codes; both are normalised as if r were 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.networks.blocks.gated import ConvNorm
from models.networks.blocks.segments import Segments
from models.networks.blocks.spm import upsample2

MIN_MULTIPLE = 16  # pixels: four stride-2 layers


def style_conv(in_channels: int, out_channels: int, *, stride: int = 1) -> ConvNorm:
    """Return a 3x3 layer with replicated borders."""
    return ConvNorm(in_channels, out_channels, stride=stride, padding_mode="replicate")


class StyleEncoder(nn.Module):
    """U-Net from a picture and its validity to a code per pixel, pooled over instances.

    Args:
        style_dim: D, width of a code.
        nef: width of the first layer; the others are its multiples (16 gives the released widths).
        style_pool: "valid" averages over an instance's visible pixels (the paper), "all" over all of them (the
            release, and so the released weights).
        valid_ratio: False leaves the codes as they are (ablation).
        dual_encoding: False has no second source for fully erased instances (ablation): they take the mean of the
            masked picture's pixel codes over their erased pixels, with ratio 0.
    """

    def __init__(
        self,
        *,
        style_dim: int = 128,
        nef: int = 16,
        style_pool: str = "valid",
        valid_ratio: bool = True,
        dual_encoding: bool = True,
    ) -> None:
        super().__init__()
        self.style_dim, self.style_pool = style_dim, style_pool
        self.valid_ratio, self.dual_encoding = valid_ratio, dual_encoding
        if valid_ratio:
            self.gamma = nn.Linear(1, 1)
            self.beta = nn.Linear(1, 1)
        self.enc1 = style_conv(4, nef)
        self.enc2 = style_conv(nef, 2 * nef, stride=2)
        self.enc3 = style_conv(2 * nef, 4 * nef, stride=2)
        self.enc4 = style_conv(4 * nef, 8 * nef, stride=2)
        self.enc5 = style_conv(8 * nef, 16 * nef, stride=2)
        self.enc6 = style_conv(16 * nef, 32 * nef)
        self.dec5 = style_conv((32 + 8) * nef, 32 * nef)
        self.dec4 = style_conv((32 + 4) * nef, 16 * nef)
        self.dec3 = style_conv((16 + 2) * nef, 16 * nef)
        self.dec2 = style_conv((16 + 1) * nef, 16 * nef)
        self.dec1 = nn.Conv2d(16 * nef, style_dim, 3, padding=1, padding_mode="replicate", bias=False)

    def pixel_codes(self, image: Tensor, valid: Tensor) -> Tensor:
        """image (B,3,H,W), valid (B,1,H,W) -> a code per pixel (B,D,H,W) in (-1, 1); erased pixels are not seen."""
        e1 = self.enc1(torch.cat([image * valid, valid], dim=1))
        e2 = self.enc2(e1)
        e3 = self.enc3(e2)
        e4 = self.enc4(e3)
        x = self.enc6(self.enc5(e4))
        for layer, skip in ((self.dec5, e4), (self.dec4, e3), (self.dec3, e2), (self.dec2, e1)):
            x = layer(torch.cat([upsample2(x), skip], dim=1))
        return torch.tanh(self.dec1(x).float())

    def raw_codes(self, image: Tensor, inst: Tensor, count: int) -> Tensor:
        """Return the codes (B, I, D) of a whole picture's instances before normalisation, as a style bank holds."""
        return self.whole_codes(image, Segments(inst, count))

    def whole_codes(self, image: Tensor, segments: Segments) -> Tensor:
        """As `raw_codes`, of segments that are at hand."""
        return segments.mean(self.pixel_codes(image, torch.ones_like(image[:, :1])))

    def normalise(self, code: Tensor, ratio: Tensor) -> Tensor:
        """Scale and shift codes (B, I, D) by functions of their valid ratio (B, I)."""
        if not self.valid_ratio:
            return code
        with torch.autocast(code.device.type, enabled=False):
            r = ratio.float()[..., None]
            return code.float() * torch.sigmoid(self.gamma(r)) + torch.sigmoid(self.beta(r))

    def forward(
        self, image: Tensor, mask: Tensor, inst: Tensor, count: int, bank_codes: Tensor | None = None
    ) -> Tensor:
        """Return the style map (B, D, H, W), constant over each instance.

        Args:
            image: (B, 3, H, W); its erased pixels are read only if `bank_codes` is None.
            mask: (B, 1, H, W), 1 = erased.
            inst: (B, H, W) dense ids below `count`.
            bank_codes: raw codes (B, I, D) for the instances that are fully erased; None takes them from the
                unerased picture, as in training.
        """
        valid = 1 - mask
        segments = Segments(inst, count)
        ratio = segments.mean(valid)[..., 0]
        pixel_codes = self.pixel_codes(image, valid)
        code = segments.mean(pixel_codes, valid if self.style_pool == "valid" else None)
        erased = (ratio == 0) & (segments.pixels > 0)
        if not self.dual_encoding:
            code = torch.where(erased[..., None], segments.mean(pixel_codes), code)
        elif bool(erased.any()):  # the second pass costs as much as the first, and most batches do not need it
            hidden = self.whole_codes(image, segments) if bank_codes is None else bank_codes
            code = torch.where(erased[..., None], hidden, code)
            ratio = torch.where(erased, torch.ones_like(ratio), ratio)
        return segments.paint(self.normalise(code, ratio))
