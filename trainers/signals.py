"""Stop requests: SIGTERM, Ctrl-C and SIGUSR1 (a cluster's warning) let the running step end first."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopSignals:
    """Context in which the first stop signal sets `requested`; a second one acts at once, as without this class."""

    def __init__(self) -> None:
        self.requested = False
        self._owner = os.getpid()
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        self._previous = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return  # a forked loader process: the trainer still needs it to finish the step
        self.requested = True
        self._restore()
        # os.write: `print` may be interrupted in the middle of another print, and then raises
        os.write(
            2, f"\n{signal.Signals(number).name}: finishing the step, then saving; once more to stop now\n".encode()
        )

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
