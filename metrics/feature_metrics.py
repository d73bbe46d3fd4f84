"""FID, KID, precision, recall, density, coverage: what is computed from Inception features of two sets of pictures.

Features are computed once per picture and kept (float32, 8 kB each); those of real pictures also on disk.
Shapes: n generated, m distinct real pictures; 2048 features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metrics.base import Distinct, Metric, MetricValue, Pictures, picture_hash
from metrics.feature_cache import FeatureCache
from metrics.fid import Resampled, frechet_distance
from metrics.inception import FEATURES, FIDFeatures, InceptionFile, resize_clean, resize_plain
from metrics.kid import SUBSETS, kid
from metrics.manifold import K_DENSITY, K_PRECISION, prdc

NETWORK = "Inception-2015-12-05 pool3 features (float32, RGB, "
RESIZE = {
    "": "bilinear to 299, not antialiased)",
    "clean": "bicubic to 299, antialiased as Pillow's, clean-fid's protocol)",
    "region": "bilinear to 299, not antialiased) of the box around the mask, at least 32 pixels a side,",
}
PROTOCOL = {
    "fid": "Frechet distance, covariances with n-1, exact trace term in float64",
    "kid": f"mean of {SUBSETS} unbiased cubic-kernel MMD^2",
    "precision": f"share of generated pictures within the {K_PRECISION} nearest neighbours' balls of real ones",
    "recall": f"share of real pictures within the {K_PRECISION} nearest neighbours' balls of generated ones",
    "density": f"real balls (k = {K_DENSITY}) around a generated picture, per k",
    "coverage": f"share of real balls (k = {K_DENSITY}) with a generated picture",
}
FROM_FEATURES = ("fid", "kid", "prdc")
REGION_SIDE = 32
BATCH = 16  # prepared pictures per forward pass
FID_RESAMPLES = 200  # a Frechet distance takes up to a second


class FeatureMetrics(Metric):
    """Values between all generated pictures and the distinct real ones.

    Args:
        net, source: of `load_inception`.
        names: of "fid", "kid", "prdc".
        variant: "" (pytorch-fid's preparation), "clean" or "region", see `RESIZE`; it is added to the names.
        cache_dir: keeps the real pictures' features between runs; None: nothing is kept.
    """

    smallest_bin = 50

    def __init__(
        self,
        net: FIDFeatures,
        source: InceptionFile,
        *,
        device: torch.device,
        names: Sequence[str] = ("fid",),
        variant: str = "",
        cache_dir: Path | None = None,
    ) -> None:
        super().__init__()
        self.net, self.source, self.device, self.names, self.variant = net.to(device), source, device, names, variant
        folder = cache_dir / f"inception-{source.sha256[:8]}-{variant or 'plain'}" if cache_dir else None
        self.cache = FeatureCache(folder, width=FEATURES) if folder else None
        self._prepare: Callable[[Tensor], Tensor] = resize_clean if variant == "clean" else resize_plain
        self.reset()

    def reset(self) -> None:
        self._distinct = Distinct()
        self._generated: list[Tensor] = []
        self._real: list[Tensor] = []
        self._partner: list[int] = []  # of each picture seen: the place of its truth, -1 where it has no crop
        self._resampled: Resampled | None = None

    def update(self, pictures: Pictures) -> None:
        fakes, reals, kept = list(pictures.fake), list(pictures.real), list(range(len(pictures)))
        if self.variant == "region":
            found = [region_box(mask) for mask in pictures.mask] if pictures.mask is not None else []
            boxes = {i: box for i, box in enumerate(found) if box}
            kept = list(boxes)
            fakes, reals = ([_cut(p[i], boxes[i]) for i in kept] for p in (pictures.fake, pictures.real))
        fresh, places = self._distinct.places([pictures.name[i] for i in kept], reals)
        place_of = dict(zip(kept, places, strict=True))
        self._partner += [place_of.get(i, -1) for i in range(len(pictures))]
        self._add(fakes, [reals[i] for i in fresh])

    def add_sets(self, *, fake: list[Tensor], real: list[Tensor]) -> None:
        """Take generated and real pictures (3,H,W) uint8 of any sizes, no pairs; bins and intervals need pairs."""
        self._add(fake, real)

    def _add(self, fake: list[Tensor], real: list[Tensor]) -> None:
        keys = [picture_hash(picture) for picture in real] if self.cache else []
        known = [self.cache.get(key) for key in keys] if self.cache else [None] * len(real)
        missing = [i for i, features in enumerate(known) if features is None]
        found = self._features([*fake, *(real[i] for i in missing)])
        self._generated.append(found[: len(fake)])
        for i, features in zip(missing, found[len(fake) :], strict=True):
            known[i] = features
            if self.cache:
                self.cache.put(keys[i], features)
        self._real += [features[None] for features in known if features is not None]

    def _features(self, pictures: list[Tensor]) -> Tensor:
        parts = []
        for i in range(0, len(pictures), BATCH):
            chunk = [picture.to(self.device) for picture in pictures[i : i + BATCH]]
            if len({picture.shape for picture in chunk}) == 1:
                x = self._prepare(torch.stack(chunk))
            else:
                x = torch.cat([self._prepare(picture[None]) for picture in chunk])
            parts.append(self.net.features(x).cpu())
        return torch.cat(parts) if parts else torch.empty(0, FEATURES)

    @property
    def generated(self) -> Tensor:
        """Features (n, 2048) of the generated pictures."""
        return torch.cat(self._generated) if self._generated else torch.empty(0, FEATURES)

    @property
    def real(self) -> Tensor:
        """Features (m, 2048) of the distinct real pictures."""
        return torch.cat(self._real) if self._real else torch.empty(0, FEATURES)

    def compute(self) -> dict[str, MetricValue]:
        generated, real = self.generated, self.real
        least, self.notes = min(len(generated), len(real)), []
        found: dict[str, MetricValue] = {}
        for name in self.names:
            needed = {"fid": 2, "kid": 4, "prdc": K_DENSITY + 1}[name]
            if least < needed:
                few = {2: "two", 4: "four"}.get(needed, str(needed))
                self.notes.append(f"{self._full(name)}: left out, it needs at least {few} pictures in each set")
            elif name == "fid":
                found[self._full(name)] = self._value(name, frechet_distance(generated, real), "distance", self._few())
            elif name == "kid":
                value, error, size = kid(generated, real)
                extra = {"standard_error": error, "subsets": SUBSETS, "subset_size": size}
                found[self._full(name)] = self._value(name, value, "distance", extra)
            else:
                found |= {
                    self._full(key): self._value(key, value, "1", {}) for key, value in prdc(generated, real).items()
                }
        return found

    def _full(self, name: str) -> str:
        return f"{name}_{self.variant}" if self.variant else name

    def _few(self) -> dict[str, Any]:
        if min(len(self.generated), len(self.real)) >= FEATURES:
            return {}
        return {"note": f"fewer pictures than the {FEATURES} features: biased upwards, compare only with equal counts"}

    def _value(self, name: str, value: float, unit: str, extra: dict[str, Any]) -> MetricValue:
        protocol = f"{PROTOCOL[name]}; {NETWORK}{RESIZE[self.variant]} of the 8-bit generated and real pictures"
        counts = {"num_generated": len(self.generated), "num_real": len(self.real)}
        source = {"weights": self.source.path.name, "weights_sha256": self.source.sha256}
        return MetricValue(value, unit, protocol, len(self.generated), {**counts, **source, **extra})

    def subset(self, times: Tensor) -> dict[str, float]:
        partner = torch.tensor(self._partner)
        if len(partner) != len(times) or not bool(times[partner >= 0].any()):
            return {}
        times, partner = times[partner >= 0], partner[partner >= 0]
        found = {}
        if "fid" in self.names and int(times.sum()) >= 2:
            self._resampled = self._resampled or Resampled(self.generated, self.real[partner])
            found[self._full("fid")] = self._resampled.distance(times)
        if int(times.max()) > 1:
            return found  # repeats are their own nearest neighbours: the others cannot be had from resamples
        generated, real = self.generated[times > 0], self.real[partner[times > 0].unique()]
        if "kid" in self.names and min(len(generated), len(real)) >= 4:
            found[self._full("kid")] = kid(generated, real)[0]
        if "prdc" in self.names and min(len(generated), len(real)) > K_DENSITY:
            found |= {self._full(name): value for name, value in prdc(generated, real).items()}
        return found

    def resamples(self, wanted: int) -> int:
        return min(wanted, FID_RESAMPLES) if "fid" in self.names else 0


def region_box(mask: Tensor) -> tuple[int, int, int, int] | None:
    """Return (top, bottom, left, right) of the box around a mask (1,H,W), None if it is empty.

    Sides under 32 pixels are grown about the middle, shifted to stay within the picture.
    """
    inside = mask[0] > 0
    if not bool(inside.any()):
        return None
    top, bottom = _span(inside.any(1))
    left, right = _span(inside.any(0))
    return top, bottom, left, right


def _span(line: Tensor) -> tuple[int, int]:
    places = line.nonzero().flatten()
    first, end = int(places[0]), int(places[-1]) + 1
    side = min(max(end - first, REGION_SIDE), len(line))
    start = min(max(0, first - (side - (end - first)) // 2), len(line) - side)
    return start, start + side


def _cut(picture: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    top, bottom, left, right = box
    return picture[:, top:bottom, left:right]
