"""Signals at random moments: while a command starts, and while it trains."""

from __future__ import annotations

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
