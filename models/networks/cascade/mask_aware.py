"""Mask-aware styles: one code per instance, read from its visible pixels (DivSem, Sec. 3).

An instance that is partly erased has a valid ratio r = visible / all pixels, and its code is scaled and shifted by
functions of r. A fully erased one cannot be read: in training its code comes from the unerased picture, at
inference it is drawn from a bank of codes; both are normalised as if r were 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.networks.blocks.segments import Segments


@dataclass(frozen=True)
class StylePolicy:
    """How an instance's code follows from the codes of its pixels.

    Args:
        pool: "valid" averages over an instance's visible pixels (the paper), "all" over all of them (the release, and
            so the released weights).
        valid_ratio: False leaves the codes as they are (ablation).
        ratio_input: what their scale and shift are functions of: "visible", the valid ratio, or "one", whatever it is
            (ablation: all codes are mapped alike).
        dual_encoding: False has no second source for fully erased instances (ablation): they take the mean of the
            masked picture's pixel codes over their erased pixels, with ratio 0.
    """

    pool: str = "valid"
    valid_ratio: bool = True
    ratio_input: str = "visible"
    dual_encoding: bool = True


PAPER = StylePolicy()


class MaskAwareEncoder(nn.Module, ABC):
    """Styles of instances by a `StylePolicy`; subclasses are the layers that read a picture (`pixel_codes`).

    Args:
        style_dim: D, width of a code.
    """

    def __init__(self, *, style_dim: int, policy: StylePolicy = PAPER) -> None:
        super().__init__()
        self.style_dim, self.policy = style_dim, policy
        if policy.valid_ratio:
            self.gamma = nn.Linear(1, 1)
            self.beta = nn.Linear(1, 1)

    @abstractmethod
    def pixel_codes(self, image: Tensor, valid: Tensor) -> Tensor:
        """image (B,3,H,W), valid (B,1,H,W) -> a code per pixel (B,D,H,W), float32; erased pixels must not be seen."""

    def forward(
        self,
        image: Tensor,
        mask: Tensor,
        inst: Tensor,
        count: int,
        bank_codes: Tensor | None = None,
        hidden: bool | None = None,
    ) -> Tensor:
        """Return the code (B, count, D) of every instance.

        Args:
            image: (B, 3, H, W); its erased pixels are read only if `bank_codes` is None.
            mask: (B, 1, H, W), 1 = erased.
            inst: (B, H, W) dense ids below `count`.
            bank_codes: raw codes (B, I, D) for the instances that are fully erased; None takes them from the
                unerased picture, as in training.
            hidden: whether there are such instances; None looks for them, and so waits for a GPU.
        """
        valid = 1 - mask
        segments = Segments(inst, count)
        ratio = segments.mean(valid)[..., 0]
        pixel_codes = self.pixel_codes(image, valid)
        code = segments.mean(pixel_codes, valid if self.policy.pool == "valid" else None)
        erased = (ratio == 0) & (segments.pixels > 0)
        if not self.policy.dual_encoding:
            code = torch.where(erased[..., None], segments.mean(pixel_codes), code)
            return self.normalise(code, ratio)
        if bank_codes is None and (bool(erased.any()) if hidden is None else hidden):
            bank_codes = self._whole_codes(image, segments)  # costs as much as the first pass; seldom needed
        if bank_codes is not None:
            code = torch.where(erased[..., None], bank_codes, code)
            ratio = torch.where(erased, torch.ones_like(ratio), ratio)
        return self.normalise(code, ratio)

    def raw_codes(self, image: Tensor, inst: Tensor, count: int) -> Tensor:
        """Return the codes (B, I, D) of a whole picture's instances before normalisation, as a style bank holds."""
        return self._whole_codes(image, Segments(inst, count))

    def _whole_codes(self, image: Tensor, segments: Segments) -> Tensor:
        return segments.mean(self.pixel_codes(image, torch.ones_like(image[:, :1])))

    def normalise(self, code: Tensor, ratio: Tensor) -> Tensor:
        """Scale and shift codes (B, I, D) by functions of their valid ratio (B, I)."""
        if not self.policy.valid_ratio:
            return code
        with torch.autocast(code.device.type, enabled=False):
            r = ratio.float()[..., None]
            if self.policy.ratio_input == "one":
                r = torch.ones_like(r)
            return code.float() * torch.sigmoid(self.gamma(r)) + torch.sigmoid(self.beta(r))
