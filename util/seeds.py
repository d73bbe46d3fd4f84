"""Random draws as functions of a key, never of a rank, a worker or the order of calls.

A training sample's key is (seed, epoch, index); a test sample's is (seed, task, index).
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(*key: int | str) -> int:
    """Hash a key of numbers and words to a seed in [0, 2**32)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def random_pair(*key: int | str) -> tuple[random.Random, np.random.RandomState]:
    """Return Python's and NumPy's generator for a key, as the masks' released rules draw from both."""
    seed = derive_seed(*key)
    return random.Random(seed), np.random.RandomState(seed)


def torch_generator(*key: int | str) -> torch.Generator:
    """Return a CPU `torch.Generator` for a key."""
    return torch.Generator().manual_seed(derive_seed(*key))
