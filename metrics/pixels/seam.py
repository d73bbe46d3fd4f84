"""`seam`: does the border of the mask show? The step across it against the step at the same place of the truth.

Take all pairs of neighbours (left-right, top-bottom) of which one pixel is generated and the other given. J is the mean
over these pairs and the RGB channels of |x_p - x_q| / 255. The value of a picture is |ln((J_fake + c) / (J_real + c))|
with c = 1/255, one grey level, so that flat regions do not divide by zero. 0: the border is as strong as in the
truth. Our own definition. Shapes: B pictures, H x W pixels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from metrics.declaration import Setup, Value
from metrics.metric import Metric, PerPicture
from metrics.pictures import Pictures
from metrics.registry import EDITING, METRICS

LEVEL = 1 / 255


def border_jump(pictures: Tensor, mask: Tensor) -> Tensor:
    """Return (B,) J of pictures (B,3,H,W) uint8 and mask (B,1,H,W); NaN where the mask has no border."""
    x, inside = pictures.double() / 255, mask > 0
    total = pairs = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for axis in (-2, -1):
        crossing = inside.narrow(axis, 1, inside.shape[axis] - 1) != inside.narrow(axis, 0, inside.shape[axis] - 1)
        step = x.diff(dim=axis).abs().mean(1, keepdim=True)
        total = total + (step * crossing).sum((1, 2, 3))
        pairs = pairs + crossing.sum((1, 2, 3))
    return total / pairs


@METRICS.register
class Seam(PerPicture):
    """`seam`; `extra` has the signed mean: above 0 the borders are stronger than in the truth, below 0 weaker."""

    asked = {EDITING: ("seam",)}
    needs = {"seam": ("masks",)}
    values = {
        "seam": Value(
            "1",
            "|ln((J_fake + 1/255) / (J_real + 1/255))|, J the mean absolute RGB step between neighbours across the "
            "mask's border; mean over pictures",
            lower_is_better=True,
            limits=(0, math.inf),
        )
    }
    place = 50

    def __init__(self) -> None:
        super().__init__(("seam",))

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        return [cls()]

    def reset(self) -> None:
        super().reset()
        self._signed: list[float] = []

    def score(self, pictures: Pictures) -> dict[str, Tensor]:
        # Without a truth (a removed object) the original still serves: the mask's border lies beyond the object.
        if pictures.mask is None:
            return {"seam": torch.full((len(pictures),), torch.nan)}
        fake, real = (border_jump(p, pictures.mask) for p in (pictures.fake, pictures.real))
        signed = ((fake + LEVEL) / (real + LEVEL)).log()
        self._signed += signed[~signed.isnan()].tolist()
        return {"seam": signed.abs()}

    def extra(self, name: str) -> dict[str, Any]:
        return {"signed": sum(self._signed) / len(self._signed)}

    def why_empty(self, name: str) -> str:
        return "no mask has a border inside its picture"
