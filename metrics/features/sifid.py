"""SIFID: the Frechet distance of one picture's local features from another's (SinGAN, Shaham et al. 2019, section 3.1).

Each position of the feature map before Inception's second pooling (192 channels, a quarter of the size, pictures not
resized) is one sample. SinGAN's code takes torchvision's Inception there, this the one that FID is defined on.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from metrics.declaration import Setup, Value
from metrics.features.frechet import frechet_distance
from metrics.features.inception import InceptionFile, load_inception
from metrics.flags import INCEPTION_WEIGHTS
from metrics.metric import Metric, PerPicture
from metrics.pictures import Pictures
from metrics.registry import ANALOGY, METRICS
from util.device import tf32

LAST_LAYER = "Conv2d_4a_3x3"
SMALLEST_SIDE = 24  # pixels: the map then has at least two positions a side
PROTOCOL = (
    "single-image FID (SinGAN): Frechet distance of the features of all positions before Inception-2015-12-05's second "
    "pooling (192 channels, no resizing) of result and source; mean over targets"
)


class LocalFeatures(nn.Module):
    """(3, H, W) uint8 RGB to (n, 192), a row per position."""

    def __init__(self, blocks: nn.Sequential) -> None:
        super().__init__()
        names = [name for name, _ in blocks.named_children()]
        self.layers = blocks[: names.index(LAST_LAYER) + 1]
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, picture: Tensor) -> Tensor:
        x = 2 * (picture[None].float() / 255) - 1
        with torch.autocast(x.device.type, enabled=False), tf32(False):
            maps: Tensor = self.layers(x)
        return maps[0].flatten(1).T


@METRICS.register
class SIFID(PerPicture):
    """`sifid`: of each result to the source, or where there is none to its own real picture.

    Args:
        features: of `LocalFeatures`.
        file: where its weights were found.
        source: (3, H, W) uint8.
    """

    asked = {ANALOGY: ("sifid",)}
    values = {"sifid": Value("distance", PROTOCOL, True, (0, math.inf))}
    of_source = True
    flags = (INCEPTION_WEIGHTS,)
    place = 70
    smallest_side = SMALLEST_SIDE

    def __init__(self, features: LocalFeatures, file: InceptionFile, *, source: Tensor | None) -> None:
        self.features, self.file = features, file
        self.source = None if source is None else features(source)
        super().__init__(("sifid",))

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        net, file = load_inception(setup.opt.inception_weights)
        source = setup.source.picture if setup.source else None
        return [cls(LocalFeatures(net.blocks), file, source=source)]

    def reset(self) -> None:
        super().reset()
        self._named: list[str] = []
        self._positions = 0

    def score(self, pictures: Pictures) -> dict[str, Tensor]:
        self._named += pictures.name
        distances = []
        for fake, real in zip(pictures.fake, pictures.real, strict=True):
            reference = self.features(real) if self.source is None else self.source
            self._positions = len(reference)
            distances.append(frechet_distance(self.features(fake), reference))
        return {"sifid": torch.tensor(distances, dtype=torch.float64)}

    def extra(self, name: str) -> dict[str, Any]:
        each = dict(zip(self._named, self.each[name], strict=True))
        source = {"weights": self.file.path.name, "weights_sha256": self.file.sha256}
        return {"each": each, "positions": self._positions, **source}
