"""Weight files of others, such as torchvision's: found, read and loaded strictly."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from util.errors import UserError
from util.files import cause

TORCHVISION_URL = "https://download.pytorch.org/models/"


def read_weights(path: str | Path, *, flag: str, needed: str) -> dict[str, Any]:
    """Return the dictionary that a PyTorch file holds, on the CPU; only tensors and plain values are unpickled.

    Args:
        flag: what named the file, and `needed`: what it should be; both for messages.

    Raises:
        UserError: there is no such file, it cannot be read, or it holds no dictionary with names as keys.
    """
    if not Path(path).is_file():
        raise UserError(f"{flag} {path}: no such file; needed is {needed}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises many kinds of errors for other files
        raise UserError(
            f"{flag} {path} cannot be read as a PyTorch file of tensors ({cause(error)}); needed is {needed}"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{flag} {path} holds a {type(content).__name__}, not tensors by name; needed is {needed}")
    return content


def torchvision_file(name: str, *, reader: str, flag: str, otherwise: str) -> Path:
    """Return the path of torchvision's file `name` in torch hub's cache, downloading it if it is missing.

    Args:
        name: ends in "-", the first digits of its SHA-256, and ".pth".
        reader: what needs the file, `flag`: what else names it, `otherwise`: how to do without; all for messages.

    Raises:
        UserError: it cannot be downloaded.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    checksum = path.stem.rpartition("-")[2]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(TORCHVISION_URL + name, str(path), hash_prefix=checksum)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{reader} needs {name} (its SHA-256 begins with {checksum}), which could not be downloaded "
            f"({cause(error)}). Put {TORCHVISION_URL}{name} at {path} or name the file with {flag} FILE; {otherwise}"
        ) from error
    return path


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
