"""Style consistency: is the generated part of a partly erased instance like its visible part?

Only instances with at least `MIN_PIXELS` generated and as many visible pixels count. For each:
- `style_colour`: sqrt(sum over R, G, B of (m_g - m_v)^2 + (s_g - s_v)^2) / 255 of the means m and standard deviations s
  (over n) of the two parts' colours: the 2-Wasserstein distance of Gaussians without correlations between channels.
- `style_texture`: |t_g - t_v| / 255, t the mean absolute step of the RGB mean between neighbours (right and below) that
  lie in the same part of the same instance.
Mean over a picture's instances, then over pictures. Our own definitions. Shapes: B pictures, H x W pixels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from metrics.declaration import Setup, Value
from metrics.metric import Metric, PerPicture
from metrics.pictures import Distinct, Pictures
from metrics.registry import EDITING, METRICS

MIN_PIXELS = 64


def style_distances(picture: Tensor, mask: Tensor, inst: Tensor) -> Tensor:
    """Return (2,): mean colour and texture distance over the instances of one picture, NaN without any.

    Args:
        picture: (3,H,W) uint8.
        mask: (H,W), not 0 where generated.
        inst: (H,W) int64, any ids.
    """
    x = picture.double()
    ids, place = inst.unique(return_inverse=True)
    part = 2 * place + (mask > 0)  # even: visible, odd: generated
    bins = 2 * len(ids)
    count = torch.bincount(part.flatten(), minlength=bins).double()
    mean, square = (torch.stack([_sums(part, c, bins) for c in values]) / count for values in (x, x * x))
    spread = (square - mean.square()).clamp(min=0).sqrt()
    grey, steps, pairs = x.mean(0), torch.zeros(bins, dtype=x.dtype), torch.zeros(bins, dtype=x.dtype)
    for axis in (0, 1):
        first, second = (part.narrow(axis, start, part.shape[axis] - 1) for start in (0, 1))
        same = first == second
        steps += torch.bincount(first[same], weights=grey.diff(dim=axis).abs()[same], minlength=bins)
        pairs += torch.bincount(first[same], minlength=bins)
    texture = steps / pairs
    split = (count[::2] >= MIN_PIXELS) & (count[1::2] >= MIN_PIXELS)
    colour = ((mean[:, 1::2] - mean[:, ::2]).square() + (spread[:, 1::2] - spread[:, ::2]).square()).sum(0).sqrt()
    return torch.stack([colour[split].mean(), (texture[1::2] - texture[::2])[split].abs().nanmean()]) / 255


def _sums(part: Tensor, values: Tensor, bins: int) -> Tensor:
    return torch.bincount(part.flatten(), weights=values.flatten(), minlength=bins)


@METRICS.register
class Style(PerPicture):
    """`style_colour` and `style_texture` of the generated pictures; the truth's own stand beside them."""

    asked = {EDITING: ("style",)}
    needs = {"style": ("masks", "instances")}
    values = {
        "style_colour": Value(
            "1",
            "distance of RGB means and standard deviations / 255 between generated and visible part of an instance",
            lower_is_better=True,
            limits=(0, math.inf),
        ),
        "style_texture": Value(
            "1",
            "difference of mean absolute grey steps / 255 between generated and visible part of an instance",
            lower_is_better=True,
            limits=(0, math.inf),
        ),
    }
    place = 60

    def __init__(self) -> None:
        super().__init__(tuple(self.values))

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        return [cls()]

    def reset(self) -> None:
        super().reset()
        self._distinct = Distinct()
        self._real: list[Tensor] = []

    def score(self, pictures: Pictures) -> dict[str, Tensor]:
        if pictures.mask is None or pictures.inst is None:
            return {name: torch.full((len(pictures),), torch.nan) for name in self.names}
        parts = list(zip(pictures.mask[:, 0].cpu(), pictures.inst.cpu(), strict=True))
        scores = torch.stack([style_distances(p.cpu(), *part) for p, part in zip(pictures.fake, parts, strict=True)])
        if pictures.has_truth:
            for i in self._distinct.new(pictures):
                self._real.append(style_distances(pictures.real[i].cpu(), *parts[i]))
        return dict(zip(self.names, scores.T, strict=True))

    def extra(self, name: str) -> dict[str, Any]:
        extra: dict[str, Any] = {"min_pixels": MIN_PIXELS}
        if self._real:
            extra["real"] = float(torch.stack(self._real)[:, self.names.index(name)].nanmean())
        return extra

    def why_empty(self, name: str) -> str:
        return f"no instance map, or no instance has {MIN_PIXELS} generated and {MIN_PIXELS} visible pixels"
