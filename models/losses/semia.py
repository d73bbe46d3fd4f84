"""SemIA's losses on scores, features, scales and shifts, and its learning rate (released code, commit 875b2c7)."""

from __future__ import annotations

import torch
from torch import Tensor

from models.losses.distance import mean_distance


def least_squares(scores: list[Tensor], target: float) -> Tensor:
    """Return the mean over score maps of the mean of (score - target)^2."""
    return torch.stack([(score - target).square().mean() for score in scores]).mean()


def matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """Return the mean over layers of the mean absolute difference of features; the real ones are the target."""
    return torch.stack([mean_distance(a, b.detach()) for a, b in zip(fake, real, strict=True)]).mean()


def fixed_point(values: list[Tensor], target: float) -> Tensor:
    """Return the sum over levels of the mean |value - target|: no change of layout should change nothing."""
    return torch.stack([(value - target).abs().mean() for value in values]).sum()


def base_rate(step: int, *, lr: float, stable_steps: int, decay_steps: int) -> float:
    """Return the rate that step `step` (from 0) uses: `lr`, falling linearly to a tenth after `stable_steps`."""
    past = min(max(0, step - stable_steps - 1), decay_steps)
    return lr - past * 0.9 * lr / decay_steps
