"""Adversarial losses in the hinge form (Lim and Ye 2017; SPADE; SPMPGAN, eq. of the discriminator)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def hinge_real(score: Tensor) -> Tensor:
    """Discriminator's loss on real pictures: mean of max(0, 1 - D)."""
    return F.relu(1 - score).mean()


def hinge_fake(score: Tensor) -> Tensor:
    """Discriminator's loss on generated pictures: mean of max(0, 1 + D)."""
    return F.relu(1 + score).mean()


def hinge_generator(score: Tensor) -> Tensor:
    """Generator's loss: minus the mean of D."""
    return -score.mean()
