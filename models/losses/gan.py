"""Adversarial losses in the hinge form (Lim and Ye 2017; SPADE; SPMPGAN, eq. of the discriminator)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.losses.distance import mean_distance


def hinge_real(score: Tensor) -> Tensor:
    """Discriminator's loss on real pictures: mean of max(0, 1 - D)."""
    return F.relu(1 - score).mean()


def hinge_fake(score: Tensor) -> Tensor:
    """Discriminator's loss on generated pictures: mean of max(0, 1 + D)."""
    return F.relu(1 + score).mean()


def hinge_generator(score: Tensor) -> Tensor:
    """Generator's loss: minus the mean of D."""
    return -score.mean()


def gradient_penalty(score: Tensor, real: Tensor) -> Tensor:
    """R1 (Mescheder et al. 2018, eq. 9): half the squared gradient of a picture's mean score, mean over pictures.

    Args:
        score: (B, ...) of a discriminator; the mean is taken so that it means the same at any number of scores.
        real: (B, 3, H, W), which requires a gradient.
    """
    each = score.flatten(1).mean(1)
    (gradient,) = torch.autograd.grad(each.sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean() / 2


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """Sum over layers of the mean absolute difference of a discriminator's features, its scores left out.

    pix2pixHD (Wang et al. 2018, eq. 4), in SPADE's form; the real features are the target.
    """
    terms = [mean_distance(a, b.detach()) for a, b in zip(fake[:-1], real[:-1], strict=True)]
    return torch.stack(terms).sum()
