"""The hash-filled weights and formula inputs that the golden numbers were made with (exact integer arithmetic)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

HERE = Path(__file__).resolve().parents[1] / "golden"


def golden(name: str) -> dict[str, Any]:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Recipe:
    """How a golden file's numbers are hashed and its weights made.

    Args:
        first: number of the first element.
        gain: weights have the deviation sqrt(gain / fan-in) times that of U(-1, 1).
        iterations: of the power method for spectral norms; `from_ones`: its start, else hashed.
    """

    first: int = 1
    gain: float = 3.0
    iterations: int = 8
    from_ones: bool = False


DIVSEM = Recipe()
SIEDOB = Recipe(first=0, iterations=100, from_ones=True)


def hash_values(key: str, count: int, *, first: int = DIVSEM.first) -> np.ndarray:
    """Return `count` float64 values in [-1, 1) that depend on the key alone; 32-bit arithmetic wraps around."""
    x = np.arange(first, first + count, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(zlib.crc32(key.encode()))
    for shift, factor in ((16, 2246822519), (13, 3266489917)):
        x ^= x >> np.uint32(shift)
        x *= np.uint32(factor)
    x ^= x >> np.uint32(16)
    return x / 2**31 - 1


def hash_tensor(key: str, *shape: int) -> Tensor:
    return torch.from_numpy(hash_values(key, int(np.prod(shape))).reshape(shape)).float()


def fill(net: nn.Module, released: Callable[[str], str], recipe: Recipe = DIVSEM) -> None:
    """Fill parameters and spectral buffers as the golden numbers' recipe says; `released` maps our key to theirs."""
    state = net.state_dict()
    for key, value in state.items():
        if key.rsplit(".", 1)[-1] in ("weight_u", "weight_v", "mean", "std"):
            continue
        values = hash_values(released(key), value.numel(), first=recipe.first)
        scale = np.sqrt(recipe.gain / (value.numel() / value.shape[0])) if value.dim() >= 2 else 0.1
        value.copy_(torch.from_numpy((scale * values).reshape(value.shape)).float())
    for key in state:
        if key.endswith("weight_u"):
            matrix = state[key.replace("weight_u", "weight_orig")].double().flatten(1)
            start = np.ones(len(matrix)) if recipe.from_ones else hash_values(released(key), len(matrix))
            u = F.normalize(torch.from_numpy(start), dim=0)
            square = matrix @ matrix.T  # both halves of an iteration at once
            for _ in range(recipe.iterations - 1):
                u = F.normalize(square @ u, dim=0)
            v = F.normalize(matrix.T @ u, dim=0)
            state[key].copy_(F.normalize(matrix @ v, dim=0).float())
            state[key.replace("weight_u", "weight_v")].copy_(v.float())


def formula_inputs(label_nc: int, case: str = "A") -> dict[str, Tensor]:
    """Return image, label, inst (original ids), mask, each with B = 1, of the 256-pixel golden cases."""
    y, x = np.mgrid[0:256, 0:256].astype(np.float64)
    image = np.stack(
        [
            0.8 * np.sin(0.11 * x + 0.7 * c) * np.cos(0.07 * y - 0.3 * c)
            + 0.2 * (((7 * x + 13 * y + 5 * c) % 32) / 16 - 1)
            for c in range(3)
        ]
    )
    block = (x // 32 + 8 * (y // 64)).astype(np.int64)
    label = block if label_nc == 34 else 4 * block + 3
    mask = np.zeros((1, 256, 256), np.float32)
    rows, columns = ((48, 208), (40, 168)) if case != "C" else ((70, 120), (70, 150))
    mask[:, slice(*rows), slice(*columns)] = 1
    return {
        "image": torch.from_numpy(image).float()[None],
        "label": torch.from_numpy(label)[None],
        "inst_original": torch.from_numpy(121 * label + 120)[None],
        "mask": torch.from_numpy(mask)[None],
    }


def assert_stats(actual: Tensor, expected: dict[str, Any], *, val: float = 5e-4, moments: float = 2e-4) -> None:
    """Compare shape, mean, std (population) and the listed values, if any, of a tensor with golden statistics.

    `moments` counts in units of the deviation where that exceeds 1: inner layers of the hash-filled networks have a
    std of up to 79, where float32 itself leaves 4e-5 of it, and 1.4e-4 without AVX.
    """
    assert list(actual.shape) == expected["shape"]
    moments *= max(1.0, expected["std"])
    flat = actual.detach().double().flatten()
    assert abs(flat.mean().item() - expected["mean"]) <= moments
    assert abs(flat.std(correction=0).item() - expected["std"]) <= moments
    wanted = torch.tensor(expected.get("val", expected.get("first4", [])), dtype=torch.float64)
    values = flat[expected.get("idx", list(range(len(wanted))))]
    assert torch.allclose(values, wanted, rtol=0, atol=val), f"largest difference {(values - wanted).abs().max()}"
