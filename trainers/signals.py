"""Stop requests: SIGTERM, Ctrl-C and SIGUSR1 (a cluster's warning) let the running step end first.

Outside the steps there is nothing to wait for: a run that is loading data or has saved its last step ends at once.
"""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any

from util.errors import EXIT_INTERRUPTED

LEAVE_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # Ctrl-C raises KeyboardInterrupt by itself
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopSignals:
    """Context in which the first stop signal sets `requested`; a second one ends the process at once."""

    def __init__(self) -> None:
        self.requested = False
        self._owner = os.getpid()
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        self._previous = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return  # a forked loader process: the trainer still needs it to finish the step
        self.requested = True
        for again in LEAVE_SIGNALS:  # the default action needs no Python: a process may hang in a reduction
            signal.signal(again, signal.SIG_DFL)
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
        # os.write: `print` may be interrupted in the middle of another print, and then raises
        os.write(
            2, f"\n{signal.Signals(number).name}: finishing the step, then saving; once more to stop now\n".encode()
        )


class LeaveSignals:
    """Context in which SIGTERM and SIGUSR1 end the program with `EXIT_INTERRUPTED`, unless `StopSignals` is entered.

    They raise `SystemExit`, so that locks, files and processes are released.

    Args:
        state: of the run, for the message; update it as training proceeds.
        alone: whether this is the run's only process. One that waits for others runs no Python, so only the signal's
            default action ends it.
    """

    def __init__(self, state: str, *, alone: bool) -> None:
        self.state, self.alone = state, alone
        self._owner = os.getpid()
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> LeaveSignals:
        handler = self._handle if self.alone else signal.SIG_DFL
        self._previous = {number: signal.signal(number, handler) for number in LEAVE_SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a forked process: as if it had no handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        for again in LEAVE_SIGNALS:
            signal.signal(again, signal.SIG_DFL)
        os.write(2, f"\n{signal.Signals(number).name}: stopped; {self.state}\n".encode())
        raise SystemExit(EXIT_INTERRUPTED)
