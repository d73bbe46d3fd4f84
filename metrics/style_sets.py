"""Values of a whole set of stylised pictures: an ArtFID-style combination, and the distance of CLIP's features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metrics.base import Metric, MetricValue, Pictures
from metrics.fid import frechet_distance
from metrics.inception import FIDFeatures, InceptionFile, resize_plain
from metrics.lpips import LPIPS, LPIPSFiles, whole

OF_SETS = ("art_fid", "clip_loss")


class ArtFID(Metric):
    """`art_fid`: (1 + LPIPS to the content) (1 + FID to the style pictures), after Wright and Ommer 2022.

    FID's network is the standard Inception, not ArtFID's own, which was trained on art: the published values do not
    compare. One style picture counts as a set without spread.

    Args:
        net, files: of `load_lpips`.
        inception, source: of `load_inception`.
        styles: (3, H, W) uint8 each.
    """

    lower_is_better = ("art",)

    def __init__(
        self, net: LPIPS, files: LPIPSFiles, inception: FIDFeatures, source: InceptionFile, *,
        styles: Sequence[Tensor], device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__()
        self.net, self.files, self.inception, self.source = net.to(device), files, inception.to(device), source
        self.device = device
        self.styles = torch.cat([self._features(style[None]) for style in styles])
        self.reset()

    def reset(self) -> None:
        self.distances: list[float] = []
        self.generated: list[Tensor] = []

    def _features(self, pictures: Tensor) -> Tensor:
        return self.inception.features(resize_plain(pictures.to(self.device))).cpu()

    def update(self, pictures: Pictures) -> None:
        maps = self.net.distance(self.net.taps(pictures.fake), self.net.taps(pictures.real))
        self.distances += whole(maps).tolist()
        self.generated.append(self._features(pictures.fake))

    def compute(self) -> dict[str, MetricValue]:
        self.notes = []
        if len(self.distances) < 2:
            self.notes.append("art_fid: left out, it needs at least two contents")
            return {}
        styles = self.styles.expand(2, -1) if len(self.styles) == 1 else self.styles
        fid, lpips = frechet_distance(torch.cat(self.generated), styles), sum(self.distances) / len(self.distances)
        protocol = (
            f"(1 + LPIPS) (1 + FID): LPIPS v0.1, {self.net.net}, result against content; FID of the results and "
            f"{len(self.styles)} style picture(s), standard Inception features (not ArtFID's art-trained ones: "
            "published values do not compare), all at their own size"
        )
        extra: dict[str, Any] = {"lpips": lpips, "fid_style": fid, "num_styles": len(self.styles)}
        extra |= {"net": self.net.net, **vars(self.files), "inception_sha256": self.source.sha256}
        value = (1 + lpips) * (1 + fid)
        return {"art_fid": MetricValue(value, "distance", protocol, len(self.distances), extra)}


class ClipLoss(Metric):
    """`clip_loss`: -ln of the mean cosine of CLIP's image features of result and content.

    Args:
        embed: returns features (B, D) of length 1 of pictures (H, W, 3) uint8.
        name: of the network, for the protocol.
    """

    lower_is_better = ("clip",)

    def __init__(self, embed: Callable[[list[np.ndarray]], Tensor], name: str) -> None:
        super().__init__()
        self.embed, self.name = embed, name
        self.reset()

    def reset(self) -> None:
        self.cosines: list[float] = []

    def update(self, pictures: Pictures) -> None:
        fake, real = (self.embed(list(p.movedim(1, -1).cpu().numpy())) for p in (pictures.fake, pictures.real))
        self.cosines += (fake * real).sum(1).tolist()

    def compute(self) -> dict[str, MetricValue]:
        mean = sum(self.cosines) / max(len(self.cosines), 1)
        if mean <= 0:
            self.notes = ["clip_loss: left out, the mean cosine is not above 0"]
            return {}
        self.notes = []
        protocol = f"-ln(mean cosine of CLIP's image features of result and content), network {self.name}"
        return {"clip_loss": MetricValue(-math.log(mean), "distance", protocol, len(self.cosines), {"cosine": mean})}
