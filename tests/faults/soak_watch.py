"""What `make soak` watches: memory and open files of a process that trains all the time, and processes left behind."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

from trainers.checkpoint import Checkpoints
from util.errors import EXIT_INTERRUPTED


class Steady:
    """A process that trains all the time; its resident memory (MB) and open files are sampled."""

    def __init__(self, process: Any, run: Path) -> None:
        self.process, self.run = process, run
        self.samples: list[tuple[float, int]] = []

    def sample(self) -> None:
        folder = Path("/proc") / str(self.process.pid)
        if Checkpoints(self.run).newest_step() > 0:
            pages = int((folder / "statm").read_text().split()[1])
            self.samples.append((pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(folder / "fd"))))

    def stop(self) -> tuple[str, list[str]]:
        """End it; return what is to be told, and what is wrong."""
        faults = []
        self.process.terminate()
        self.process.join(120)
        if self.process.exitcode != EXIT_INTERRUPTED:
            faults.append(f"the steady run ended with {self.process.exitcode}")
        third = max(1, len(self.samples) // 3)
        middle, last = self.samples[third : 2 * third], self.samples[-third:]
        if len(self.samples) < 6:
            return "", faults
        memory = [statistics.median(mb for mb, _ in part) for part in (middle, last)]
        files = [max(count for _, count in part) for part in (middle, last)]
        if memory[1] > 1.05 * memory[0] or files[1] > files[0]:
            faults.append(f"memory {memory} MB, open files {files}: grow")
        steps = Checkpoints(self.run).newest_step()
        told = (
            f"A process that trained {steps} steps beside them held {memory[0]:.0f} MB and {files[0]} open files in\n"
            f"the middle third of the time, {memory[1]:.0f} MB and {files[1]} in the last."
        )
        return told, faults


def left_behind(sessions: set[int]) -> set[str]:
    """Return the processes of ended runs, such as data workers, that still live after half a minute."""
    deadline = time.monotonic() + 30
    while True:
        alive = living(sessions)
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.2)


def living(sessions: set[int]) -> set[str]:
    """Return the processes of some sessions, by their number."""
    fields = (_stat(path) for path in Path("/proc").glob("[0-9]*"))
    return {number for number, state, session in fields if state != "Z" and int(session) in sessions}


def _stat(process: Path) -> tuple[str, str, str]:
    try:
        words = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
        return process.name, "Z", "0"
    return process.name, words[0], words[3]
