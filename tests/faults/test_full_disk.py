"""A disk that is full when results are written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FULL = """
import errno, sys
sys.path.insert(0, {root!r})
from util.errors import run_main
def main():
    raise OSError(getattr(errno, {name!r}), "as the system says it", "results/grid.png")
run_main(main)
"""


@pytest.mark.parametrize("name", ["ENOSPC", "EROFS", "EACCES", "ENAMETOOLONG"])
def test_faults_of_a_disk_are_sentences(name: str) -> None:
    code = FULL.format(root=str(ROOT), name=name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: results/grid.png: ") and "Traceback" not in done.stderr
