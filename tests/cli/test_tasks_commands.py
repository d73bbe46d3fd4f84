"""Object tasks as a user calls them: train.py, test.py --task, run_experiment.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import test as test_command
import train as train_command
from models import MODELS
from scripts import run_experiment
from util.errors import UserError
from util.images import read_image

QUICK = ["--num_workers", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks")
    args = [*MODELS.get("divsem").tiny(path), "--streets_test_size", "6", "--max_steps", "0", "--no-tensorboard"]
    assert train_command.main([*args, *QUICK, "--checkpoints_dir", str(path), "--name", "run"]) == 0
    return path


def pictures(folder: Path, kind: str) -> dict[str, np.ndarray]:
    return {path.name: read_image(path) for path in sorted((folder / kind).glob("*.png"))}


@pytest.mark.parametrize("task", ["object_addition", "object_removal"])
def test_task(root: Path, task: str, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--checkpoints_dir", str(root), "--name", "run", "--task", task]
    metrics = ["--metrics", "miou,l1,psnr,ssim,seam", "--segmenter", "streets"]
    assert test_command.main([*where, *QUICK, *metrics, "--num_samples", "2", "--num_images", "4"]) == 0
    shown = capsys.readouterr().out
    folder = root / "run" / "results" / f"test_{task}"
    line = json.loads((folder / "result.json").read_text())
    assert line["task"] == task
    assert line["num_images"] == 4
    assert line["protocol"]["left_out"] == 0
    fake, real, mask = (pictures(folder, kind) for kind in ("fake", "real", "mask"))
    assert len(fake) == len(pictures(folder, "fake_2")) == 4
    for name in fake:
        assert np.array_equal(fake[name][mask[name] == 0], real[name][mask[name] == 0])
        assert 0.01 < (mask[name] > 0).mean() < 0.6
    if task == "object_addition":
        assert set(line["metrics"]) == {"miou_streets", "l1_masked", "psnr_masked", "ssim_masked", "seam"}
        assert "real" in line["details"]["miou_streets"]
    else:
        assert set(line["metrics"]) == {"miou_streets", "seam"}
        assert "real" not in line["details"]["miou_streets"]
        assert "l1_masked" in shown and "do not show what the labels ask for" in shown


def test_a_removal_as_released_is_told_and_needs_a_removal(root: Path) -> None:
    where = ["--checkpoints_dir", str(root), "--name", "run", "--removal", "released", "--metrics", "none"]
    with pytest.raises(UserError, match="--removal released: --task object_addition removes nothing"):
        test_command.main([*where, *QUICK, "--task", "object_addition"])
    assert test_command.main([*where, *QUICK, "--task", "object_removal", "--num_images", "1"]) == 0
    line = json.loads((root / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["protocol"]["removal"] == "released"


def test_both_tasks_erase_the_same_pixels_and_say_what_they_left_out(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("data.tasks.SMALLEST", 0.1)  # not every street has so large a thing
    hashes = {}
    for task in ("object_addition", "object_removal"):
        where = ["--checkpoints_dir", str(root), "--name", "run", "--task", task, "--metrics", "none"]
        assert test_command.main([*where, *QUICK]) == 0
        line = json.loads((root / "run" / "metrics.jsonl").read_text().splitlines()[-1])
        hashes[task] = line["protocol"]["mask_set"]
        assert line["num_images"] + line["protocol"]["left_out"] == 6
        assert 0 < line["protocol"]["left_out"] < 6
        note = f"{line['protocol']['left_out']} of 6 pictures"
        assert f"note: {note}" in capsys.readouterr().out
        assert line["protocol"]["notes"][0].startswith(note)
    assert len(set(hashes.values())) == 1


def test_experiments_take_the_tasks(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = MODELS.get("spmpgan").tiny(root)
    flags = {tiny[i].removeprefix("--"): tiny[i + 1] for i in range(0, len(tiny), 2)}
    quick = {"num_workers": 0, "device": "cpu"}
    spec = {
        "title": "objects",
        "train": {**flags, **quick, "max_steps": 0, "tensorboard": False, "image_every": 0},
        "test": {**quick, "metrics": "none"},
        "tasks": ["object_removal"],
        "rows": {"row": {}},
    }
    path = root / "objects.yaml"
    path.write_text(yaml.safe_dump(spec))
    for _ in range(2):
        assert run_experiment.main([str(path), "--checkpoints_dir", str(root)]) == 0
    assert "row, object_removal: already tested" in capsys.readouterr().out
    assert (root / "objects_object_removal.png").is_file()
