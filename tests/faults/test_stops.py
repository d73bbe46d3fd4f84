"""Signals at random moments: while a command starts, and while it trains."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from util.errors import EXIT_ABORTED, EXIT_OK

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    path for path in (*ROOT.glob("*.py"), *sorted(ROOT.glob("scripts/*.py"))) if "run_main(" in path.read_text()
]


@pytest.mark.fault("5", "Ctrl-C in the seconds in which a command starts", sees="the word 'interrupted'; exit code 130")
def test_ctrl_c_while_a_command_starts(ledger: Any) -> None:
    random.shuffle(COMMANDS)
    for attempt in ledger.attempts(len(COMMANDS)):
        with attempt as number:
            process = subprocess.Popen(
                [sys.executable, str(COMMANDS[number]), "--help"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
            )
            maps = Path(f"/proc/{process.pid}/maps")
            while process.poll() is None and "/numpy/" not in maps.read_text():
                time.sleep(0.002)
            time.sleep(random.random())
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=120)
            assert (process.returncode, err) in ((EXIT_ABORTED, "interrupted\n"), (EXIT_OK, "")), COMMANDS[number]


@pytest.mark.fault(
    "4", "kill -9, SIGTERM, SIGUSR1, Ctrl-C while training", sees="code 75; going on ends where an unbroken run does"
)
@pytest.mark.skipif(
    "FAULTS_LEDGER" not in os.environ,
    reason="make test-faults does it, make soak for longer; tests/unit/test_trainer_signals.py has a few",
)
def test_stopped_runs_equal_unbroken_ones(ledger: Any) -> None:
    soak = [sys.executable, str(Path(__file__).with_name("soak.py")), "--minutes", "0", "--runs", "6"]
    done = subprocess.run([*soak, "--models", "spmpgan", "semia"], capture_output=True, text=True)
    counts = json.loads(done.stdout.splitlines()[-1])
    for attempt in ledger.attempts(counts["stopped"]):
        with attempt as number:
            assert number >= counts["faults"], done.stdout
