"""Precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991), density and coverage (Naeem et al. 2020).

The latter is arXiv 2002.09797. A picture's ball reaches to its k-th nearest neighbour of its own set.
Shapes: n generated, m real pictures, d features.
"""

from __future__ import annotations

import torch
from torch import Tensor

PRDC = ("precision", "recall", "density", "coverage")
K_PRECISION, K_DENSITY = 3, 5  # the papers' own


def prdc(generated: Tensor, real: Tensor) -> dict[str, float]:
    """Return the four values of features (n,d) and (m,d); each set needs more than `K_DENSITY` pictures."""
    generated, real = generated.double(), real.double()
    across = torch.cdist(real, generated)  # (m,n)
    of_real, of_generated = (torch.cdist(x, x).sort(1).values for x in (real, generated))  # column 0: itself
    in_real = across <= of_real[:, K_PRECISION, None]
    in_generated = across <= of_generated[:, K_PRECISION]
    wide = of_real[:, K_DENSITY, None]
    return {
        "precision": float(in_real.any(0).double().mean()),
        "recall": float(in_generated.any(1).double().mean()),
        "density": float((across < wide).sum() / (K_DENSITY * across.shape[1])),
        "coverage": float((across.min(1).values < wide[:, 0]).double().mean()),
    }
