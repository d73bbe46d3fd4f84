"""What train.py says at the start, at the end and when it is stopped; help with a run's values."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import train as train_command
from models import MODELS
from options.edit_options import EditOptions
from options.export_options import ExportOptions
from options.parser import ELSEWHERE
from options.test_options import TestOptions
from options.train_options import TrainOptions
from scripts.app import AppOptions
from scripts.build_style_bank import BankOptions
from trainers.trainer import Trainer
from util.errors import EXIT_ABORTED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USER_ERROR, UserError

ROOT = Path(__file__).resolve().parents[2]


def line(folder: Path, *more: str) -> list[str]:
    quick = ["--num_workers", "0", "--no-tensorboard", "--device", "cpu", "--image_every", "0", "--max_steps", "3"]
    return [*MODELS.get("spmpgan").tiny(folder), *quick, "--checkpoints_dir", str(folder), "--name", "run", *more]


def test_training_says_what_it_does_and_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_command.main(line(tmp_path, "--image_every", "2", "--accumulate", "2", "--ngf", "5")) == EXIT_OK
    data, networks, device, saved = capsys.readouterr().out.splitlines()
    opt = TrainOptions().parse(line(tmp_path))
    wanted = f"data: {opt.streets_train_size} pictures (streets), 9 classes, 64 pixels, {2 * opt.batch_size} per step"
    assert data == wanted
    total, *parts = map(float, re.findall(r"\d+\.\d+", networks))
    assert total == pytest.approx(sum(parts), abs=0.011) and "netG" in networks and "netD" in networks
    assert re.fullmatch(r"device: cpu \(threads: \d+\), fp32, up to step 3", device)
    where = shlex.quote(str(tmp_path))
    assert saved == f"saved in {tmp_path / 'run'}, step 3; next: python test.py --name run --checkpoints_dir {where}"
    drawn = {path.name for path in (tmp_path / "run/images").iterdir()}
    assert drawn == {"step_0000002.png", "step_0000003.png"}
    for options in (TrainOptions, TestOptions, EditOptions, ExportOptions, BankOptions, AppOptions):
        with pytest.raises(SystemExit):
            options().parse(["--help", "--name", "run", "--checkpoints_dir", str(tmp_path)])
        shown = " ".join(capsys.readouterr().out.split())
        assert "base width of the generator (default: 5)" in shown


def test_a_stopped_run_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._train_step

    def pressed(self: Trainer, batches: Any) -> None:
        step(self, batches)
        if self.step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", pressed)
        assert train_command.main(line(tmp_path)) == EXIT_INTERRUPTED
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith(f"stopped at step 1, saved in {tmp_path / 'run'}; go on: python train.py ")
    assert train_command.main(shlex.split(told.partition("train.py ")[2])) == EXIT_OK
    assert "step 3; next: " in capsys.readouterr().out


def test_ctrl_c_before_a_step_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(dataset: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_command, "quick_check", pressed)
    assert train_command.main(line(tmp_path)) == EXIT_ABORTED
    assert capsys.readouterr().err == "interrupted; no step was made\n"
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "step_5.pt").touch()
    monkeypatch.setattr(train_command, "open_run", lambda *args, **kwargs: pressed(None))
    assert train_command.main(line(tmp_path)) == EXIT_ABORTED
    assert "go on: python train.py --name run" in capsys.readouterr().err


def test_flags_of_other_code_bases_have_counterparts() -> None:
    known = set()
    for options in (TrainOptions(), TestOptions()):
        for model, mode in (("divsem", "streets"), ("semia", "single_image")):
            options.model = MODELS.get(model)
            known |= {f"--{name}" for name in options.build_parser(mode).actions_by_name()}
    for theirs, ours in ELSEWHERE.items():
        assert theirs not in known
        for text in ours:
            assert re.split("[ ,]", text)[0] in known, text
    for flag, match in (("--niter", "--max_steps .*not epochs"), ("--gpu_ids", "--device, and"),
                        ("--which_epoch", "--continue_train, which")):  # fmt: skip
        with pytest.raises(UserError, match=f"{flag} is unknown. Here it is {match}"):
            TrainOptions().parse(["--name", "x", flag, "1"])


@pytest.mark.parametrize("script", ["train.py", "scripts/edit.py"])
def test_a_python_without_the_libraries_says_where_they_are(script: str) -> None:
    bare = [sys.executable, "-S", script, "--help"]
    done = subprocess.run(bare, cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_USER_ERROR
    assert done.stderr.startswith(f"error: {sys.executable} has no torch: `make setup`") and not done.stdout
    assert done.stderr.count("\n") == 1


def test_the_first_mistakes_are_told_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--name my_run: no run at .*my_run. `train.py --name` makes one"):
        TestOptions().parse(["--name", "my_run", "--checkpoints_dir", str(tmp_path)])
    with pytest.raises(UserError, match="--crop_size 100 is not a positive multiple of 64; take 128"):
        TrainOptions().parse(["--name", "x", "--crop_size", "100"])
