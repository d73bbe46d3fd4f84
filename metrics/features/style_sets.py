"""Values of a whole set of stylised pictures: ArtFID in its forms, and the distance of CLIP's features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from metrics.declaration import Clip, Flag, Setup, Value
from metrics.features.art_inception import load_art_inception
from metrics.features.frechet import frechet_distance
from metrics.features.inception import find_inception, load_inception, resize_plain
from metrics.features.infinity import fid_infinity
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
_ART = {"metavar": "FILE", "help": "art_fid_own: ArtFID's art-trained Inception, art_inception.pth"}
ART_INCEPTION = Flag("art_inception", _ART)
STANDARD = "standard Inception features (not ArtFID's art-trained ones: published values do not compare)"
OWN = "features of ArtFID's own Inception, trained on art"
INFINITY = "_infinity"


@METRICS.register
class ArtFID(Metric):
    """`art_fid`: (1 + LPIPS to the content) (1 + FID to the style pictures), after Wright and Ommer 2022.

    `art_fid_infinity` has FID extrapolated to infinitely many pictures, see `fid_infinity`. LPIPS is AlexNet's, as
    ArtFID is defined, whatever `--lpips_net` says of other values. FID's network is the standard Inception; `OwnArtFID`
    has ArtFID's. One style picture counts as a set without spread.

    Args:
        names: of the values.
        net, files: of `load_lpips`.
        features: of pictures (B,3,H,W) uint8, (B,d) on the CPU; sha256: of their network's file.
        styles: (3,H,W) uint8 each.
    """

    asked = {STYLISING: ("art_fid", "art_fid_infinity")}
    needs = {"art_fid": ("style",), "art_fid_infinity": ("style",)}
    values = {name: Value("distance", lower_is_better=True) for name in asked[STYLISING]}
    flags = (STYLE_SET, INCEPTION_WEIGHTS, *LPIPS_FLAGS)
    place = 92
    network = STANDARD

    def __init__(
        self, names: Sequence[str], net: LPIPS, files: LPIPSFiles, features: Callable[[Tensor], Tensor], sha256: str, *,
        styles: Sequence[Tensor],
    ) -> None:  # fmt: skip
        super().__init__()
        self.names, self.net, self.files, self.features, self.sha256 = names, net, files, features, sha256
        self.styles = torch.cat([features(style[None]) for style in styles])
        self.reset()

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        opt, styles = setup.opt, [setup.style]
        if opt.style_set:
            files = find_pictures(opt.style_set, "--style_set").values()
            styles = [torch.from_numpy(read_image(path).copy()).movedim(-1, 0) for path in files]
        net, hashes = read_alex(opt)
        features, sha256 = cls.load_features(opt, setup.device)
        known = [style for style in styles if style is not None]
        return [cls(names, net.to(setup.device), hashes, features, sha256, styles=known)]

    @classmethod
    def load_features(cls, opt: Opt, device: torch.device) -> tuple[Callable[[Tensor], Tensor], str]:
        """Return FID's features as a function of pictures, and the hash of their file; raises `UserError`."""
        inception, source = load_inception(opt.inception_weights)
        inception.to(device)
        return lambda pictures: inception.features(resize_plain(pictures.to(device))).cpu(), source.sha256

    @classmethod
    def check(cls, names: tuple[str, ...], opt: Opt) -> None:
        find_inception(opt.inception_weights)
        read_alex(opt)

    def reset(self) -> None:
        self.distances: list[float] = []
        self.generated: list[Tensor] = []

    def update(self, pictures: Pictures) -> None:
        maps = self.net.distance(self.net.taps(pictures.fake), self.net.taps(pictures.real))
        self.distances += whole(maps).tolist()
        self.generated.append(self.features(pictures.fake))

    def compute(self) -> dict[str, MetricValue]:
        self.notes = []
        return {name: value for name in self.names if (value := self._value(name)) is not None}

    def _value(self, name: str) -> MetricValue | None:
        infinite, count = INFINITY in name, len(self.distances)
        enough = 2 * self.styles.shape[1]  # as of fid_infinity: with fewer the bias is no line
        if infinite and min(count, len(self.styles)) < enough:
            self.notes.append(f"{name}: left out, it needs at least {enough} contents and style pictures (--style_set)")
            return None
        if count < 2:
            self.notes.append(f"{name}: left out, it needs at least two contents")
            return None
        generated, lpips = torch.cat(self.generated), sum(self.distances) / count
        styles = self.styles.expand(2, -1) if len(self.styles) == 1 else self.styles
        fid = fid_infinity(generated, styles).value if infinite else frechet_distance(generated, styles)
        protocol = (
            f"(1 + LPIPS) (1 + FID): LPIPS v0.1, {self.net.net}, result against content; FID of the results and "
            f"{len(self.styles)} style picture(s), {self.network}, all at their own size"
        )
        protocol += "; FID extrapolated linearly in 1/n to infinitely many pictures" if infinite else ""
        extra: dict[str, Any] = {"lpips": lpips, "fid_style": fid, "num_styles": len(self.styles)}
        extra |= {"net": self.net.net, **vars(self.files), "inception_sha256": self.sha256}
        return MetricValue((1 + lpips) * (1 + fid), "distance", protocol, count, extra)


@METRICS.register
class OwnArtFID(ArtFID):
    """`art_fid_own`, `art_fid_infinity_own`: with the Inception that ArtFID is published with (--art_inception)."""

    asked = {STYLISING: ("art_fid_own", "art_fid_infinity_own")}
    needs = {"art_fid_own": ("style",), "art_fid_infinity_own": ("style",)}
    values = {name: Value("distance", lower_is_better=True) for name in asked[STYLISING]}
    flags = (STYLE_SET, ART_INCEPTION, *LPIPS_FLAGS)
    place = 93
    network = OWN

    @classmethod
    def load_features(cls, opt: Opt, device: torch.device) -> tuple[Callable[[Tensor], Tensor], str]:
        if opt.art_inception is None:
            raise UserError(
                "art_fid_own needs ArtFID's network: name its art_inception.pth with --art_inception FILE, or ask for "
                "art_fid, which takes the standard Inception"
            )
        net, sha256 = load_art_inception(opt.art_inception)
        net.to(device)
        return lambda pictures: net.features(pictures.to(device)).cpu(), sha256

    @classmethod
    def check(cls, names: tuple[str, ...], opt: Opt) -> None:
        cls.load_features(opt, torch.device("cpu"))
        read_alex(opt)


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
