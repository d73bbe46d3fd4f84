"""`lpips_*`: distance to the truth; `div_*`: diversity, the mean distance between the draws for one picture."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from metrics.declaration import Setup, Value
from metrics.features.lpips import LPIPS, SMALLEST, LPIPSFiles, load_lpips, masked, whole
from metrics.flags import LPIPS as LPIPS_FLAGS
from metrics.metric import Metric, PerPicture
from metrics.pictures import Pictures
from metrics.pixels.reconstruction import NO_TRUTH
from metrics.registry import ANALOGY, EDITING, METRICS, STYLISING
from util.opt import Opt

_WHAT = {"lpips": "of generated and real picture", "div": "of all pairs of draws for a picture, averaged"}
_WHERE = {"whole": "", "masked": ", its map (taps scaled up bilinearly, summed) averaged over masked pixels"}


@METRICS.register
class Perceptual(PerPicture):
    """`lpips_whole`, `lpips_masked`, `div_whole`, `div_masked`; a picture's features are computed once for all.

    Args:
        net, files: of `load_lpips`.
        kinds: of "lpips", "div".
        where: of "whole", "masked".
    """

    asked = {EDITING: ("lpips", "div"), ANALOGY: ("lpips",), STYLISING: ("lpips", "div")}
    values = {
        f"{kind}_{where}": Value("distance", f"{what}{text}; mean over pictures", kind == "lpips", (0, math.inf))
        for kind, what in _WHAT.items()
        for where, text in _WHERE.items()
    }
    needs = {"lpips": ("truth",)}
    flags = LPIPS_FLAGS
    place = 40

    def __init__(
        self,
        net: LPIPS,
        files: LPIPSFiles,
        *,
        device: torch.device,
        kinds: tuple[str, ...],
        where: tuple[str, ...] = tuple(_WHERE),
    ) -> None:
        self.net, self.files, self.kinds = net.to(device), files, kinds
        self.smallest_side = SMALLEST[net.net]
        self.where = where
        super().__init__(tuple(f"{kind}_{place}" for kind in kinds for place in where))

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        where = tuple(_WHERE) if setup.masks else ("whole",)
        return [cls(*read_lpips(setup.opt), device=setup.device, kinds=names, where=where)]

    @classmethod
    def check(cls, names: tuple[str, ...], opt: Opt) -> None:
        read_lpips(opt)

    def reset(self) -> None:
        super().reset()
        self._without_truth = False
        self._draws = 0

    def score(self, pictures: Pictures) -> dict[str, Tensor]:
        draws = pictures.draws if "div" in self.kinds and pictures.draws is not None else pictures.fake[:, None]
        self._draws, self._without_truth = draws.shape[1], self._without_truth or not pictures.has_truth
        taps = [self.net.taps(draw) for draw in draws.unbind(1)]
        scores: dict[str, Tensor] = {}
        if "lpips" in self.kinds:
            real = [self.net.taps(pictures.real)] if pictures.has_truth else []
            scores |= self._scores("lpips", [(taps[0], truth) for truth in real], pictures)
        if "div" in self.kinds:
            scores |= self._scores("div", list(combinations(taps, 2)), pictures)
        return scores

    def _scores(
        self, kind: str, pairs: list[tuple[list[Tensor], list[Tensor]]], pictures: Pictures
    ) -> dict[str, Tensor]:
        none = torch.full((len(pictures),), torch.nan)
        if not pairs:
            return {f"{kind}_{where}": none for where in self.where}
        maps = [self.net.distance(a, b) for a, b in pairs]
        mask = pictures.mask
        scores = {f"{kind}_whole": _mean([whole(m) for m in maps])}
        if "masked" in self.where:
            inside = none if mask is None else _mean([masked(m, mask.to(m[0].device)) for m in maps])
            scores[f"{kind}_masked"] = inside
        return scores

    def protocol(self, name: str) -> str:
        return f"LPIPS v0.1, {self.net.net}, {self.values[name].protocol}"

    def extra(self, name: str) -> dict[str, Any]:
        draws = {"draws": self._draws} if name.startswith("div") else {}
        return {**draws, "net": self.net.net, **vars(self.files)}

    def why_empty(self, name: str) -> str:
        if name.startswith("div") and self._draws < 2:
            return "it needs at least two draws per picture (test.py --num_samples 2, or several --fake folders)"
        return NO_TRUTH if name.startswith("lpips") and self._without_truth else super().why_empty(name)


def read_lpips(opt: Opt) -> tuple[LPIPS, LPIPSFiles]:
    """Load the network that LPIPS's flags name."""
    return load_lpips(opt.lpips_net, heads=opt.lpips_weights, backbone=opt.lpips_backbone)


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean(0).double().cpu()
