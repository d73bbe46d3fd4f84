"""SemIA's released generator (ddlee-cn/SemIA, commit 875b2c7; `latest_net_G.pth`): our tensors have its names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from util.errors import UserError

UNUSED = "encoder_c.tail_block."  # its output is not used; ours has no such layer
FIRST = "encoder_c.head_block.main.1.weight_orig"


def read_ngf(source: Mapping[str, Tensor], name: str) -> int:
    """Return the base width of a released generator; raises `UserError` if the file holds something else."""
    first = source.get(FIRST)
    if first is None or first.dim() != 4 or first.shape[1] != 3:
        raise UserError(f"{name}: no {FIRST} (ngf, 3, 7, 7); expected the authors' <step>_net_G.pth")
    return int(first.shape[0])


def converted(ours: Mapping[str, Tensor], source: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the released tensors that our generator's state `ours` has.

    Raises:
        UserError: tensors are missing, left over or of another shape.
    """
    known = {key: value for key, value in source.items() if not key.startswith(UNUSED)}
    wrong = sorted(ours.keys() ^ known.keys()) or [key for key in ours if ours[key].shape != known[key].shape]
    if wrong:
        raise UserError(f"{name}: does not fit SemIA's generator: {wrong[0]} and {len(wrong) - 1} more tensors")
    return {key: known[key].float() if known[key].is_floating_point() else known[key] for key in ours}
