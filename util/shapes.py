"""Run-time shape contracts."""

from __future__ import annotations

from torch import Tensor


def check_shape(tensor: Tensor, shape: tuple[int | None, ...], name: str) -> None:
    """Raise `ValueError` unless `tensor` has `shape`; None stands for any size."""
    fits = tensor.dim() == len(shape) and all(w is None or w == s for w, s in zip(shape, tensor.shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected ({wanted})")
