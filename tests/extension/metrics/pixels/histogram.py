"""`histogram`: has what was generated the colours of the truth?

The generated pixels' values are counted in bins of equal width, in the result and in the truth. The value is half the
L1 distance of the two shares, averaged over R, G and B: 0 for the same colours wherever they are, 1 for none in common.
Shapes: B pictures, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metrics.declaration import Flag, Setup, Value
from metrics.metric import Metric, PerPicture
from metrics.pictures import Pictures
from metrics.registry import EDITING, METRICS
from util.flags import positive_int

BINS = Flag("histogram_bins", {"type": positive_int, "default": 16, "help": "histogram: bins of a channel"})


def shares(picture: Tensor, mask: Tensor, bins: int) -> Tensor:
    """Return (3, bins), the share of each bin among the masked (H,W) pixels of a picture (3,H,W) uint8."""
    place = picture.long() * bins // 256
    return torch.stack([torch.bincount(c[mask], minlength=bins) for c in place]).double() / mask.sum()


@METRICS.register
class Histogram(PerPicture):
    """`histogram`, see the module."""

    asked = {EDITING: ("histogram",)}
    needs = {"histogram": ("masks", "truth")}
    flags = (BINS,)
    values = {
        "histogram": Value(
            "distance",
            "half the L1 distance between the colour histograms of the generated pixels and of the same place in the "
            "truth, channels averaged; mean over pictures",
            lower_is_better=True,
            limits=(0.0, 1.0),
        )
    }
    place = 60

    def __init__(self, bins: int) -> None:
        self.bins = bins
        super().__init__(("histogram",))

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        return [cls(setup.opt.histogram_bins)]

    def score(self, pictures: Pictures) -> dict[str, Tensor]:
        if pictures.mask is None or not pictures.has_truth:
            return {"histogram": torch.full((len(pictures),), torch.nan)}
        distances = []
        for fake, real, mask in zip(pictures.fake, pictures.real, pictures.mask[:, 0] > 0, strict=True):
            difference = shares(fake, mask, self.bins) - shares(real, mask, self.bins)
            distances.append(difference.abs().sum(1).mean() / 2)  # NaN where nothing is masked
        return {"histogram": torch.stack(distances)}
