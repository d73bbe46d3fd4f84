"""Shared by the mappings of released weights: renaming tensors, Adam's moments, and the order of colours.

The releases work in BGR, we in RGB: a method's colour rule reverses the three channels of exactly those tensors that
meet a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from util.errors import UserError

SHOWN_PROBLEMS = 12
JUDGE_KERNEL = (5, 5)  # of the discriminators
BUFFERS = ("weight_u", "weight_v")

ColourRule = Callable[[str, Tensor], Tensor]
"""(released key, tensor or a moment of it) -> the tensor for RGB; others are returned as they are."""


def swap_first(value: Tensor) -> Tensor:
    """Reverse inputs 0-2 of a convolution's weight."""
    return torch.cat([value[:, :3].flip(1), value[:, 3:]], dim=1)


def swap_last(value: Tensor) -> Tensor:
    """Reverse the last three inputs of a convolution's weight."""
    return torch.cat([value[:, :-3], value[:, -3:].flip(1)], dim=1)


def of_judge(swap: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """Apply `swap` to a discriminator's first `weight_orig`, or to the same blocks of its `weight_v`."""
    return swap(value.view(1, -1, *JUDGE_KERNEL) if value.dim() == 1 else value).reshape(value.shape)


def renamed(
    ours: Mapping[str, Tensor], released: Mapping[str, Tensor], name: Callable[[str], str], to_rgb: ColourRule
) -> dict[str, Tensor]:
    """Return the released tensors under our keys, in RGB.

    Args:
        ours: state dict of our network, for names and shapes (its values are not read, so "meta" tensors suffice).
        released: state dict of theirs.
        name: maps our key to theirs.
        to_rgb: the network's colour rule.

    Raises:
        UserError: lists unknown, missing and misshaped keys; then nothing is converted.
    """
    wanted = {name(key): key for key in ours}
    problems = [f"missing: {key}" for key in wanted if key not in released]
    problems += [f"unknown: {key}" for key in released if key not in wanted]
    problems += [
        f"{key} has shape {tuple(released[key].shape)}, expected {tuple(ours[our_key].shape)}"
        for key, our_key in wanted.items()
        if key in released and released[key].shape != ours[our_key].shape
    ]
    if problems:
        shown = "\n  ".join(problems[:SHOWN_PROBLEMS])
        raise UserError(f"{len(problems)} tensors do not fit, nothing was converted:\n  {shown}")
    return {our_key: to_rgb(key, released[key]).contiguous().clone() for key, our_key in wanted.items()}


def released_parameters(state: Mapping[str, Tensor]) -> list[str]:
    """Return a released network's parameters in their order."""
    return [key for key in state if not key.endswith(BUFFERS)]


def parameter_names(net: nn.Module, name: Callable[[str], str]) -> list[str]:
    """Return the released names of our parameters, in the order in which our optimiser numbers them."""
    return [name(key) for key, _ in net.named_parameters()]


def adam_state(
    released: Mapping[str, Any],
    keys: list[str],
    place: Callable[[str], int],
    target: dict[str, Any],
    to_rgb: ColourRule,
) -> None:
    """Add a released Adam's moments to the state dict `target` of ours.

    Args:
        keys: the released network's parameters in their order (buffers left out), which the moments are numbered by.
        place: index of our parameter for a released key.
        to_rgb: the network's colour rule.
    """
    for index, moments in released["state"].items():
        key = keys[int(index)]
        target["state"][place(key)] = {
            "step": torch.tensor(float(moments["step"])),
            "exp_avg": to_rgb(key, moments["exp_avg"]).contiguous().clone(),
            "exp_avg_sq": to_rgb(key, moments["exp_avg_sq"]).contiguous().clone(),
        }
