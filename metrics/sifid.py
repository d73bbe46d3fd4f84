"""SIFID: the Frechet distance of one picture's local features from another's (SinGAN, Shaham et al. 2019, section 3.1).

Each position of the feature map before Inception's second pooling (192 channels, a quarter of the size, pictures not
resized) is one sample. SinGAN's code takes torchvision's Inception there, this the one that FID is defined on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metrics.base import MetricValue
from metrics.fid import frechet_distance
from metrics.inception import load_inception, no_tf32

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
        with torch.autocast(x.device.type, enabled=False), no_tf32():
            found: Tensor = self.layers(x)
        return found[0].flatten(1).T


def measure_sifid(source: Tensor, results: dict[str, Tensor], *, weights: str | None) -> MetricValue:
    """Return the mean SIFID of results (3, H, W) uint8 by name to the source; each one's value is in `extra`.

    Raises:
        UserError: the Inception weights are missing.
    """
    net, found = load_inception(weights)
    features = LocalFeatures(net.blocks)
    real = features(source)
    each = {name: frechet_distance(features(result), real) for name, result in results.items()}
    extra = {"each": each, "positions": len(real), "weights": found.path.name, "weights_sha256": found.sha256}
    return MetricValue(sum(each.values()) / len(each), "distance", PROTOCOL, len(each), extra)
