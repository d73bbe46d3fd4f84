"""Safe reading of files with pickles, which can run any code: only tensors and plain values are read."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

_FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch.load then refuses code even where its caller allows it


@contextmanager
def weights_only() -> Iterator[None]:
    """Make every `torch.load` in the block, those of other packages too, read tensors and plain values alone."""
    before = os.environ.get(_FORCED)
    os.environ[_FORCED] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCED]
        else:
            os.environ[_FORCED] = before


class PlainUnpickler(pickle.Unpickler):
    """Reads plain values; a file that names a Python object, which could run any code, is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Raise `UnpicklingError` in place of importing."""
        raise pickle.UnpicklingError(f"it names the Python object {module}.{name}, which could run any code")


@contextmanager
def plain_pickles() -> Iterator[None]:
    """Make every `pickle.loads` in the block, those of other packages too, read plain values alone.

    `weights_only` does not reach these calls. What a file's bytes are before they are unpickled says nothing: raw
    weights can look like a pickle.
    """

    def loads(data: bytes, /, *, encoding: str = "ASCII", errors: str = "strict", **_: Any) -> Any:
        return PlainUnpickler(io.BytesIO(data), encoding=encoding, errors=errors).load()

    with patch.object(pickle, "loads", loads):
        yield
