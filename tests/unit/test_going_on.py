"""Starting, going on and starting anew: what is refused, what is said, what changes with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from data_folders import make_folder
from trainer_toys import ToyModel, assert_same, fit

import train as train_command
from options.train_options import TrainOptions
from testing.rows import plan_training
from trainers.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from trainers.distributed import Distributed
from trainers.failures import NonFiniteError
from trainers.run_dir import BUSY, open_run
from util.errors import UserError
from util.locks import locked

TINY = ["--model", "spmpgan", "--dataset_mode", "streets", "--streets_train_size", "4", "--streets_test_size", "2",
        "--crop_size", "64", "--ngf", "4", "--ndf", "4", "--spm_hidden", "8", "--lambda_vgg", "0", "--batch_size", "1",
        "--num_workers", "0", "--image_every", "0", "--no-tensorboard", "--device", "cpu"]  # fmt: skip


def test_a_run_whose_first_step_is_not_finite_goes_on_at_another_rate(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"step 1.*go on from it with --continue_train"):
        fit(tmp_path, model=ToyModel(poison_step=1), max_steps=2)
    assert load_checkpoint(tmp_path / "latest.pt")["step"] == 0
    model = ToyModel()
    for optimizer in (model.opt_G, model.opt_D):
        optimizer.param_groups[0]["lr"] = 1e-7
    slow = fit(tmp_path, model=model, max_steps=1, resume=True)
    assert [group["lr"] for group in slow.model.opt_G.param_groups] == [1e-7]  # type: ignore[attr-defined]
    start = ToyModel().netG.dec.weight
    assert 0 < (slow.model.netG.dec.weight - start).abs().max() < 1e-6  # type: ignore[attr-defined]


def test_a_run_that_holds_its_initial_state_alone_is_begun_anew(tmp_path: Path) -> None:
    fit(tmp_path, max_steps=0)
    fit(tmp_path, max_steps=1)
    with pytest.raises(UserError, match="already holds checkpoints"):
        fit(tmp_path, max_steps=1)


def test_fewer_steps_than_there_are_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, max_steps=2)
    with pytest.raises(UserError, match=r"--max_steps 1: .*step_2\.pt is at step 2 already"):
        fit(tmp_path, max_steps=1, resume=True)
    fit(tmp_path, max_steps=2, resume=True)
    assert "step 2; nothing is left to train" in capsys.readouterr().out


def test_a_run_from_before_a_data_sets_flag_goes_on_without_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--dataset_mode", "ade20k_room", "--dataroot", str(make_folder(tmp_path / "set", table=None))]
    line = [*drop(TINY, "--dataset_mode", "--streets_train_size", "--streets_test_size"), *where]
    runs = ["--name", "old", "--checkpoints_dir", str(tmp_path)]
    assert train_command.main([*line, *runs, "--max_steps", "0"]) == 0
    options = tmp_path / "old" / "opt.yaml"
    options.write_text("".join(part for part in options.read_text().splitlines(True) if "stuff_instances" not in part))
    path = (tmp_path / "old" / "latest.pt").resolve()
    state = load_checkpoint(path)
    assert state["options"].pop("stuff_instances") == "label"
    save_checkpoint(state, path)
    capsys.readouterr()
    assert train_command.main([*runs, "--continue_train"]) == 0
    assert "warning" not in capsys.readouterr().out
    train_command.main([*runs, "--continue_train", "--stuff_instances", "released"])
    assert "warning: stuff_instances: label -> released" in capsys.readouterr().out


def drop(line: list[str], *flags: str) -> list[str]:
    """Return a command line without some flags that take one value each."""
    places = {line.index(flag) + step for flag in flags for step in (0, 1)}
    return [arg for place, arg in enumerate(line) if place not in places]


def test_another_network_is_one_line(tmp_path: Path) -> None:
    fit(tmp_path, max_steps=0)
    model = ToyModel()
    model.netG.enc.conv, model.netG.dec = torch.nn.Conv2d(4, 9, 1).double(), torch.nn.Conv2d(6, 3, 1).double()
    with pytest.raises(CheckpointError, match=r"size mismatch for .*leave the model's flags out") as caught:
        fit(tmp_path, model=model, max_steps=2, resume=True)
    assert "\n" not in str(caught.value) and str(caught.value).count("size mismatch") == 1


def test_a_start_that_fails_leaves_no_empty_folder(tmp_path: Path) -> None:
    world = Distributed()
    with pytest.raises(UserError), open_run(tmp_path / "new", resume=False, world=world):
        raise UserError("no such data")
    assert not (tmp_path / "new").exists()
    (tmp_path / "own").mkdir()  # the user's: stays
    with pytest.raises(UserError), open_run(tmp_path / "own", resume=False, world=world):
        raise UserError("no such data")
    assert (tmp_path / "own").exists()
    with locked(tmp_path / "used", busy=BUSY):
        (tmp_path / "used" / "opt.yaml").touch()
    assert sorted(os.listdir(tmp_path / "used")) == [".lock", "opt.yaml"]


def test_latest_is_mended_when_a_run_goes_on(tmp_path: Path) -> None:
    """Killed between two files: the step file was written, the link was not."""
    fit(tmp_path, max_steps=2, save_every=1)
    (tmp_path / "latest.pt").unlink()
    os.link(tmp_path / "step_1.pt", tmp_path / "latest.pt")
    fit(tmp_path, max_steps=2, resume=True)
    assert (tmp_path / "latest.pt").samefile(tmp_path / "step_2.pt")


def test_a_run_killed_before_its_first_link_goes_on(tmp_path: Path) -> None:
    """run_experiment.py once took a folder without latest.pt for a new run, which train.py then refused."""
    from options.experiment import Row

    row = Row(name="r", run="r", label="r", group="", train={}, test={}, tasks=[], published={}, provenance="",
              more_train=(*TINY, "--max_steps", "1"))  # fmt: skip
    step = plan_training(row, str(tmp_path))
    assert not step.finished and "--continue_train" not in step.args
    assert train_command.main([*row.train_args(), "--checkpoints_dir", str(tmp_path)]) == 0
    (tmp_path / "r" / "latest.pt").unlink()
    assert plan_training(row, str(tmp_path)).finished
    (tmp_path / "r" / "step_1.pt").unlink()
    step = plan_training(row, str(tmp_path))
    assert not step.finished and step.args[-1] == "--continue_train"
    assert train_command.main(step.args) == 0
    # What a resumed run saves is the same run's options, for a new run as well.
    saved = str(tmp_path / "r" / "opt.yaml")
    new = TrainOptions().parse(["--config", saved, "--name", "s"])
    assert not new.continue_train and new.ngf == 4
    assert train_command.main(["--config", saved, "--name", "s"]) == 0
    assert_same(*(load_checkpoint(tmp_path / name / "latest.pt")["model"] for name in "rs"))
