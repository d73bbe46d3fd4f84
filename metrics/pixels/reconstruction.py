"""L1, PSNR and SSIM: how close a result is to the truth, where pixels were generated or on the whole picture.

Per picture, then averaged over pictures. Shapes: B batch, H x W pixels; pictures float64 in [0, 255], RGB.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from metrics.declaration import Setup, Value
from metrics.metric import Metric, PerPicture
from metrics.pictures import Pictures
from metrics.pixels.ssim import WINDOW, ssim_terms
from metrics.registry import ANALOGY, EDITING, METRICS, STYLISING

KINDS = ("l1", "psnr", "ssim")
WHOLE = tuple(f"{kind}_whole" for kind in KINDS)
PSNR_CAP = 100.0  # dB; a picture without any difference would be infinite
NO_TRUTH = "the real pictures do not show what the labels ask for"
_OVER = "over {0} pixels and RGB channels"
_L1 = f"mean absolute difference {_OVER}, divided by 255; mean over pictures"
_PSNR = f"10 log10(255^2 / MSE), MSE {_OVER}, at most 100 dB; mean over pictures"
_VALUES = {
    "l1": Value("1", _L1, lower_is_better=True, limits=(0, 1)),
    "psnr": Value("dB", _PSNR, limits=(0, PSNR_CAP)),
    "ssim": Value(
        "1",
        "SSIM map (Gaussian 11x11, sigma 1.5, K1 .01, K2 .03, range 255, RGB channels averaged, reflected border) "
        "of the whole picture, averaged over {0} pixels; mean over pictures",
        limits=(-1, 1),
    ),
}
_WHERE = {"masked": "masked", "whole": "all"}


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return (B,) means of (B,C,H,W) over mask (B,1,H,W); NaN where the mask is empty."""
    mask = mask.to(values.dtype)
    return (values * mask).sum((1, 2, 3)) / (mask.sum((1, 2, 3)) * values.shape[1])


@METRICS.register
class Reconstruction(PerPicture):
    """`l1_masked`, ..., `ssim_whole`, those in `names`."""

    asked = {EDITING: (*KINDS, *WHOLE), ANALOGY: KINDS, STYLISING: KINDS[1:]}
    needs = {kind: ("masks", "truth") for kind in KINDS} | dict.fromkeys(WHOLE, ("truth",))
    values = {
        f"{kind}_{where}": replace(value, protocol=value.protocol.format(pixels))
        for where, pixels in _WHERE.items()
        for kind, value in _VALUES.items()
    }
    place = 30

    def __init__(self, names: tuple[str, ...]) -> None:
        self._parts = {f"{kind}_{where}": (kind, where) for kind in KINDS for where in _WHERE}
        if any(self._parts[name][0] == "ssim" for name in names):
            self.smallest_side = WINDOW
        super().__init__(names)

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        where = "whole" if setup.whole else "masked"
        return [cls(tuple(dict.fromkeys(name if name in WHOLE else f"{name}_{where}" for name in names)))]

    def reset(self) -> None:
        super().reset()
        self.empty: list[str] = []
        self.without_truth = 0

    def score(self, pictures: Pictures) -> dict[str, Tensor]:
        if not pictures.has_truth:
            self.without_truth += len(pictures)
            return {name: torch.full((len(pictures),), torch.nan) for name in self.names}
        fake, real = pictures.fake.double(), pictures.real.double()
        whole = torch.ones_like(fake[:, :1])
        mask = torch.zeros_like(whole) if pictures.mask is None else (pictures.mask > 0).to(whole)
        filled = mask.flatten(1).any(1).tolist()
        self.empty += [name for name, some in zip(pictures.name, filled, strict=True) if not some]
        kinds = {self._parts[name][0] for name in self.names}
        maps = {}
        if "l1" in kinds:
            maps["l1"] = (fake - real).abs()
        if "psnr" in kinds:
            maps["psnr"] = (fake - real).square()
        if "ssim" in kinds:
            maps["ssim"], _ = ssim_terms(fake, real, border="mirrored")
        scores = {}
        for name in self.names:
            kind, where = self._parts[name]
            scores[name] = _finish(kind, masked_mean(maps[kind], mask if where == "masked" else whole))
        return scores

    def extra(self, name: str) -> dict[str, Any]:
        extra: dict[str, Any] = {} if name in WHOLE else {"pictures_with_empty_mask": len(self.empty)}
        if name.startswith("psnr"):
            extra["pictures_at_cap"] = sum(value >= PSNR_CAP for value in self.each[name])
        return extra

    def why_empty(self, name: str) -> str:
        return NO_TRUTH if self.without_truth else super().why_empty(name)


def _finish(kind: str, mean: Tensor) -> Tensor:
    if kind == "l1":
        return mean / 255
    return (10 * torch.log10(255**2 / mean)).clamp(max=PSNR_CAP) if kind == "psnr" else mean
