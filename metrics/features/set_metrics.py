"""FID, also extrapolated, KID, precision, recall, density, coverage: from Inception features of two sets of pictures.

Features are computed once per picture and kept (float32, 8 kB each); also on disk.
Shapes: n generated, m distinct real pictures; 2048 features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metrics.declaration import Setup, Value
from metrics.features.cache import FeatureCache
from metrics.features.frechet import frechet_distance, frechet_influence
from metrics.features.inception import (
    FEATURES,
    FIDFeatures,
    InceptionFile,
    find_inception,
    load_inception,
    resize_clean,
    resize_plain,
)
from metrics.features.infinity import fid_infinity
from metrics.features.kid import kid
from metrics.features.manifold import K_DENSITY, K_PRECISION, prdc
from metrics.features.region import cut, region_box
from metrics.features.sets import Sets, by_name
from metrics.flags import CACHE_DIR, INCEPTION_WEIGHTS, cache_folder
from metrics.influence import Parts, spread, summed
from metrics.metric import Metric, MetricValue
from metrics.pictures import Distinct, Pictures, picture_hash
from metrics.registry import EDITING, METRICS, STYLISING
from util.opt import Opt

NETWORK = "Inception-2015-12-05 pool3 features (float32, RGB, "
RESIZE = {
    "": "bilinear to 299, not antialiased)",
    "clean": "bicubic to 299, antialiased as Pillow's, clean-fid's protocol)",
    "region": "bilinear to 299, not antialiased) of the box around the mask, at least 32 pixels a side,",
}
PRDC = ("precision", "recall", "density", "coverage")
_FID = "Frechet distance, covariances with n-1, exact trace term in float64"
_INFINITY = "extrapolated linearly in 1/n to infinitely many pictures, from the mean over 1, 2 and 3 disjoint parts"
_PRECISION = f"share of generated pictures within the {K_PRECISION} nearest neighbours' balls of real ones"
_RECALL = f"share of real pictures within the {K_PRECISION} nearest neighbours' balls of generated ones"
_DENSITY = f"real balls (k = {K_DENSITY}) around a generated picture, per k"
_COVERAGE = f"share of real balls (k = {K_DENSITY}) with a generated picture"
VARIANTS = {
    "": {"fid": "fid", "fid_infinity": "fid_infinity", "kid": "kid", "prdc": "prdc"},
    "clean": {"fid_clean": "fid"},
    "region": {"fid_region": "fid"},
}
LEAST = {"fid": 2, "fid_infinity": 2 * FEATURES, "kid": 4, "prdc": K_DENSITY + 1}  # pictures in each set
BATCH = 16  # prepared pictures per forward pass
FEW = f"fewer pictures than the {FEATURES} features: biased upwards, compare only with equal counts"


@METRICS.register
class FeatureMetrics(Metric):
    """Values between all generated pictures and the distinct real ones.

    Args:
        net, source: of `load_inception`.
        names: of "fid", "fid_infinity", "kid", "prdc".
        variant: "" (pytorch-fid's preparation), "clean" or "region", see `RESIZE`; it is added to the names.
        cache_dir: keeps features between runs; None: nothing is kept.
        keep_generated: those of generated pictures too; off where none comes back.
    """

    smallest_bin = 50
    asked = {EDITING: tuple(name for members in VARIANTS.values() for name in members), STYLISING: ("fid", "kid")}
    needs = {"fid_region": ("masks",)}
    of_sets = ("fid", "fid_infinity", "kid", "prdc", "fid_clean")
    values = {
        **{name: Value("distance", _FID, True, (0, math.inf)) for name in ("fid", "fid_clean", "fid_region")},
        "fid_infinity": Value("distance", f"{_FID}; {_INFINITY}", True),
        "kid": Value("distance", "unbiased cubic-kernel MMD^2 over all pairs of pictures", True),
        "precision": Value("1", _PRECISION, limits=(0, 1)),
        "recall": Value("1", _RECALL, limits=(0, 1)),
        "density": Value("1", _DENSITY, limits=(0, math.inf)),
        "coverage": Value("1", _COVERAGE, limits=(0, 1)),
    }
    flags = (INCEPTION_WEIGHTS, CACHE_DIR)
    place = 10

    def __init__(
        self,
        net: FIDFeatures,
        source: InceptionFile,
        *,
        device: torch.device,
        names: Sequence[str] = ("fid",),
        variant: str = "",
        cache_dir: Path | None = None,
        keep_generated: bool = True,
    ) -> None:
        super().__init__()
        self.net, self.source, self.device, self.names, self.variant = net.to(device), source, device, names, variant
        self.keep_generated = keep_generated
        folder = cache_dir / f"inception-{source.sha256[:8]}-{variant or 'plain'}" if cache_dir else None
        self.cache = FeatureCache(folder, width=FEATURES)
        self._prepare: Callable[[Tensor], Tensor] = resize_clean if variant == "clean" else resize_plain
        self.reset()

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        net, source = load_inception(setup.opt.inception_weights)
        made: list[Metric] = []
        for variant, members in VARIANTS.items():
            if chosen := [stem for name, stem in members.items() if name in names]:
                made.append(cls(net, source, device=setup.device, names=chosen, variant=variant,
                                cache_dir=cache_folder(setup.opt), keep_generated=setup.keep_generated))  # fmt: skip
        return made

    @classmethod
    def asked_name(cls, value: str) -> str:
        return "prdc" if value in PRDC else value

    @classmethod
    def check(cls, names: tuple[str, ...], opt: Opt) -> None:
        find_inception(opt.inception_weights)

    def reset(self) -> None:
        self._distinct = Distinct()
        self._generated: list[Tensor] = []
        self._real: list[Tensor] = []
        self._names: dict[str, list[str]] = {"generated": [], "real": []}
        self._seen = 0
        self._place: list[int] = []  # of each generated picture of a pair: its place among those seen
        self._partner: list[int] = []  # and that of its truth among the real ones

    def update(self, pictures: Pictures) -> None:
        fakes, reals, kept = list(pictures.fake), list(pictures.real), list(range(len(pictures)))
        if self.variant == "region":
            regions = [region_box(mask) for mask in pictures.mask] if pictures.mask is not None else []
            boxes = {i: box for i, box in enumerate(regions) if box}
            kept = list(boxes)
            fakes, reals = ([cut(p[i], boxes[i]) for i in kept] for p in (pictures.fake, pictures.real))
        names = [pictures.name[i] for i in kept]
        fresh, partners = self._distinct.places(names, reals)
        self._place += [self._seen + i for i in kept]
        self._partner += partners
        self._seen += len(pictures)
        self._names["generated"] += names
        self._names["real"] += [names[i] for i in fresh]
        self._add(fakes, [reals[i] for i in fresh])

    def add_sets(self, *, fake: Mapping[str, Tensor], real: Mapping[str, Tensor]) -> None:
        """Take generated and real pictures (3,H,W) uint8 of any sizes by name, unpaired."""
        self._names["generated"] += fake
        self._names["real"] += real
        self._add(list(fake.values()), list(real.values()))

    def _add(self, fake: list[Tensor], real: list[Tensor]) -> None:
        pictures = [*fake, *real]
        keys = [picture_hash(picture) for picture in pictures]
        known = [self.cache.get(key) for key in keys]
        missing = [i for i, features in enumerate(known) if features is None]
        for i, features in zip(missing, self._features([pictures[i] for i in missing]), strict=True):
            known[i] = features
            if self.keep_generated or i >= len(fake):
                self.cache.put(keys[i], features)
        found = torch.cat([torch.empty(0, FEATURES), *(features[None] for features in known if features is not None)])
        self._generated.append(found[: len(fake)])
        self._real.append(found[len(fake) :])

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

    def sets(self) -> Sets:
        """Return all features so far."""
        generated, real = (torch.cat([torch.empty(0, FEATURES), *parts]) for parts in (self._generated, self._real))
        order, real_order = (by_name(self._names[which]) for which in ("generated", "real"))
        if self.apart:
            return Sets(generated[order], real[real_order], None, None)
        row = torch.empty_like(real_order)
        row[real_order] = torch.arange(len(row))
        place, partner = (torch.tensor(each, dtype=torch.int64)[order] for each in (self._place, self._partner))
        return Sets(generated[order], real[real_order], place, row[partner])

    @property
    def feature_cache(self) -> FeatureCache:
        return self.cache

    @property
    def apart(self) -> tuple[list[str], list[str]] | None:
        """Names of the two sets where they are unpaired, else None."""
        generated, real = self._names["generated"], self._names["real"]
        return None if len(self._place) == len(generated) else (generated, real)

    def compute(self) -> dict[str, MetricValue]:
        sets = self.sets()
        generated, real = sets.generated, sets.real
        self.notes = self._cache_notes()
        values: dict[str, MetricValue] = {}
        for name in self.names:
            if not self._has(name, sets):
                few = {2: "two", 4: "four"}.get(LEAST[name], str(LEAST[name]))
                self.notes.append(f"{self._full(name)}: left out, it needs at least {few} pictures in each set")
            elif name == "fid":
                note = {"note": FEW} if (fewest := min(len(generated), len(real))) < FEATURES else {}
                self.notes += [f"{self._full(name)} of {fewest} pictures: {FEW}"] if note else []
                values[self._full(name)] = self._value(name, frechet_distance(generated, real), note)
            elif name == "fid_infinity":
                values[self._full(name)] = self._value(name, fid_infinity(generated, real, sets.partner).value, {})
            elif name == "kid":
                value, *moves = kid(generated, real, sets.partner)
                parts = tuple(moves) if self.apart else (moves[0] + moves[1][sets.partner],)
                error, _ = spread(parts) or (math.nan, 0)
                values[self._full(name)] = self._value(name, value, {"standard_error": error})
            else:
                values |= {self._full(key): self._value(key, value, {}) for key, value in prdc(generated, real).items()}
        return values

    def _full(self, name: str) -> str:
        return f"{name}_{self.variant}" if self.variant else name

    def _cache_notes(self) -> list[str]:
        notes = []
        if self.cache.damaged:
            notes.append(
                f"{self.cache.folder}: {self.cache.damaged} kept features were damaged or of an older form, and were "
                "computed and kept again"
            )
        if self.cache.refused:
            notes.append(
                f"{self.cache.folder}: features could not be kept ({self.cache.refused}), so the next "
                "test computes them again; --cache_dir DIR names another folder"
            )
        return notes

    def _value(self, name: str, value: float, extra: dict[str, Any]) -> MetricValue:
        declared = self.values[self._full(name)]
        protocol = f"{declared.protocol}; {NETWORK}{RESIZE[self.variant]} of the 8-bit generated and real pictures"
        counts = {"num_generated": len(self._names["generated"]), "num_real": len(self._names["real"])}
        source = {"weights": self.source.path.name, "weights_sha256": self.source.sha256}
        return MetricValue(value, declared.unit, protocol, counts["num_generated"], {**counts, **source, **extra})

    def subset(self, times: Tensor) -> dict[str, float]:
        sets = self.sets()
        if sets.place is None or sets.partner is None:
            return {}
        times = times[sets.place]
        if not times.any() or int(times.max()) > 1:  # repeats are their own nearest neighbours
            return {}
        generated, real = sets.generated[times > 0], sets.real[sets.partner[times > 0].unique()]
        part, values = Sets(generated, real, None, None), {}
        if self._has("fid", part):
            values[self._full("fid")] = frechet_distance(generated, real)
        if self._has("kid", part):
            values[self._full("kid")] = kid(generated, real)[0]
        if self._has("prdc", part):
            values |= {self._full(name): value for name, value in prdc(generated, real).items()}
        return values

    def influence(self, units: Tensor, real_units: Tensor | None = None) -> dict[str, Parts]:
        """Return influences on FIDs and KID; precision, recall, density and coverage have no error bar that covers."""
        sets, found = self.sets(), {}
        if self._has("fid", sets):
            found["fid"] = self._by_unit(sets, frechet_influence(sets.generated, sets.real), units, real_units)
        if self._has("fid_infinity", sets):
            _, *moves = fid_infinity(sets.generated, sets.real, sets.partner, influence=True)
            found["fid_infinity"] = self._by_unit(sets, moves, units, real_units)
        if self._has("kid", sets):
            _, *moves = kid(sets.generated, sets.real, sets.partner)
            found["kid"] = self._by_unit(sets, moves, units, real_units)
        return {self._full(name): parts for name, parts in found.items()}

    def _by_unit(self, sets: Sets, moves: Sequence[Tensor], units: Tensor, real_units: Tensor | None) -> Parts:
        """Sum influences of generated and real pictures, in the order of `sets`; a truth's is shared by its results."""
        if sets.place is None or sets.partner is None:
            assert real_units is not None
            order, real_order = (by_name(self._names[which]) for which in ("generated", "real"))
            return summed(moves[0], units[order]), summed(moves[1], real_units[real_order])
        shared = torch.bincount(sets.partner, minlength=len(sets.real))
        each = torch.full((self._seen,), torch.nan, dtype=torch.float64)
        each[sets.place] = moves[0] + (moves[1] / shared)[sets.partner]
        return (summed(each, units),)

    def _has(self, name: str, sets: Sets) -> bool:
        return name in self.names and min(len(sets.generated), len(sets.real)) >= LEAST[name]
