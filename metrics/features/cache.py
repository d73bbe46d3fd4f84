"""Features of pictures on disk, by the pictures' hash, so that repeated tests do not compute them again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from util.errors import UserError
from util.files import cause, require_writable, write_bytes


def default_cache_dir() -> Path | None:
    """Return the user's cache folder for this project ($XDG_CACHE_HOME, else ~/.cache); None if it is not writable."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semedit"
        require_writable(folder, "--cache_dir")
    except (UserError, RuntimeError):  # the latter: a user without a home
        return None
    return folder


class FeatureCache:
    """A file per picture below `folder`, whose name says network and preparation: float32 numbers and their SHA-1.

    Files are written by rename, so that several tests may share a folder. A file that was truncated,
    changed or written in an older format is ignored and counted in `damaged`. Where a file cannot be written, as on a
    disk that is full, `refused` says why and nothing more is kept: the features are computed all the same.
    """

    def __init__(self, folder: Path, *, width: int) -> None:
        self.folder, self.width = folder, width
        self.found = self.damaged = 0
        self.refused = ""

    def get(self, key: bytes) -> Tensor | None:
        """Return the features (width,) of the picture with this hash, or None."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        numbers, check = data[: 4 * self.width], data[4 * self.width :]
        if len(numbers) != 4 * self.width or check != _checksum(numbers):
            self.damaged += 1
            return None
        self.found += 1
        return torch.from_numpy(np.frombuffer(numbers, "<f4").astype(np.float32))

    def put(self, key: bytes, features: Tensor) -> None:
        """Keep features (width,) of a picture."""
        if self.refused:
            return
        path = self._path(key)
        numbers = features.cpu().numpy().astype("<f4").tobytes()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, numbers + _checksum(numbers), durable=False)
        except OSError as error:
            self.refused = cause(error)

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self.folder / name[:2] / f"{name}.f32"


def _checksum(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()
