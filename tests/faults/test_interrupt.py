"""Ctrl-C while folders are prepared by several processes: a word, no traceback, and a second run goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from grounds import ROOT

from scripts import prepare_folder, prepare_streets
from util.errors import EXIT_ABORTED, EXIT_OK


@pytest.mark.fault("5", "Ctrl-C while processes prepare a folder", sees="`interrupted`; the same command goes on")
def test_prepare_folder(ledger: Any, tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    assert prepare_streets.main(["--output", str(scenes), "--height", "32", "--train", "200", "--test", "0"]) == 0
    for attempt in ledger.attempts(4, quick=1):
        with attempt as number:
            out = tmp_path / f"out_{number}"
            line = ["--images", str(scenes / "train/images"), "--labels", str(scenes / "train/labels")]
            line += ["--output", str(out)]
            command = [sys.executable, str(ROOT / "scripts/prepare_folder.py"), *line, "--num_workers", "2"]
            started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
            while not (out / "prepared.json").exists() and started.poll() is None:
                time.sleep(0.01)
            time.sleep(random.uniform(0, 2))  # the processes start, or work
            if started.poll() is None:
                os.killpg(started.pid, signal.SIGINT)
            told = started.communicate(timeout=120)[1]
            assert "Traceback" not in told, told
            if started.returncode != EXIT_OK:  # it may have ended just before
                assert (started.returncode, told.splitlines()[-1]) == (EXIT_ABORTED, "interrupted")
            assert prepare_folder.main([*line, "--num_workers", "0"]) == 0
