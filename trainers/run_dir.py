"""A run's folder: one writer at a time; a run is continued only on request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from trainers.checkpoint import Checkpoints
from trainers.distributed import Distributed
from trainers.weights import WEIGHTS_FILE
from util.errors import UserError
from util.locks import locked

BUSY = "another process is training in this folder. Wait for it, stop it, or pass another --name."


@contextmanager
def open_run(run_dir: Path, *, resume: bool, world: Distributed) -> Iterator[None]:
    """Create the folder if necessary and hold its lock; enter before writing the run's first file.

    Args:
        run_dir: `<checkpoints_dir>/<name>`, on a disk that all machines of a distributed run share.
        resume: `--continue_train`. Without it, a folder that holds only a run's initial state is started again.
        world: the processes of the run.

    Raises:
        UserError: there are checkpoints and `resume` is off, or none and it is on, or another process writes here.
    """
    with world.together():  # all processes have checked before any of them writes
        _require(Checkpoints(run_dir), resume=resume)
    with locked(run_dir, busy=BUSY) if world.is_main else nullcontext():
        yield


def _require(checkpoints: Checkpoints, *, resume: bool) -> None:
    run_dir, exist = checkpoints.run_dir, checkpoints.exist()
    if not exist:
        require_no_weights(run_dir)
    if resume and not exist:
        raise UserError(f"{run_dir}: no checkpoint to continue from. Check --name and --checkpoints_dir, or start "
                        "without --continue_train.")  # fmt: skip
    if exist and not resume and checkpoints.newest_step() != 0:
        raise UserError(f"{run_dir}: already holds checkpoints. Pass --continue_train to go on from them, or another "
                        "--name.")  # fmt: skip


def require_no_weights(run_dir: Path) -> None:
    """Raise `UserError` if a folder holds weights without a checkpoint, which a training would take the place of."""
    if (run_dir / WEIGHTS_FILE).exists():
        raise UserError(f"{run_dir}: holds converted or exported weights, from which no training can go on. Pass "
                        "another --name.")  # fmt: skip
