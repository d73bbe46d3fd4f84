"""The hash-filled weights and formula inputs of SemIA's golden numbers (tests/golden/semia_golden.json)."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hash_fill import HERE, golden
from torch import Tensor, nn

GOLDEN = golden("semia_golden.json")
VALUES = GOLDEN["values"]
BIG_FEATURE = re.compile(r"G\.encoder_c\.down_block\.\d\.main\.4\.(weight|bias)")
HEIGHT, WIDTH = 48, 64
PALETTE = np.array([(112, 174, 243), (228, 147, 37), (142, 250, 60)])


def hashed(key: str, *shape: int) -> Tensor:
    """Return float64 values in (-1, 1) that depend on the key alone."""
    mask = 0xFFFFFFFF
    x = (np.arange(int(np.prod(shape)), dtype=np.uint64) * 0x9E3779B1 + zlib.crc32(key.encode())) & mask
    x ^= x >> np.uint64(16)
    x = x * np.uint64(0x85EBCA6B) & np.uint64(mask)
    x ^= x >> np.uint64(13)
    x = x * np.uint64(0xC2B2AE35) & np.uint64(mask)
    x ^= x >> np.uint64(16)
    return torch.from_numpy((x + 0.5) / 2**32 * 2 - 1).reshape(shape)


def fill(net: nn.Module, prefix: str, released: Callable[[str], str] = lambda key: key) -> None:
    """Fill a float64 network as the golden file's `weight_fill` says."""
    state = net.state_dict()
    bn = {k.removesuffix("running_mean") for k in state if k.endswith("running_mean")}
    for key, value in state.items():
        name = f"{prefix}.{released(key)}"
        owner, kind = key.rpartition(".")[0] + ".", key.rpartition(".")[2]
        if kind in ("weight_v", "num_batches_tracked"):
            continue
        a = hashed(name, *value.shape)
        if kind == "weight_u":
            a = a / a.norm()
        elif kind == "running_mean" or (kind == "bias" and owner in bn):
            a = 0.1 * a
        elif kind == "running_var":
            a = 1 + 0.5 * a
        elif value.dim() == 4:
            a = a * (3 / (value.shape[1] * value.shape[2] * value.shape[3])) ** 0.5
        elif owner in bn:
            a = 1 + 0.1 * a
        else:
            a = 0.05 * a
        if found := BIG_FEATURE.fullmatch(name):
            plain = hashed(name, *value.shape)
            a = 0.2 * (1 + 0.1 * plain) if found[1] == "weight" else 2 + 0.1 * plain
        value.copy_(a)
    for module in net.modules():
        if hasattr(module, "weight_u"):
            v = module.by_output().detach().flatten(1).T @ module.weight_u
            module.weight_v.copy_(v / v.norm())


def picture(name: str) -> Tensor:
    p = {"src_img": (0.13, 0.21, 0.0, 0.37, 0.05), "tgt_img": (0.11, 0.19, 0.5, 0.31, 0.07)}[name]
    c, y, x = np.mgrid[0:3, 0:HEIGHT, 0:WIDTH].astype(float)
    waves = 0.5 * np.sin(p[0] * (x + 1) * (c + 1) + p[1] * y + p[2]) + 0.25 * np.cos(p[3] * y - p[4] * x * (c + 1))
    return (torch.from_numpy(waves) + 0.2 * hashed(name, 3, HEIGHT, WIDTH))[None]


def segmentation(name: str) -> Tensor:
    y0, cx, cy, r2 = {"src_seg": (30, 22, 20, 144), "tgt_seg": (34, 38, 18, 100)}[name]
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    index = (y >= y0).astype(int)
    index[(x - cx) ** 2 + (y - cy) ** 2 < r2] = 2
    return torch.from_numpy((PALETTE / 255 * 2 - 1)[index]).permute(2, 0, 1)[None]


def check(actual: Tensor, expected: dict[str, Any], tolerance: float = 1e-9) -> None:
    """Compare shape, moments, extremes and listed values."""
    assert list(actual.shape) == expected["shape"]
    flat = actual.detach().double().flatten()
    found = {"mean": flat.mean(), "std_population": flat.std(correction=0), "min": flat.min(), "max": flat.max()}
    for name, value in found.items():
        assert value.item() == pytest_approx(expected[name], tolerance), name
    assert flat[expected["flat_index"]].tolist() == pytest_approx(expected["values"], tolerance)


def pytest_approx(value: Any, tolerance: float) -> Any:
    import pytest

    return pytest.approx(value, rel=tolerance, abs=tolerance)


def table(section: str) -> dict[str, tuple[int, ...]]:
    """Return the released keys and shapes of a network, without those that nothing reads."""
    rows = {}
    for line in (HERE / "semia_state_dict.txt").read_text().splitlines():
        cells = line.split("  ")
        if cells[0] == section and "UNUSED" not in line:
            rows[cells[1]] = tuple(int(n) for n in cells[2].strip("()").split(",") if n.strip())
    return rows
