"""Networks compiled in place by `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from util.errors import UserError
from util.files import cause

NOT = "none"
GRAPHS = "reduce-overhead"  # PyTorch's name for CUDA graphs
MODES = (NOT, "default", GRAPHS)


def compile_in_place(net: nn.Module, mode: str, backend: str | Callable[..., Any] = "inductor") -> None:
    """Let a network be compiled at its first calls; `mode` is one of `MODES`."""
    if mode == NOT:
        return
    # As the mode says, but a graph is recorded for fixed shapes only, not anew for each number of instances
    graphs = {"triton.cudagraphs": True, "triton.cudagraph_skip_dynamic_graphs": True}
    torch._dynamo.config.optimize_ddp = False  # it does not take gradients of our own (`autograd.Function`)
    net.compile(backend=backend, options=graphs if mode == GRAPHS else None)


@contextmanager
def compiled_step(mode: str) -> Iterator[None]:
    """Context of a step; what graphs returned in the one before may be overwritten.

    Raises:
        UserError: PyTorch cannot compile a network here.
    """
    if mode == NOT:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException  # takes seconds

    if mode == GRAPHS:
        torch.compiler.cudagraph_mark_step_begin()
    try:
        yield
    except TorchDynamoException as error:
        raise UserError(
            f"--compile {mode}: PyTorch cannot compile a network here; train without the flag ({cause(error)})"
        ) from error


def uncompiled(mode: str) -> AbstractContextManager[None]:
    """Context in which compiled networks are called as they are: other sizes than a step's would be compiled anew."""
    return nullcontext() if mode == NOT else torch.compiler.set_stance("force_eager")
