"""L1, PSNR and SSIM: how close a result is to the truth, where pixels were generated or on the whole picture.

Per picture, then averaged over pictures; in strips, for which a photograph's size is no matter of memory. Shapes: B
batch, H x W pixels; pictures float64 in [0, 255], RGB.
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
from util.strips import row_strips

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
        parts = {f"{kind}_{where}": (kind, where) for kind in KINDS for where in _WHERE}
        self._parts = {name: parts[name] for name in names}
        if any(kind == "ssim" for kind, _ in self._parts.values()):
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
        mask = torch.zeros_like(pictures.real[:, :1]) if pictures.mask is None else pictures.mask
        inside = mask > 0
        filled = inside.flatten(1).sum(1)
        pixels = {"masked": filled, "whole": torch.full_like(filled, inside[0].numel())}
        self.empty += [name for name, count in zip(pictures.name, filled.tolist(), strict=True) if not count]
        sums = {name: torch.zeros(len(pictures), dtype=torch.float64, device=inside.device) for name in self.names}
        kinds = {kind for kind, _ in self._parts.values()}
        for rows in row_strips(*inside.shape[-2:]):
            maps = {kind: _map(kind, pictures, rows) for kind in kinds}
            for name, (kind, where) in self._parts.items():
                wanted = maps[kind] * inside[..., rows, :] if where == "masked" else maps[kind]
                sums[name] += wanted.sum((1, 2, 3))
        return {
            name: _finish(kind, sums[name] / (pixels[where] * pictures.real.shape[1]))
            for name, (kind, where) in self._parts.items()
        }

    def extra(self, name: str) -> dict[str, Any]:
        extra: dict[str, Any] = {} if name in WHOLE else {"pictures_with_empty_mask": len(self.empty)}
        if name.startswith("psnr"):
            extra["pictures_at_cap"] = sum(value >= PSNR_CAP for value in self.each[name])
        return extra

    def why_empty(self, name: str) -> str:
        return NO_TRUTH if self.without_truth else super().why_empty(name)


def _map(kind: str, pictures: Pictures, rows: slice) -> Tensor:
    """Return what is averaged, (B,3,h,W) float64, in some rows."""
    if kind == "ssim":
        return ssim_terms(pictures.fake, pictures.real, border="mirrored", rows=rows)[0]
    difference = pictures.fake[..., rows, :].double() - pictures.real[..., rows, :].double()
    return difference.abs() if kind == "l1" else difference.square()


def _finish(kind: str, mean: Tensor) -> Tensor:
    if kind == "l1":
        return mean / 255
    return (10 * torch.log10(255**2 / mean)).clamp(max=PSNR_CAP) if kind == "psnr" else mean
