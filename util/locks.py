"""Locks on folders: one writer at a time, and no lock left behind by a process that was killed."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from util.errors import UserError

_held: list[TextIO] = []  # files of the locks that this process holds


def _let_go() -> None:
    """In a forked process (a data worker): close inherited files, or it would keep the lock of a killed run."""
    while _held:
        _held.pop().close()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked(folder: Path, *, busy: str, name: str = ".lock", wait: bool = False) -> Iterator[None]:
    """Hold the lock `<folder>/<name>`, which the system releases when the process ends.

    A folder created here is removed again if the start fails and it holds nothing else.

    Args:
        folder: made if need be.
        busy: message about the folder where another process holds the lock: what is wrong and what to do.
        name: of the lock's file.
        wait: wait for the other process instead.

    Raises:
        UserError: another process holds the lock.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise UserError(f"{folder}: {busy}") from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            print(
                f"warning: {folder}: this file system has no locks; make sure that only one run writes here", flush=True
            )
        _held.append(file)
        try:
            yield
        finally:
            if new and os.listdir(folder) == [name]:
                (folder / name).unlink()
                folder.rmdir()
            _held.remove(file)
