"""Where to run, and in which precision."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Any

import torch

from util.errors import UserError

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}  # what autocast computes with
FLOAT32_PRODUCTS: tuple[Any, ...] = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of malloc.h


def resolve_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device for `--device auto|cpu|cuda`; process `local_rank` of a machine takes its GPU of that number.

    Raises:
        UserError: `cuda` where PyTorch sees no such GPU.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        keep_freed_memory()
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU here. Use --device cpu or auto, or check the driver.")
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: process {local_rank} of this machine finds {torch.cuda.device_count()} GPU(s). Start "
            "torchrun with --nproc_per_node of at most that."
        )
    for kind in FLOAT32_PRODUCTS:
        kind.fp32_precision = "ieee"  # but where `tf32` allows other
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()  # shapes are fixed
    return torch.device("cuda", local_rank)


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (named or [str(number) for number in range(count)])[:count]


def send(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor of the CPU to a device, for which the host does not wait."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def keep_freed_memory() -> None:
    """Let this process keep the memory of large tensors that it frees, for the next ones.

    glibc would give each back to the kernel, which clears its pages before the next layer may use them: a sixth of the
    time of DivSem's generator. Other C libraries are left as they are.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018, of glibc alone
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, -1)


def compute_deterministically() -> None:
    """Make this process compute the same bits in every run; call before any computation.

    A CPU uses one thread: the order of a sum depends on how many share it. On a GPU, PyTorch warns of each operation
    that it has no deterministic form of.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS asks for it
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_num_threads(1)


@contextlib.contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Context of `--precision fp32|tf32|bf16|fp16`."""
    half = HALVES.get(precision)
    with tf32(precision == "tf32"), torch.autocast(device.type, dtype=half or torch.bfloat16, enabled=half is not None):
        yield


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Context in which a GPU may, or may not, round the factors of float32 products to ten bits (TF32).

    PyTorch by itself allows it in convolutions and not in matrix products; `resolve_device` forbids it in both.
    """
    before = [kind.fp32_precision for kind in FLOAT32_PRODUCTS]
    try:
        for kind in FLOAT32_PRODUCTS:
            kind.fp32_precision = "tf32" if allowed else "ieee"
        yield
    finally:
        for kind, precision in zip(FLOAT32_PRODUCTS, before, strict=True):
            kind.fp32_precision = precision
