"""`brightness`: is the generated part as bright as the truth?

The value of a picture is |Y_fake - Y_real| / 255, Y the mean luminance (ITU-R BT.601) of the masked pixels.
`brightness_dark` is the same over dark pictures: networks that learn the mean of their training set fill these far too
bright. Our own definitions. Shapes: B pictures, H x W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metrics.declaration import Setup, Value
from metrics.metric import Metric, PerPicture
from metrics.pictures import Pictures
from metrics.pixels.reconstruction import NO_TRUTH
from metrics.pixels.stylisation import luminance
from metrics.registry import EDITING, METRICS

DARK = 0.3  # mean luminance / 255 of a dark picture's given pixels: dusk and night


def mean_luminance(pictures: Tensor, where: Tensor) -> Tensor:
    """Return (B,) in [0, 1] of pictures (B,3,H,W) uint8 over `where` (B,1,H,W) bool; NaN where that is empty."""
    return (luminance(pictures) * where).sum((1, 2, 3)) / where.sum((1, 2, 3)) / 255


@METRICS.register
class Brightness(PerPicture):
    """`brightness` and `brightness_dark`; `extra` has the signed means: above 0 the fills are too bright."""

    asked = {EDITING: ("brightness",)}
    needs = {"brightness": ("masks", "truth")}
    values = {
        "brightness": Value(
            "1",
            "|mean luminance of the masked pixels - that of the truth| / 255; mean over pictures",
            lower_is_better=True,
            limits=(0, 1),
        ),
        "brightness_dark": Value(
            "1",
            "|mean luminance of the masked pixels - that of the truth| / 255; mean over pictures whose given pixels "
            f"have a mean luminance below {DARK} * 255",
            lower_is_better=True,
            limits=(0, 1),
        ),
    }
    place = 55

    def __init__(self) -> None:
        super().__init__(tuple(self.values))

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        return [cls()]

    def reset(self) -> None:
        super().reset()
        self._signed: dict[str, list[float]] = {name: [] for name in self.names}
        self._without_truth = False

    def score(self, pictures: Pictures) -> dict[str, Tensor]:
        self._without_truth |= not pictures.has_truth
        if pictures.mask is None or not pictures.has_truth:
            return {name: torch.full((len(pictures),), torch.nan) for name in self.names}
        inside = pictures.mask > 0
        error = mean_luminance(pictures.fake, inside) - mean_luminance(pictures.real, inside)
        dark = mean_luminance(pictures.real, ~inside) < DARK
        signed = {"brightness": error, "brightness_dark": torch.where(dark, error, torch.nan)}
        for name, values in signed.items():
            self._signed[name] += values[~values.isnan()].tolist()
        return {name: values.abs() for name, values in signed.items()}

    def extra(self, name: str) -> dict[str, Any]:
        return {"signed": sum(self._signed[name]) / len(self._signed[name])}

    def why_empty(self, name: str) -> str:
        if self._without_truth:
            return NO_TRUTH
        return "no picture is dark" if name == "brightness_dark" else super().why_empty(name)
