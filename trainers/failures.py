"""Failures of training, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from util.errors import EXIT_NON_FINITE, UserError
from util.files import cause

SHOWN_PARAMETERS = 3


class NonFiniteError(UserError):
    """A loss or a gradient is NaN or infinite; raised before the update."""

    exit_code = EXIT_NON_FINITE


def non_finite(*, step: int, phase: str, losses: dict[str, float], networks: dict[str, nn.Module]) -> NonFiniteError:
    """Return the error that names the step, the phase, its losses and the first parameters with a bad gradient."""
    values = ", ".join(f"{name} {value:.6g}" for name, value in losses.items())
    bad = [
        f"{net}.{name}"
        for net, module in networks.items()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]
    more = f" and {len(bad) - SHOWN_PARAMETERS} more" if len(bad) > SHOWN_PARAMETERS else ""
    where = ", ".join(bad[:SHOWN_PARAMETERS]) + more
    return NonFiniteError(
        f"step {step}, phase {phase}: a loss or gradient is not finite; stopped before the update. Losses: {values}. "
        f"Gradients: {where or 'finite one by one in this process'}. The last checkpoint is untouched: "
        "go on from it with --continue_train and a lower learning rate, --precision fp32 or another --seed."
    )


class MemoryShortageError(UserError):
    """The GPU's memory or the main memory is exhausted."""


TRAINING = (
    "Lower --batch_size (--accumulate makes up for it) or --crop_size, or pass --checkpoint_activations or "
    "--precision bf16; --continue_train goes on from the last checkpoint."
)
SMALLER = "Lower --batch_size or --crop_size, or pass --checkpoint_activations or --precision bf16."
GENERATION = "Lower --batch_size, or pass --precision bf16 or --device cpu."


@contextmanager
def out_of_memory_hint(remedy: str = TRAINING) -> Iterator[None]:
    """Turn an exhausted GPU or main memory into a `MemoryShortageError` that says which flags need less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        on_cpu = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
        if not (on_cpu or isinstance(error, torch.OutOfMemoryError)):
            raise
        raise MemoryShortageError(f"out of memory ({cause(error)}). {remedy}") from error
