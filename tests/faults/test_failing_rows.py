"""Rows of an experiment that would fail, that fail, and that are stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from scripts import run_experiment
from util.errors import EXIT_ABORTED, EXIT_OK, UserError

ROOT = Path(__file__).resolve().parents[2]
TRAIN = {
    "dataset_mode": "streets", "streets_train_size": 4, "streets_test_size": 2, "crop_size": 64, "num_workers": 0,
    "batch_size": 2, "device": "cpu", "model": "spmpgan", "ngf": 4, "ndf": 4, "spm_hidden": 8, "lambda_vgg": 0,
    "max_steps": 2, "image_every": 0, "tensorboard": False,
}  # fmt: skip
NAN = {"lr_G": 1.0e30, "lr_D": 1.0e30}


def experiment(folder: Path, rows: dict[str, Any], **train: Any) -> Path:
    """Write an experiment file of tiny rows."""
    content = {"train": {**TRAIN, **train}, "test": {"num_workers": 0, "device": "cpu", "metrics": "l1"}, "rows": rows}
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "tiny.yaml"


def arguments(path: Path, *more: str) -> list[str]:
    return [str(path), "--checkpoints_dir", str(path.parent / "runs"), *more]


@pytest.mark.fault(
    "24", "an experiment with a mistake in each row", sees="all of them, with their rows, before the first step"
)
def test_mistakes_are_told_at_once(ledger: Any, tmp_path: Path) -> None:
    rows = {
        "good": {},
        "typo": {"train": {"lr_Q": 1}},
        "no_objects": {"train": flat_data(tmp_path), "tasks": ["free_form", "object_addition"]},
        "no_weights": {"train": {"lambda_vgg": 1, "vgg_weights": "nowhere.pth"}},
        "no_segmenter": {"test": {"metrics": "miou", "segmenter": "espnet_camvid"}},
        "no_run": {"train": {"model": "siedob_fusion", "spm_hidden": None, "background_run": "nowhere"}},
        "also_without_segmenter": {"test": {"metrics": "miou", "segmenter": "espnet_camvid"}},
    }
    for attempt in ledger.attempts(2, quick=1):
        with attempt as number:
            path = experiment(tmp_path / str(number), rows)
            with pytest.raises(UserError) as caught:
                run_experiment.main(arguments(path))
            told = str(caught.value).splitlines()
            assert len(told) == 6, told
            for line, (where, what) in zip(told[1:], {
                "row typo, train.py": "--lr_Q is unknown",
                "row no_objects, test.py --task object_addition": "none of the 2 pictures of 'test' has a thing",
                "row no_weights, train.py": "nowhere.pth",
                "row no_segmenter, test.py --task free_form, row also_without": "espnet_camvid needs a file",
                "row no_run, train.py": "nowhere",
            }.items(), strict=True):  # fmt: skip
                assert line.startswith(where)
                assert what in line
            assert not (path.parent / "runs").exists()


@pytest.mark.fault(
    "24",
    "a row of an experiment that fails in training",
    sees="the table of the others, which row and why, exit code 2",
)
@pytest.mark.parametrize("jobs", [1, 2])
def test_other_rows_go_on(ledger: Any, tmp_path: Path, jobs: int, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"bad": {"train": NAN}, "bad_again": {"run": "bad", "train": NAN}, "good": {}}
    for attempt in ledger.attempts(2, quick=1):
        with attempt as number:
            path = experiment(tmp_path / str(number), rows)
            with pytest.raises(
                UserError, match=r"(?s)2 of 3 rows failed.*row bad: .*not finite.*bad_again: it needs bad"
            ):
                run_experiment.main(arguments(path, "--jobs", str(jobs)))
            table = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("good "))
            assert len(table.split()) == 2


@pytest.mark.fault(
    "24", "run_experiment.py --jobs 2 stopped by SIGTERM or Ctrl-C", sees="no process is left; the same command goes on"
)
def test_stopped(ledger: Any, tmp_path: Path) -> None:
    for attempt in ledger.attempts(3, quick=1):
        with attempt as number:
            path = experiment(
                tmp_path / str(number), {"a": {"tasks": []}, "b": {"tasks": []}}, max_steps=8, log_every=1
            )
            command = [sys.executable, str(ROOT / "scripts" / "run_experiment.py"), *arguments(path, "--jobs", "2")]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            while not list((path.parent / "runs").glob("*/stats.jsonl")):
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            process.send_signal((signal.SIGTERM, signal.SIGINT)[number % 2])
            out = process.communicate(timeout=120)[0]
            assert process.returncode == EXIT_ABORTED, out
            assert "Traceback" not in out
            assert not with_argument(str(path)), "no row is left running"
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            assert done.returncode == EXIT_OK, done.stderr
            assert not any("Traceback" in log.read_text() for log in (path.parent / "runs").glob("*.log"))


def flat_data(folder: Path) -> dict[str, Any]:
    """Make a data set without objects, as landscapes are."""
    for split in ("train", "test"):
        for kind, mode in (("images", "RGB"), ("labels", "L")):
            (folder / "flat" / split / kind).mkdir(parents=True)
            for number in range(2):
                Image.new(mode, (64, 64)).save(folder / "flat" / split / kind / f"{number}.png")
    classes = {"num_classes": 1, "classes": [{"id": 0, "name": "sky", "color": [0, 0, 255]}]}
    (folder / "flat" / "classes.json").write_text(json.dumps(classes))
    unset = {"streets_train_size": None, "streets_test_size": None}
    return {"dataset_mode": "custom", "dataroot": str(folder / "flat"), **unset}


def with_argument(text: str) -> list[str]:
    """Return the processes whose command line holds an argument."""
    lines = [path for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.name != str(os.getpid())]
    found = []
    for path in lines:
        try:
            found += [path.parent.name] if text.encode() in path.read_bytes().split(b"\0") else []
        except OSError:  # ended meanwhile
            continue
    return found
