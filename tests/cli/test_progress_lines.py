"""Commands that take long say how far they are where standard error is no terminal, as in a batch system's log."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import test as test_command
import train
from models import MODELS
from scripts import evaluate
from util import progress

QUICK = ["--num_workers", "0", "--device", "cpu"]


@pytest.fixture(autouse=True)
def every_step_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(progress, "EVERY", 0.0)


def trained(folder: Path, model: str) -> list[str]:
    """Make an untrained run, and return the flags that name it."""
    run = ["--checkpoints_dir", str(folder), "--name", "run"]
    assert train.main([*MODELS.get(model).tiny(folder), *run, *QUICK, "--no-tensorboard", "--max_steps", "0"]) == 0
    return [*run, *QUICK]


def counted(err: str, what: str) -> list[tuple[int, int]]:
    """Return the lines "what: N of M (...)"."""
    return [(int(n), int(m)) for n, m in re.findall(rf"^{what}: (\d+) of (\d+) \(", err, re.M)]


def test_tests_and_evaluations_count_their_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, "divsem")
    told = counted(capsys.readouterr().err, "gathering style codes")
    assert told and told[-1][0] == told[-1][1] > 1
    assert test_command.main([*run, "--metrics", "l1", "--batch_size", "2", "--num_images", "4"]) == 0
    assert counted(capsys.readouterr().err, "run: free_form") == [(1, 2), (2, 2)]
    results = tmp_path / "run/results/test_free_form"
    folders = [
        f"--{flag}={results / folder}" for flag, folder in (("real", "real"), ("fake", "fake"), ("masks", "mask"))
    ]
    assert evaluate.main([*folders, *QUICK, "--metrics", "l1", "--batch_size", "2", "--name", "theirs"]) == 0
    assert counted(capsys.readouterr().err, "theirs") == [(1, 2), (2, 2)]


def test_renderings_of_layouts_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, "semia")
    capsys.readouterr()
    assert test_command.main([*run, "--metrics", "none"]) == 0
    assert counted(capsys.readouterr().err, "run: analogy") == [(1, 2), (2, 2)]
