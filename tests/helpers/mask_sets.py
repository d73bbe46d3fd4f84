"""The hash of several masks at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from data.masks import MaskSetHash


def mask_set_hash(masks: Iterable[tuple[str, np.ndarray]]) -> str:
    """Return `MaskSetHash` of (name, mask) pairs."""
    digest = MaskSetHash()
    for name, mask in masks:
        digest.update(name, mask)
    return digest.hexdigest()
