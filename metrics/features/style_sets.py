"""Values of a whole set of stylised pictures: an ArtFID-style combination, and the distance of CLIP's features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metrics.declaration import Clip, Flag, Setup, Value
from metrics.features.frechet import frechet_distance
from metrics.features.inception import FIDFeatures, InceptionFile, find_inception, load_inception, resize_plain
from metrics.features.lpips import LPIPS, LPIPSFiles, load_lpips, whole
from metrics.features.perceptual import read_lpips
from metrics.flags import INCEPTION_WEIGHTS
from metrics.flags import LPIPS as LPIPS_FLAGS
from metrics.metric import Metric, MetricValue
from metrics.pictures import Pictures
from metrics.registry import METRICS, STYLISING
from util.errors import UserError
from util.images import read_image
from util.opt import Opt
from util.pictures import find_pictures

STYLE_SET = Flag("style_set", {"metavar": "DIR", "help": "art_fid: pictures of the style; default: one alone"})


@METRICS.register
class ArtFID(Metric):
    """`art_fid`: (1 + LPIPS to the content) (1 + FID to the style pictures), after Wright and Ommer 2022.

    LPIPS is AlexNet's, as ArtFID is defined, whatever `--lpips_net` says of other values.
    FID's network is the standard Inception, not ArtFID's own, which was trained on art, so published values are not
    comparable. One style picture counts as a set without spread.

    Args:
        net, files: of `load_lpips`.
        inception, source: of `load_inception`.
        styles: (3, H, W) uint8 each.
    """

    asked = {STYLISING: ("art_fid",)}
    needs = {"art_fid": ("style",)}
    values = {"art_fid": Value("distance", lower_is_better=True)}
    flags = (STYLE_SET, INCEPTION_WEIGHTS, *LPIPS_FLAGS)
    place = 92

    def __init__(
        self, net: LPIPS, files: LPIPSFiles, inception: FIDFeatures, source: InceptionFile, *,
        styles: Sequence[Tensor], device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__()
        self.net, self.files, self.inception, self.source = net.to(device), files, inception.to(device), source
        self.device = device
        self.styles = torch.cat([self._features(style[None]) for style in styles])
        self.reset()

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        opt, styles = setup.opt, [setup.style]
        if opt.style_set:
            files = find_pictures(opt.style_set, "--style_set").values()
            styles = [torch.from_numpy(read_image(path).copy()).movedim(-1, 0) for path in files]
        net, inception = read_alex(opt), load_inception(opt.inception_weights)
        return [cls(*net, *inception, styles=[style for style in styles if style is not None], device=setup.device)]

    @classmethod
    def check(cls, names: tuple[str, ...], opt: Opt) -> None:
        find_inception(opt.inception_weights)
        read_alex(opt)

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
        self.notes = [] if len(self.distances) > 1 else ["art_fid: left out, it needs at least two contents"]
        if self.notes:
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


def read_alex(opt: Opt) -> tuple[LPIPS, LPIPSFiles]:
    """Load AlexNet's LPIPS: by LPIPS's flags where they are about it, else from the usual places."""
    if opt.lpips_net == "alex":
        return read_lpips(opt)
    return load_lpips("alex", heads=None, backbone=None)


@METRICS.register
class ClipLoss(Metric):
    """`clip_loss`: -ln of the mean cosine of CLIP's image features of result and content.

    By the first network given; `clip_loss_<size>`, as in `clip_loss_l14`, are by further ones.
    """

    asked = {STYLISING: ("clip_loss",)}
    values = {"clip_loss": Value("distance", lower_is_better=True)}
    place = 94

    def __init__(self, clip: Clip, name: str = "clip_loss") -> None:
        super().__init__()
        self.clip, self.name = clip, name
        self.reset()

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        if not setup.clips:
            raise UserError("clip_loss needs CLIP: name its folder or hub id with --clip_model")
        first, *further = setup.clips
        sizes = [clip.size for clip in further]
        if len(set(sizes)) < len(sizes):
            raise UserError(f"clip_loss: of several networks of one size ({', '.join(sizes)}) only one can be further")
        return [cls(first), *(cls(clip, f"clip_loss_{clip.size}") for clip in further)]

    @classmethod
    def declared(cls, value: str) -> Value | None:
        return cls.values["clip_loss"] if f"{value}_".startswith("clip_loss_") else None

    def reset(self) -> None:
        self.cosines: list[float] = []

    def update(self, pictures: Pictures) -> None:
        fake, real = (self.clip.embed(list(p.movedim(1, -1).cpu().numpy())) for p in (pictures.fake, pictures.real))
        self.cosines += (fake * real).sum(1).tolist()

    def compute(self) -> dict[str, MetricValue]:
        mean = sum(self.cosines) / max(len(self.cosines), 1)
        self.notes = [] if mean > 0 else [f"{self.name}: left out, the mean cosine is not above 0"]
        if self.notes:
            return {}
        protocol = f"-ln(mean cosine of CLIP's image features of result and content), network {self.clip.name}"
        return {self.name: MetricValue(-math.log(mean), "distance", protocol, len(self.cosines), {"cosine": mean})}
