"""Loader processes and stop signals."""

from __future__ import annotations

import os
import signal
import threading


def shield_worker(worker_id: int) -> None:
    """`worker_init_fn` of a DataLoader: leave stop signals to the trainer, which still needs batches to end its step.

    Ctrl-C reaches every process of a terminal, and torchrun and cluster schedulers send SIGTERM to whole groups. A
    SIGTERM of the parent's own is obeyed: it is how Python clears up its children when it exits.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey_parent, args=(os.getppid(),), daemon=True).start()


def _obey_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
