"""Where to run, and in which precision."""

from __future__ import annotations

import contextlib

import torch

from util.errors import UserError


def resolve_device(name: str) -> torch.device:
    """Return the device of `--device auto|cpu|cuda`; under `torchrun` each process keeps its own GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU here. Use --device cpu, or check the driver.")
    return torch.device(name)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Return the context of `--precision fp32|bf16`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
