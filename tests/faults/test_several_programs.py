"""Several programs on one run."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_process import TOYS

import test as test_command
import train as train_command
from models import MODELS
from models.style_bank import StyleBank
from trainers.checkpoint import load_checkpoint
from trainers.distributed import Distributed
from trainers.restore import read_run
from trainers.run_dir import open_run
from util.errors import UserError
from util.images import read_image

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--num_workers", "0", "--device", "cpu"]
PICTURES = 6
OK, BUSY, WRONG = 0, 7, 1  # how a test ends


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that trains and saves at each step, in a process of its own."""
    tmp_path = tmp_path_factory.mktemp("training")
    command = [sys.executable, str(TOYS), str(tmp_path / "run"), "--steps", "1000000", "--save_every", "1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not (tmp_path / "run" / "latest.pt").exists():
                assert process.poll() is None
                time.sleep(0.01)
            yield tmp_path / "run"
            assert process.poll() is None, "it trains on"
        finally:
            process.kill()


@pytest.mark.fault("22", "a second training in a run's folder", sees="another process is training in this folder")
def test_two_trainings(ledger: Any, training: Path) -> None:
    for attempt in ledger.attempts(20):
        with attempt as number:
            before = load_checkpoint(training / "latest.pt")["step"]
            second = open_run(training, resume=number % 2 == 0, world=Distributed())
            with pytest.raises(UserError, match=r"another process is training|already holds checkpoints"), second:
                pass
            assert load_checkpoint(training / "latest.pt")["step"] >= before


@pytest.mark.fault("22", "a run read (test, edit, style bank) while it trains and saves", sees="nothing")
def test_reading_while_training(ledger: Any, training: Path) -> None:
    for attempt in ledger.attempts(100, quick=10):
        with attempt:
            networks, _, _ = read_run(training, step=None, averaged=True)
            assert set(networks) == {"netG", "netD"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    tiny = [*MODELS.get("divsem").tiny(path), "--streets_test_size", str(PICTURES), "--max_steps", "0"]
    assert train_command.main([*tiny, *QUICK, "--no-tensorboard", "--checkpoints_dir", str(path), "--name", "run"]) == 0
    return path


@pytest.mark.fault(
    "22", "three test.py into one folder", sees="the pictures of one; the others: another process is writing here"
)
def test_one_folder(ledger: Any, runs: Path, tmp_path: Path) -> None:
    for attempt in ledger.attempts(12):
        with attempt as number:
            folder = tmp_path / str(number)
            ends = at_once(runs, [["--results_dir", str(folder), "--seed", str(k)] for k in range(3)])
            assert WRONG not in ends and OK in ends
            assert len(json.loads((folder / "result.json").read_text())["metrics"]) > 0
            for kind in ("fake", "real", "mask", "label"):
                assert sum(read_image(path).size > 0 for path in (folder / kind).glob("*.png")) == PICTURES


@pytest.mark.fault("22", "three test.py of a run without a style bank, two sizes of it", sees="nothing")
def test_one_bank(ledger: Any, runs: Path, tmp_path: Path) -> None:
    for attempt in ledger.attempts(12):
        with attempt as number:
            shutil.copytree(runs / "run", own := tmp_path / str(number) / "run")
            (own / "style_bank.safetensors").unlink()
            sizes = [["--results_dir", str(own / str(k)), "--style_bank_size", str(1 + k)] for k in range(3)]
            assert at_once(own.parent, sizes) == [OK] * 3
            width = int(train_command.TrainOptions().parse(["--config", str(own / "opt.yaml")]).style_dim)
            codes = StyleBank.load(own / "style_bank.safetensors", style_dim=width).codes
            told = json.loads((own / "style_bank.json").read_text())["codes"]
            assert {label: len(rows) for label, rows in codes.items()} == {int(k): len(v) for k, v in told.items()}


def at_once(runs: Path, each: list[list[str]]) -> list[int]:
    """Test a run in several processes, begun a little apart; return how they ended."""
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=run_test, args=(runs, more)) for more in each]
    for child in children:
        child.start()
        time.sleep(random.choice([0.0, 0.1, 0.4]))
    for child in children:
        child.join(120)
    return [child.exitcode if child.exitcode is not None else WRONG for child in children]


def run_test(runs: Path, more: list[str]) -> None:
    args = ["--checkpoints_dir", str(runs), "--name", "run", "--metrics", "l1", *QUICK, *more]
    try:
        code = test_command.main(args)
    except UserError as error:
        code = BUSY if "another process is writing its results here" in str(error) else WRONG
    os._exit(code)
