"""Weights alone, as safetensors: what a converted or exported run holds instead of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from util.errors import UserError
from util.sealed import load_tensors, save_tensors

WEIGHTS_FILE = "weights.safetensors"


def save_weights(networks: Mapping[str, Mapping[str, Tensor]], path: Path, *, step: int, source: str) -> None:
    """Write the state dicts of networks ({"netG": {...}}) as `netG.<key>` tensors, atomically.

    Args:
        step: optimiser steps that they were trained for; 0 if unknown.
        source: where they come from, in words.
    """
    tensors = {f"{net}.{key}": value for net, state in networks.items() for key, value in state.items()}
    save_tensors(path, tensors, {"format": "semedit weights 1", "step": str(step), "source": source})


def load_weights(path: Path) -> tuple[dict[str, dict[str, Tensor]], int]:
    """Return the state dicts by network and the step; raises `UserError` for a damaged file."""
    networks: dict[str, dict[str, Tensor]] = {}
    try:
        tensors, metadata = load_tensors(path)
        step = int(metadata.get("step", 0))
        for key, value in tensors.items():
            net, name = key.split(".", 1)
            networks.setdefault(net, {})[name] = value
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable weights file ({error})") from error
    return networks, step
