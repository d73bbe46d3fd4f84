"""Data workers that are killed, as by a machine short of memory, and a /dev/shm too small for their batches."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trainer_toys import fit, toy_trainer

from metrics.folders import Items
from scripts.evaluate import main as evaluate
from trainers.checkpoint import load_checkpoint
from trainers.run_dir import open_run
from util.errors import EXIT_LOST_PROCESS, LostProcessError

ROOT = Path(__file__).resolve().parents[2]
TOYS = ROOT / "tests" / "helpers" / "trainer_toys.py"
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
FOREVER = 5000  # steps: a worker that is not killed ends in a failure, not in a test without end


@pytest.fixture
def killer() -> Callable[[], None]:
    """Kill one of this process's workers a little after they have started."""

    def work(others: set[Any]) -> None:
        while not (workers := [child for child in active_children() if child not in others]):
            time.sleep(0.001)
        time.sleep(random.random() * 0.3)
        os.kill(random.choice(workers).pid or 0, signal.SIGKILL)

    return lambda: threading.Thread(target=work, args=(set(active_children()),), daemon=True).start()


@pytest.mark.fault(
    "7", "a data worker killed while training", sees="one sentence, exit code 4; the last whole step is saved"
)
def test_training(ledger: Any, tmp_path: Path, killer: Callable[[], None]) -> None:
    for attempt in ledger.attempts(50):
        with attempt as number:
            trainer = toy_trainer(tmp_path / str(number), max_steps=FOREVER, workers=2)
            with open_run(trainer.run_dir, resume=False, world=trainer.world):
                killer()
                with pytest.raises(LostProcessError, match=r"data worker.*--num_workers 0"):
                    trainer.fit()
            assert load_checkpoint(trainer.run_dir / "latest.pt")["step"] == trainer.step
            fit(trainer.run_dir, max_steps=trainer.step + 1, resume=True)


@pytest.mark.fault("7", "a data worker killed while evaluating", sees="one sentence, exit code 4")
def test_evaluation(ledger: Any, tmp_path: Path, killer: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    make_pictures(tmp_path)
    load = Items._load
    monkeypatch.setattr(Items, "_load", lambda self, item: (time.sleep(0.05), load(self, item))[1])
    for attempt in ledger.attempts(30):
        with attempt:
            killer()
            with pytest.raises(LostProcessError, match=r"data worker.*--num_workers 0"):
                evaluate([*evaluation(tmp_path), "--num_workers", "2", "--batch_size", "1"])


@pytest.mark.fault("7", "the same in a process of its own", sees="one sentence, exit code 4, no traceback at the end")
def test_command(ledger: Any, tmp_path: Path) -> None:
    for attempt in ledger.attempts(5, quick=1):
        with attempt as number:
            folder = tmp_path / str(number)
            command = [sys.executable, str(TOYS), str(folder), "--steps", str(FOREVER), "--workers", "2"]
            process = subprocess.Popen(command, env=ENV, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            try:
                while not (log := folder / "stats.jsonl").exists() or not log.stat().st_size:
                    assert process.poll() is None, process.communicate()
                    time.sleep(0.01)
                os.kill(random.choice(children(process.pid)), signal.SIGKILL)
                require_sentence(process.communicate(timeout=120)[1], process.returncode)
            finally:
                process.kill()
            assert (folder / "latest.pt").exists()


@pytest.mark.fault(
    "7", "/dev/shm too small for the batches", sees="one sentence, exit code 4; the last whole step is saved"
)
def test_small_shared_memory(ledger: Any, tmp_path: Path) -> None:
    make_pictures(tmp_path)
    train = [str(TOYS), "--steps", str(FOREVER), "--workers", "2"]
    commands = [[*train, str(tmp_path / "a")], ["scripts/evaluate.py", *evaluation(tmp_path)],
                [*train, str(tmp_path / "b")]]  # fmt: skip
    sizes = ["40k", "64k", "4k"]  # for some batches, for none, not even for a lock
    for attempt in ledger.attempts(3, quick=1):
        with attempt as number:
            script = f'mount -t tmpfs -o size={sizes[number]} tmpfs /dev/shm || exit 77; exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, *commands[number]]
            done = subprocess.run(command, env=ENV, cwd=ROOT, capture_output=True, text=True, timeout=120)
            if done.returncode == 77 or "unshare failed" in done.stderr:
                pytest.skip("file systems cannot be mounted here")
            require_sentence(done.stderr, done.returncode)
            assert "scripts" in commands[number][0] or (Path(commands[number][-1]) / "latest.pt").exists()


def children(parent: int) -> list[int]:
    """Return the processes that any thread of `parent` has started."""
    lists = [task / "children" for task in Path(f"/proc/{parent}/task").iterdir()]
    return [int(number) for path in lists for number in path.read_text().split()]


def require_sentence(errors: str, code: int) -> None:
    assert code == EXIT_LOST_PROCESS, errors
    assert "Traceback" not in errors
    assert errors.strip().splitlines()[-1].startswith("error: ")
    assert "--num_workers 0" in errors


def make_pictures(folder: Path) -> None:
    """Write pairs whose decoded pictures are larger than a small /dev/shm."""
    rng = np.random.default_rng(0)
    for kind in ("real", "fake"):
        (folder / kind).mkdir()
        for number in range(24):
            Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(folder / kind / f"{number}.png")


def evaluation(folder: Path) -> list[str]:
    return ["--real", str(folder / "real"), "--fake", str(folder / "fake"), "--metrics", "l1_whole", "--device", "cpu"]
