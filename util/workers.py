"""Loader processes: stop signals, and the death of a worker."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from types import FrameType, TracebackType
from typing import Any, NoReturn

from util.errors import LostProcessError
from util.files import cause

ADVICE = "usually memory or /dev/shm ran out: lower --num_workers or --batch_size, or pass --num_workers 0"
_torch_handler: Callable[[int, FrameType | None], Any] | None = None
_waiting = _missed = False  # whether a death may raise; whether one came when it might not


# --- in a worker ------------------------------------------------------------------------------------------------------
def shield_worker(worker_id: int) -> None:
    """`worker_init_fn` of a DataLoader: leave stop signals to the trainer, which still needs batches to end its step.

    Ctrl-C reaches every process of a terminal, and torchrun and cluster schedulers send SIGTERM to whole groups. A
    SIGTERM of the parent's own is obeyed: that is how Python stops its children when it exits.

    A batch that cannot be sent, such as when /dev/shm is full, ends the worker: by default the queue prints a traceback
    and drops the batch, for which the parent would then wait forever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey_parent, args=(os.getppid(),), daemon=True).start()
    Queue._on_queue_feeder_error = staticmethod(_give_up)  # type: ignore[attr-defined]
    sys.excepthook = _tell_unless_hung_up


def _obey_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _give_up(error: BaseException, batch: Any) -> NoReturn:
    os.write(2, f"data worker: {cause(error)}\n".encode())
    os._exit(1)


def _tell_unless_hung_up(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Be `sys.excepthook`, without the traceback of a thread whose batch the parent, on its way out, did not fetch."""
    in_thread = threading.current_thread() is not threading.main_thread()
    if not (in_thread and isinstance(error, (ConnectionError, EOFError))):
        sys.__excepthook__(kind, error, trace)


# --- in its parent ----------------------------------------------------------------------------------------------------
@contextmanager
def deaf_children() -> Iterator[None]:
    """Context in which processes are started that never see Ctrl-C, not even before their first line is run.

    One that comes meanwhile reaches this process at the end of the block.
    """
    resource_tracker.ensure_running()  # which unblocks the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def defer_deaths() -> None:
    """Let the death of a worker raise inside `waiting()` alone; call it once a DataLoader has started its workers.

    The DataLoader's handler of SIGCHLD raises at whatever line the main thread has reached, such as the middle of an
    optimiser's update, which would leave the state inconsistent.
    """
    global _torch_handler
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signal.SIGCHLD)
    if callable(handler) and handler is not _on_death:
        _torch_handler = handler
        signal.signal(signal.SIGCHLD, _on_death)


def _on_death(number: int, frame: FrameType | None) -> None:
    global _missed
    if not _waiting:
        _missed = True
    elif _torch_handler is not None:
        _torch_handler(number, frame)


@contextmanager
def waiting(workers: Sequence[BaseProcess]) -> Iterator[None]:
    """Context in which the next batch of living `workers` is awaited.

    Raises:
        LostProcessError: one of them has died, or ran out of memory.
    """
    global _waiting, _missed
    _missed = False
    require_alive(workers)  # not while a death may raise: it would interrupt the reading of an exit code
    try:
        try:
            _waiting = True
            if _missed:
                _on_death(signal.SIGCHLD, None)
            yield
        finally:
            _waiting = False
    except (MemoryError, RuntimeError, OSError, EOFError) as error:
        if not _tells_of_loss(error):
            raise
        _await_death(workers)
        require_alive(workers)  # its message says more about a dead worker
        raise LostProcessError(f"the data workers failed ({cause(error)}); {ADVICE}") from error


def require_alive(workers: Sequence[BaseProcess]) -> None:
    """Raise `LostProcessError` for the first worker that is dead."""
    for worker in workers:
        if not worker.is_alive():
            code = worker.exitcode or 0
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise LostProcessError(f"a data worker died (process {worker.pid}, {how}); {ADVICE}")


def _await_death(workers: Sequence[BaseProcess]) -> None:
    """Let a worker that is about to end do so: its connections are closed some time before it is gone."""
    ending = wait([worker.sentinel for worker in workers], timeout=1) if workers else []
    for worker in workers:
        if worker.sentinel in ending:
            worker.join()


def _tells_of_loss(error: BaseException) -> bool:
    """Whether an error can be caused by a dead worker or a lack of memory."""
    if type(error) is RuntimeError:
        return any(text in str(error) for text in ("DataLoader worker", "Pin memory thread", "can't allocate memory"))
    if isinstance(error, MemoryError | ConnectionError | EOFError):
        return True
    return isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.ENOSPC, errno.EAGAIN)  # cannot start
