"""Features of pictures by the pictures' hash: on disk for later tests, and from other processes for this one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
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

    Without a folder nothing is kept; what is known then comes from other processes alone (`share`, `take`).
    """

    def __init__(self, folder: Path | None, *, width: int) -> None:
        self.folder, self.width = folder, width
        self._taken: dict[bytes, Tensor] = {}
        self._shared: dict[bytes, Tensor] | None = None
        self.found = self.damaged = 0
        self.refused = ""

    def get(self, key: bytes) -> Tensor | None:
        """Return the features (width,) of the picture with this hash, or None."""
        features = self._taken.get(key)
        if features is None:
            features = self._read(key)
        if features is not None and self._shared is not None:
            self._shared[key] = features
        return features

    def put(self, key: bytes, features: Tensor) -> None:
        """Keep features (width,) of a picture."""
        if self._shared is not None:
            self._shared[key] = features
        if self.folder and not self.refused:
            self._write(self._path(self.folder, key), features)

    def share(self) -> dict[bytes, Tensor]:
        """Return what was found or kept since the last call; the first call begins to remember it."""
        shared, self._shared = self._shared or {}, {}
        return {key: features.clone() for key, features in shared.items()}  # not the whole batch that it is a part of

    def take(self, features: Mapping[bytes, Tensor]) -> None:
        """Know what another process has shared."""
        self._taken |= features

    def _read(self, key: bytes) -> Tensor | None:
        if not self.folder:
            return None
        try:
            data = self._path(self.folder, key).read_bytes()
        except OSError:
            return None
        numbers, check = data[: 4 * self.width], data[4 * self.width :]
        if len(numbers) != 4 * self.width or check != _checksum(numbers):
            self.damaged += 1
            return None
        self.found += 1
        return torch.from_numpy(np.frombuffer(numbers, "<f4").astype(np.float32))

    def _write(self, path: Path, features: Tensor) -> None:
        numbers = features.cpu().numpy().astype("<f4").tobytes()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, numbers + _checksum(numbers), durable=False)
        except OSError as error:
            self.refused = cause(error)

    @staticmethod
    def _path(folder: Path, key: bytes) -> Path:
        name = key.hex()
        return folder / name[:2] / f"{name}.f32"


def _checksum(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()
