"""test.py by two processes: pictures, numbers and counts are those of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_process import ROOT, start_pair
from trainer_toys import one_thread

import test as test_command
import train as train_command
from models import MODELS
from testing.analogy_flow import AnalogyFlow
from testing.flow import run_tests
from trainers.distributed import Distributed
from util.errors import UserError
from util.opt import Opt

QUICK = ["--num_workers", "0", "--device", "cpu"]


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the pictures of a test."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_two_processes_make_the_test_of_one(tmp_path: Path) -> None:
    """Three batches, so that one process has none in the last round; objects whose codes are drawn from the bank."""
    run = ["--checkpoints_dir", str(tmp_path), "--name", "run"]
    quiet = ["--max_steps", "0", "--image_every", "0", "--no-tensorboard"]
    assert train_command.main([*MODELS.get("divsem").tiny(tmp_path), *run, *QUICK, *quiet]) == 0
    (tmp_path / "run" / "style_bank.safetensors").unlink()  # so that the first process makes it, and the other waits
    what = "--task object_addition --num_images 3 --batch_size 1 --metrics fid,l1".split()
    command = [*run, *QUICK, *what, "--results_dir"]
    pair = start_pair(*command, str(tmp_path / "two"), script=ROOT / "test.py")
    told = [process.communicate(timeout=120) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], told
    assert "3 pictures, " in told[0][0] and told[1][0] == ""
    with one_thread():
        assert test_command.main([*command, str(tmp_path / "one")]) == 0
    pictures = files_of(tmp_path / "one")
    assert len(pictures) >= 10
    assert pictures == files_of(tmp_path / "two")
    one, two = (json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8")) for name in ("one", "two"))
    assert one == two
    assert (
        one["metrics"].keys() >= {"fid", "l1_masked"}
        and one["protocol"]["counters"]["instances drawn from the bank"] > 0
    )
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_what_one_process_makes_is_not_shared() -> None:
    with pytest.raises(UserError, match="without torchrun"):
        run_tests(AnalogyFlow, Opt(model="semia"), Distributed(rank=1, world_size=2))
