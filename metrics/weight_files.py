"""Weight files of the metrics' networks: hashes and strict loading."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import Tensor, nn

from util.errors import UserError


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Return the hash of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def load_exactly(net: nn.Module, state: dict[str, Tensor], *, source: str) -> None:
    """Load `state` into `net`; only BatchNorm's `num_batches_tracked`, which inference never reads, may be absent.

    Raises:
        UserError: `source` lacks tensors, has others or has other shapes.
    """
    try:
        missing, unexpected = net.load_state_dict(state, strict=False)
    except (RuntimeError, TypeError) as error:  # wrong shapes, or not a dictionary
        raise UserError(f"{source} does not fit {type(net).__name__}: {error}") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise UserError(
            f"{source} does not fit {type(net).__name__}: "
            f"missing {missing[:3] or 'nothing'}, unexpected {unexpected[:3] or 'nothing'}"
        )
