"""Files that are complete or absent: written beside their name, flushed to the disk, then renamed."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from util.errors import UserError, remedy
from util.locks import locked


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `path` when the block ends; after an error `path` is as it was.

    The temporary name is unique, so that several processes may write one file: the last one wins.

    Args:
        path: the file.
        durable: wait until the disk holds it; off for what can be made again.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    start = os.fsdecode(os.fsencode(path.name)[:200])  # the name may already have the greatest length
    temp = path.with_name(f".{start}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with _naming(path, temp), open(temp, "xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        with _naming(path, temp):
            os.replace(temp, path)
        if durable:
            flush_folder(path.parent)
    finally:
        with suppress(OSError):
            temp.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path, temp: Path | None = None) -> Iterator[None]:
    """Make an `OSError` name `path` where it names no file, as those of a write, or the temporary one."""
    try:
        yield
    except OSError as error:
        if error.filename in (None, os.fspath(temp) if temp else None):
            error.filename = os.fspath(path)
        raise


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a whole file, atomically."""
    with atomic_file(path, durable=durable) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole file of UTF-8 text, atomically."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file; after an error the file is unchanged, without half a line."""
    with _naming(path), open(path, "ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        rest = memoryview(f"{line}\n".encode("utf-8", "backslashreplace"))
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(before)
            raise


def require_writable(folder: Path, flag: str) -> None:
    """Create a folder for results and test that it can be written, before the work begins.

    Raises:
        UserError: names `flag` and the folder: it cannot be made or written, or its disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"1")
            file.flush()
    except OSError as error:
        raise UserError(f"{flag} {folder}: {remedy(error)} ({error.strerror})") from error


@contextmanager
def results_in(folder: Path, flag: str) -> Iterator[None]:
    """Context for writing results; raises `UserError` at the start if the folder cannot be written.

    The folder is locked meanwhile, since each process removes the results of earlier ones.

    Args:
        folder: of the results.
        flag: the one that names another folder, for messages.
    """
    require_writable(folder, flag)
    busy = f"another process is writing its results here. Wait for it, or name another folder by {flag}"
    try:
        with locked(folder, busy=busy, name=".results.lock"):
            yield
    except OSError as error:
        if not remedy(error):
            raise
        raise UserError(
            f"{error.filename}: {remedy(error)} ({error.strerror}). {folder} is incomplete: run the command again, or "
            f"name another folder by {flag}"
        ) from error


def require_regular(path: Path) -> None:
    """Raise `ValueError` for a folder, pipe or device, before it is opened: reading a pipe might never end."""
    if path.exists() and not path.is_file():
        raise ValueError("it is a folder, pipe or device, not a regular file")


def flush_folder(folder: Path) -> None:
    """Make a rename durable. Some network file systems refuse to sync a folder; the rename stays atomic there."""
    descriptor = os.open(folder, os.O_RDONLY)
    with suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)


def cause(error: BaseException) -> str:
    """Return the first line of an error's text, for a message that quotes it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
