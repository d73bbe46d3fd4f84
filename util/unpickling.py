"""Safe reading of files with pickles, which can run any code: only tensors and plain values are read."""

from __future__ import annotations

import os
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from util.errors import UserError

_FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch.load then refuses code even where its caller allows it
_NAMING = ("GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4")  # opcodes that fetch a Python object by its name


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


def refuse_named_objects(path: Path) -> None:
    """Raise `UserError` if a member of a zip archive begins as a pickle that names a Python object.

    For members that are given to `pickle.loads` itself, which `weights_only` does not reach. Nested
    archives are left to `torch.load`.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            named = ""
            with archive.open(member) as file, suppress(Exception):  # weights are not pickles, and end this soon
                for code, value, _ in pickletools.genops(file):
                    if code.name in _NAMING:
                        named = str(value or code.name)
                        break
            if named:
                raise UserError(f"{path}: its member {member.filename} holds a Python object ({named}), which could "
                                "run any code; only tensors and plain values are read")  # fmt: skip
