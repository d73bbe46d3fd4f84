"""Layers that keep nothing for the backward pass but their inputs, and compute the rest again (`recompute`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recompute(net: nn.Module) -> None:
    """Let the layers that `net` calls by `through` be computed again in its backward passes."""
    for layer in net.modules():
        layer.recomputed = True  # type: ignore[assignment]


def through(layer: nn.Module, *args: Any) -> Any:
    """Return `layer(*args)`; with `recompute`, only the arguments are kept for the gradient, which is the same."""
    if not (getattr(layer, "recomputed", False) and torch.is_grad_enabled()):
        return layer(*args)
    buffers = list(layer.buffers())
    before = [buffer.clone() for buffer in buffers]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), buffers_as(buffers, before)

    return checkpoint(layer, *args, use_reentrant=False, context_fn=contexts)


@contextmanager
def buffers_as(buffers: list[Tensor], values: list[Tensor]) -> Iterator[None]:
    """Let buffers that a forward pass moves on, such as those of spectral norm, have earlier values in the block."""
    present = [buffer.clone() for buffer in buffers]
    with torch.no_grad():
        for buffer, value in zip(buffers, values, strict=True):
            buffer.copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, present, strict=True):
                buffer.copy_(value)
