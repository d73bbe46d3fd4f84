"""S2PreST's inference on latents: noise, one prediction, mixed latent, DDIM decoding (its `module/inference.py`).

Works on latents of any shape and on any denoiser, so that golden values with an analytic one hold it. Schedule of
Stable Diffusion v1: 1000 steps, beta linear in its square root. Symbols: abar_t cumulative product of 1 - beta;
s strength, N steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

TRAIN_STEPS = 1000
BETA_FIRST, BETA_LAST = 0.00085, 0.012
LATENTS, TOKENS = ("content", "adain"), ("content", "style")
MIXES = {"content": (0.5, 0.5, 0.0), "style": (0.3, 0.3, 0.4)}  # usual `cond_mix` by `token`
MOST_STEPS = TRAIN_STEPS // 2  # beyond, the release's rule runs past the last step


class Denoiser(Protocol):
    """Predicts the noise of latents x at step t; `guidance` None: conditional alone."""

    def __call__(self, x: Tensor, t: int, guidance: float | None) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """The coefficients of one stylisation; defaults are the release's.

    Args:
        strength: s in (0, 1] (`--style_guidance`): how far the latent is noised, and how many steps bring it back.
        steps: N, DDIM steps of the whole schedule.
        guidance: weight of the conditional prediction against the unconditional one.
        cond_mix: shares of the conditionings of content, edge map and style picture, together 1. The release computes
            0.3, 0.3, 0.4 too, and does not use it.
        token: whose token the noise is predicted under before decoding: "content", content's and edge map's by
            `cond_mix`, or "style", the style picture's alone, so that `cond_mix` is for the guided steps.
        edge_mix: weight of the edge map's noised latent against the content's.
        latent_mix: weight of the content's latent against the style's.
        latent: "content", or "adain": it is first given the style latent's mean and deviation, as InST's notebook does.
        style_mix: weight of the run's own style picture against a second one.
        match_noise_level: give the mixed noised latent the noise that its step announces, and start decoding at the
            step that the latent was noised at. The release does neither: two averaged noises are too weak by sqrt(2),
            and a latent noised at 400 is decoded from 381.
    """

    strength: float = 0.4
    steps: int = 50
    guidance: float = 10.0
    cond_mix: tuple[float, float, float] = MIXES["content"]
    edge_mix: float = 0.5
    latent_mix: float = 0.7
    latent: str = LATENTS[0]
    token: str = TOKENS[0]
    style_mix: float = 1.0
    match_noise_level: bool = False

    def described(self) -> dict[str, Any]:
        """Return what a result line names; what came later is left out where it is as before, for comparisons."""
        content, _, style = self.cond_mix
        later = {name: getattr(self, name) for name in ("latent", "style_mix", "token")}
        new = {name: value for name, value in later.items() if value != getattr(Coefficients, name)}
        shares = list(self.cond_mix) if style else content
        return {name: value for name, value in vars(self).items() if name not in later} | {"cond_mix": shares} | new

    @property
    def visited(self) -> list[int]:
        """The int(s N) steps that decoding visits, descending."""
        return timesteps(self.steps)[: int(self.strength * self.steps)][::-1]

    @property
    def noised_at(self) -> int:
        """The step that latents are noised at."""
        if self.match_noise_level and self.visited:
            return self.visited[0]
        return min(int(self.strength * TRAIN_STEPS), TRAIN_STEPS - 1)


@dataclass(frozen=True)
class Latents:
    """Latents (B, 4, h, w) of content, style and edge map, and two noises of their shape."""

    content: Tensor
    style: Tensor
    edge: Tensor
    noise_content: Tensor
    noise_edge: Tensor


@lru_cache(maxsize=1)
def alphas_cumprod() -> tuple[float, ...]:
    """Return abar_0 .. abar_999."""
    betas = torch.linspace(BETA_FIRST**0.5, BETA_LAST**0.5, TRAIN_STEPS, dtype=torch.float64).square()
    return tuple((1 - betas).cumprod(0).tolist())


def timesteps(steps: int) -> list[int]:
    """Return 1, 1 + c, 1 + 2c, ... with c = 1000 // steps, ascending: more than `steps` of them unless it divides."""
    return [k + 1 for k in range(0, TRAIN_STEPS, TRAIN_STEPS // steps)]


def noised(latent: Tensor, noise: Tensor, t: int) -> Tensor:
    """Return sqrt(abar_t) latent + sqrt(1 - abar_t) noise."""
    a = alphas_cumprod()[t]
    return a**0.5 * latent + (1 - a) ** 0.5 * noise


def half_noised(z: Latents, how: Coefficients) -> Tensor:
    """Return the mix of noised content and edge latents of which the one prediction is made."""
    t, share = how.noised_at, how.edge_mix
    noise = (1 - share) * z.noise_content + share * z.noise_edge
    if how.match_noise_level:
        noise = noise / ((1 - share) ** 2 + share**2) ** 0.5
    return noised((1 - share) * z.content + share * z.edge, noise, t)


def encode(z: Latents, denoise: Denoiser, how: Coefficients) -> Tensor:
    """Return the latent to decode: content and style mixed, noised with the noise predicted of content and edges."""
    predicted = denoise(half_noised(z, how), how.noised_at, None)
    content = with_statistics(z.content, z.style) if how.latent == "adain" else z.content
    mixed = how.latent_mix * content + (1 - how.latent_mix) * z.style
    return noised(mixed, predicted, how.noised_at)


def with_statistics(content: Tensor, style: Tensor) -> Tensor:
    """Return the content's latent with mean and deviation of the style's, channel by channel (AdaIN)."""
    deviations = ((z.var((2, 3), keepdim=True) + 1e-5).sqrt() for z in (content, style))
    means = (z.mean((2, 3), keepdim=True) for z in (content, style))
    (mean, wanted_mean), (deviation, wanted) = means, deviations
    return (content - mean) / deviation * wanted + wanted_mean


def ddim_step(x: Tensor, predicted: Tensor, t: int, previous: int) -> Tensor:
    """One deterministic DDIM step (eta 0) from t to `previous`."""
    a, p = alphas_cumprod()[t], alphas_cumprod()[previous]
    clean = (x - (1 - a) ** 0.5 * predicted) / a**0.5
    return p**0.5 * clean + (1 - p) ** 0.5 * predicted


def decode(x: Tensor, denoise: Denoiser, how: Coefficients) -> Tensor:
    """Return the clean latent; the last step goes to abar_0, not to 1."""
    visited = how.visited
    for t, previous in zip(visited, [*visited, 0][1:], strict=True):
        x = ddim_step(x, denoise(x, t, how.guidance), t, previous)
    return x


def stylise(z: Latents, denoise: Denoiser, how: Coefficients) -> Tensor:
    """Return the stylised latent."""
    return decode(encode(z, denoise, how), denoise, how)
