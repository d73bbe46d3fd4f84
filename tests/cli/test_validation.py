"""Validation while training: what is logged, what is kept, and what a resumed run makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import test as test_command
import train
from data import DATASETS
from metrics.features import set_metrics
from metrics.features.inception import InceptionFile
from models import MODELS
from options.train_options import TrainOptions
from testing.validation import Validation
from trainers.best import Score
from trainers.checkpoint import load_checkpoint
from util.errors import UserError

FLAGS = [
    *"--model spmpgan --dataset_mode streets --streets_train_size 8 --streets_test_size 4 --crop_size 64".split(),
    *"--ngf 4 --ndf 4 --spm_hidden 8 --lambda_vgg 0 --batch_size 2 --num_workers 0 --device cpu".split(),
    *"--no-tensorboard --image_every 0 --ema 0.5 --log_every 1 --eval_every 2".split(),
    *("--eval_args", "--split val --metrics l1,psnr --num_images 3"),
]


def train_run(folder: Path, steps: int, *more: str) -> Path:
    assert train.main([*FLAGS, "--checkpoints_dir", str(folder), "--name", "run", f"--max_steps={steps}", *more]) == 0
    return folder / "run"


def validations(run: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    return {line["step"]: line["eval"] for line in lines if "eval" in line}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_run(tmp_path_factory.mktemp("unbroken"), 6)


def newest(run: Path) -> dict[str, Any]:
    return load_checkpoint(run / "latest.pt")


def test_validations_change_nothing_of_the_training(unbroken: Path, tmp_path: Path) -> None:
    plain = newest(train_run(tmp_path, 6, "--eval_every", "0"))
    for net, weights in newest(unbroken)["model"].items():
        assert all(torch.equal(value, plain["model"][net][name]) for name, value in weights.items())


def test_best_is_the_step_of_the_least_first_metric(unbroken: Path) -> None:
    values = validations(unbroken)
    assert sorted(values) == [2, 4, 6]
    assert all(value.keys() == {"l1_masked", "psnr_masked"} for value in values.values())
    step = min(values, key=lambda number: values[number]["l1_masked"])
    state = load_checkpoint(unbroken / "best.pt")
    assert state["step"] == state["best"]["step"] == step
    assert state["best"]["value"] == values[step]["l1_masked"]


def test_test_py_repeats_what_the_validation_measured(unbroken: Path) -> None:
    base = ["--name", "run", "--checkpoints_dir", str(unbroken.parent), "--device", "cpu", "--num_workers", "0"]
    how = ["--batch_size", "2", "--split", "val", "--metrics", "l1,psnr", "--num_images", "3"]
    assert test_command.main([*base, *how, "--step", "best"]) == 0
    line = json.loads((unbroken / "results" / "val_free_form_best" / "result.json").read_text())
    best = load_checkpoint(unbroken / "best.pt")["best"]
    assert line["step"] == best["step"]
    assert line["metrics"]["l1_masked"] == best["value"]
    assert line["protocol"]["chosen"] == "l1_masked of 3 pictures of val, free_form"


def test_a_resumed_run_keeps_the_same_best(unbroken: Path, tmp_path: Path) -> None:
    train_run(tmp_path, 3)
    run = train_run(tmp_path, 6, "--continue_train")
    assert validations(run) == validations(unbroken)
    assert newest(run)["best"] == newest(unbroken)["best"]
    ours, theirs = load_checkpoint(run / "best.pt"), load_checkpoint(unbroken / "best.pt")
    assert ours["best"] == theirs["best"]
    assert torch.equal(next(iter(ours["ema"]["netG"].values())), next(iter(theirs["ema"]["netG"].values())))


class Means:
    """Stands for Inception: 2048 numbers of which three vary."""

    def to(self, device: torch.device) -> Means:
        return self

    def features(self, x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x.float().mean((2, 3)), (0, 2045))


def test_only_features_of_real_pictures_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of generated ones would be other files at each validation, which nothing reads."""
    source = InceptionFile(path=Path("weights.pth"), sha256="0" * 64, torchscript=False)
    monkeypatch.setattr(set_metrics, "find_inception", lambda explicit: source)
    monkeypatch.setattr(set_metrics, "load_inception", lambda explicit: (Means(), source))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    how = "--split val --metrics fid --num_images 3"
    assert sorted(validations(train_run(tmp_path, 2, "--eval_every", "1", "--eval_args", how))) == [1, 2]
    assert len(list(tmp_path.rglob("*.f32"))) == 3


@pytest.mark.parametrize(
    ("asked", "first", "how"),
    [
        ("--metrics acc,miou --segmenter streets", "acc_streets", "val, free_form"),
        ("--metrics psnr,seam --task object_removal", "seam", "val, object_removal; psnr has no value"),
    ],
)
def test_the_metric_that_is_named_first_chooses(asked: str, first: str, how: str, tmp_path: Path) -> None:
    """Whatever the order of the values; without a truth to compare with, there is none of PSNR."""
    where = ["--checkpoints_dir", str(tmp_path), "--name", "run"]
    opt = TrainOptions().parse([*FLAGS, *where, "--eval_args", f"--split val --num_images 3 {asked}"])
    data = DATASETS.get(opt.dataset_mode).from_options(opt, split="train", augment=False, task="train")
    model = MODELS.get(opt.model).from_options(opt, is_train=True).eval()
    score = Validation(opt, model, data)("step 0")
    assert (score.first, score.how) == (first, f"{first} of 3 pictures of {how}")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--eval_args", "--split val --metrics fidd"], "--eval_args .*'fidd' is unknown.*fid"),
        (["--eval_args", "--split dev"], "--eval_args .*--split 'dev'"),
        (["--eval_args", "--metrics none"], "--eval_args .*nothing is measured"),
        (["--eval_every", "-1"], "--eval_every -1 is less than 0"),
    ],
)
def test_mistakes_are_told_before_the_first_step(flags: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        train_run(tmp_path, 2, *flags)
    assert not list(tmp_path.glob("run/*.pt"))


def test_a_score_beats_one_of_the_same_measure_by_the_first_metrics_direction() -> None:
    fid, psnr = ({"fid": 10.0}, True), ({"psnr": 10.0}, False)
    for (values, lower), better, worse in ((fid, 9.0, 11.0), (psnr, 11.0, 9.0)):
        (name,) = values
        held = Score(values, first=name, lower_is_better=lower, how="a").as_best(1)
        assert Score({name: better}, first=name, lower_is_better=lower, how="a").beats(held)
        assert not Score({name: worse}, first=name, lower_is_better=lower, how="a").beats(held)
        assert not Score(values, first=name, lower_is_better=lower, how="a").beats(held)
        assert Score({name: worse}, first=name, lower_is_better=lower, how="of other pictures").beats(held)


def test_a_run_without_validations_has_no_best(tmp_path: Path) -> None:
    run = train_run(tmp_path, 1, "--eval_every", "0")
    with pytest.raises(UserError, match=r"--step best: there is no .*best\.pt.*--eval_every"):
        test_command.main(["--name", "run", "--checkpoints_dir", str(run.parent), "--step", "best"])
