"""Files that are complete or absent: written beside their name, flushed to the disk, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `path` when the block ends; after an error `path` is as it was.

    The temporary name is unique, so that several processes may write one file: the last one wins.

    Args:
        path: the file.
        durable: wait until the disk holds it; off for what can be made again.
    """
    temp = path.with_name(f".{path.name[:200]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temp, "xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temp, path)
        if durable:
            flush_folder(path.parent)
    except OSError as error:
        if error.filename is None:  # a write that fails does not say where
            error.filename = str(path)
        raise
    finally:
        temp.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a whole file, atomically."""
    with atomic_file(path, durable=durable) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole file of UTF-8 text, atomically."""
    write_bytes(path, text.encode("utf-8"))


def flush_folder(folder: Path) -> None:
    """Make a rename durable. Some network file systems refuse to sync a folder; the rename stays atomic there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def cause(error: BaseException) -> str:
    """Return the first line of an error's text, for a message that quotes it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
