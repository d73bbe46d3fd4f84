"""`lpips_*`: distance to the truth; `div_*`: diversity, the mean distance between the draws for one picture."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from metrics.base import PerPicture, Pictures
from metrics.lpips import LPIPS, SMALLEST, LPIPSFiles, masked, whole
from metrics.reconstruction import NO_TRUTH

PERCEPTUAL = ("lpips", "div")
_WHAT = {"lpips": "of generated and real picture", "div": "of all pairs of draws for a picture, averaged"}
_WHERE = {"whole": "", "masked": ", its map (taps scaled up bilinearly, summed) averaged over masked pixels"}


class Perceptual(PerPicture):
    """`lpips_whole`, `lpips_masked`, `div_whole`, `div_masked`; a picture's features are computed once for all."""

    lower_is_better = ("lpips",)

    def __init__(self, net: LPIPS, files: LPIPSFiles, *, device: torch.device, kinds: tuple[str, ...]) -> None:
        self.net, self.files, self.kinds = net.to(device), files, kinds
        names = tuple(f"{kind}_{where}" for kind in kinds for where in _WHERE)
        self.UNIT = dict.fromkeys(names, "distance")
        self.PROTOCOL = {
            f"{kind}_{where}": f"LPIPS v0.1, {net.net}, {_WHAT[kind]}{text}; mean over pictures"
            for kind in kinds
            for where, text in _WHERE.items()
        }
        self.smallest_side = SMALLEST[net.net]
        super().__init__(names)

    def reset(self) -> None:
        super().reset()
        self._without_truth = False
        self._draws = 0

    def score(self, pictures: Pictures) -> dict[str, Tensor]:
        draws = pictures.draws if "div" in self.kinds and pictures.draws is not None else pictures.fake[:, None]
        self._draws, self._without_truth = draws.shape[1], self._without_truth or not pictures.has_truth
        taps = [self.net.taps(draw) for draw in draws.unbind(1)]
        found: dict[str, Tensor] = {}
        if "lpips" in self.kinds:
            real = [self.net.taps(pictures.real)] if pictures.has_truth else []
            found |= self._scores("lpips", [(taps[0], truth) for truth in real], pictures)
        if "div" in self.kinds:
            found |= self._scores("div", list(combinations(taps, 2)), pictures)
        return found

    def _scores(
        self, kind: str, pairs: list[tuple[list[Tensor], list[Tensor]]], pictures: Pictures
    ) -> dict[str, Tensor]:
        none = torch.full((len(pictures),), torch.nan)
        if not pairs:
            return {f"{kind}_{where}": none for where in _WHERE}
        maps = [self.net.distance(a, b) for a, b in pairs]
        mask = pictures.mask
        in_mask = none if mask is None else _mean([masked(m, mask.to(m[0].device)) for m in maps])
        return {f"{kind}_whole": _mean([whole(m) for m in maps]), f"{kind}_masked": in_mask}

    def extra(self, name: str) -> dict[str, Any]:
        draws = {"draws": self._draws} if name.startswith("div") else {}
        return {**draws, "net": self.net.net, **vars(self.files)}

    def why_empty(self, name: str) -> str:
        if name.startswith("div") and self._draws < 2:
            return "it needs at least two draws per picture (test.py --num_samples 2, or several --fake folders)"
        return NO_TRUTH if name.startswith("lpips") and self._without_truth else super().why_empty(name)


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean(0).double().cpu()
