"""Processes of a distributed run that die or stop answering. Gloo on a CPU; NCCL needs several GPUs."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from toy_process import start_pair

from trainers.checkpoint import load_checkpoint
from util.errors import EXIT_LOST_PROCESS

SECONDS = 10  # that a process waits for the other: longer than two starts may lie apart on a busy machine


@pytest.mark.fault(
    "23", "a process of a distributed run killed or stopped", sees="one sentence from the others, exit code 4"
)
def test_lost_process(ledger: Any, tmp_path: Path) -> None:
    for attempt in ledger.attempts(4):
        with attempt as number:
            lose(tmp_path / str(number), (signal.SIGKILL, signal.SIGSTOP)[number % 2], victim=number // 2 % 2)


def lose(folder: Path, how: signal.Signals, *, victim: int) -> None:
    pair = start_pair(str(folder), "--steps", "1000000", "--save_every", "1", "--timeout", str(SECONDS / 60))
    try:
        while not (folder / "latest.pt").exists():
            assert not any(process.poll() for process in pair), [end(process) for process in pair]
            time.sleep(0.01)
        time.sleep(random.random() * 0.3)
        pair[victim].send_signal(how)
        errors = pair[1 - victim].communicate(timeout=120)[1]
        assert pair[1 - victim].returncode == EXIT_LOST_PROCESS, errors
        assert "Traceback" not in errors
        assert "another process of this run died" in errors.strip().splitlines()[-1]
        assert load_checkpoint(folder / "latest.pt")["step"] >= 0  # the initial state is a checkpoint too
    finally:
        for process in pair:
            end(process)


def end(process: subprocess.Popen[str]) -> str:
    process.kill()
    return process.communicate()[1]
