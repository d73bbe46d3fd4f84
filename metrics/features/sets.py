"""Features of two sets of pictures, in an order that does not depend on how they were read.

Shapes: n generated, m distinct real pictures; 2048 features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sets:
    """Features in the order of the pictures' names, so that random subsets do not depend on how they were read.

    Args:
        generated: (n,2048); real: (m,2048).
        place: (n,) where each generated picture stands among those seen; None: the sets are unpaired.
        partner: (n,) its truth's row of `real`; None likewise.
    """

    generated: Tensor
    real: Tensor
    place: Tensor | None
    partner: Tensor | None


def by_name(names: Sequence[str]) -> Tensor:
    """Return the order of the names; equal ones keep their order."""
    return torch.tensor(sorted(range(len(names)), key=names.__getitem__), dtype=torch.int64)
