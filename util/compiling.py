"""Networks compiled in place by `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

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
    decompose_replication()
    net.compile(backend=backend, options=graphs if mode == GRAPHS else None)


@cache
def decompose_replication() -> None:
    """Let inductor generate the gradient of replicated borders itself.

    It expects PyTorch's own in another order in memory than the CPU's comes in, and stops in the backward pass.
    """
    from torch._inductor.decomposition import register_decomposition  # takes seconds

    register_decomposition([torch.ops.aten.replication_pad2d_backward.default])(replication_gradient)


def replication_gradient(grad: Tensor, x: Tensor, padding: Sequence[int]) -> Tensor:
    """Return the gradient of x (..., H, W), whose borders were replicated by `padding` (left, right, top, bottom)."""
    for dim, (before, after) in ((-1, padding[:2]), (-2, padding[2:])):
        size = x.shape[dim]
        if size == 1:
            grad = grad.sum(dim, keepdim=True)
            continue
        first, inner, last = grad.split([before + 1, size - 2, after + 1], dim)
        grad = torch.cat([first.sum(dim, keepdim=True), inner, last.sum(dim, keepdim=True)], dim)
    return grad


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
