"""A run's folder: one writer at a time, begun anew or continued on purpose."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TextIO

from trainers.checkpoint import Checkpoints
from trainers.distributed import Distributed
from util.errors import UserError

_held: list[TextIO] = []  # files of the locks that this process holds


def _let_go() -> None:
    """In a forked process (a data worker): close what it inherited, or it keeps the lock of a run that was killed."""
    while _held:
        _held.pop().close()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def open_run(run_dir: Path, *, resume: bool, world: Distributed) -> Iterator[None]:
    """Create the folder if need be and hold its lock; enter before the first file of the run is written.

    Args:
        run_dir: `<checkpoints_dir>/<name>`, on a disk that all machines of a distributed run share.
        resume: `--continue_train`. Without it a folder that holds no more than a run's initial state is begun anew.
        world: the processes of the run.

    Raises:
        UserError: there are checkpoints and `resume` is off, or none and it is on, or another process writes here.
    """
    checkpoints = Checkpoints(run_dir)
    exist = checkpoints.exist()
    if resume and not exist:
        raise UserError(f"{run_dir}: no checkpoint to continue from. Check --name and --checkpoints_dir, or start "
                        "without --continue_train.")  # fmt: skip
    if exist and not resume and checkpoints.newest_step() != 0:
        raise UserError(f"{run_dir}: already holds checkpoints. Pass --continue_train to go on from them, or another "
                        "--name.")  # fmt: skip
    world.barrier()  # everyone has looked before anyone writes
    with locked(run_dir) if world.is_main else nullcontext():
        yield


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold `<run_dir>/.lock`; the system drops it with the process, so that a killed run leaves none behind.

    A folder that is made here and gets nothing else, since the start fails, is removed again.
    """
    new = not run_dir.exists()
    run_dir.mkdir(parents=True, exist_ok=True)
    with open(run_dir / ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{run_dir}: another process is training in this folder. Wait for it, stop it, or pass "
                            "another --name.") from error  # fmt: skip
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            print(f"warning: {run_dir}: this file system has no locks; see to it that one run writes here", flush=True)
        _held.append(file)
        try:
            yield
        finally:
            if new and os.listdir(run_dir) == [".lock"]:
                (run_dir / ".lock").unlink()
                run_dir.rmdir()
            _held.remove(file)
