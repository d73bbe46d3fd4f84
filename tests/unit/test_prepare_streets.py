"""Scenes written as files are the scenes that the data set draws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from data import DATASETS
from options.train_options import TrainOptions
from scripts.prepare_streets import main as prepare
from util.errors import UserError


def test_files_hold_the_drawn_scenes(tmp_path: Path) -> None:
    args = ["--output", str(tmp_path / "streets"), "--train", "2", "--test", "3"]
    assert prepare(args) == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "streets").rglob("*.png")}
    assert len(before) == 15
    (tmp_path / "streets/test/labels/test_00001.png").unlink()
    assert prepare(args) == 0
    kept = [p for p, time in before.items() if p.stat().st_mtime_ns == time]
    assert len(kept) == 12
    common = ["--name", "x", "--crop_size", "64"]
    drawn = TrainOptions().parse([*common, "--dataset_mode", "streets", "--streets_test_size", "3"])
    stored = TrainOptions().parse([*common, "--dataset_mode", "custom", "--dataroot", str(tmp_path / "streets")])
    ours, files = (
        DATASETS.get(opt.dataset_mode).from_options(opt, split="test", augment=False, task="class")
        for opt in (drawn, stored)
    )
    for index in range(3):
        a, b = ours[index], files[index]
        assert all(torch.equal(a[key], b[key]) for key in ("image", "label", "inst", "inst_id", "mask"))
    with pytest.raises(UserError, match="height"):
        prepare([*args, "--height", "128"])


def test_scenes_of_a_larger_set_are_not_kept_in_silence(tmp_path: Path) -> None:
    args = ["--output", str(tmp_path / "streets"), "--height", "32", "--test", "1", "--train"]
    assert prepare([*args, "3"]) == 0
    with pytest.raises(UserError, match=r"--train 2: .*train holds 3 files of other scenes.*train_00002\.png"):
        prepare([*args, "2"])
    assert prepare([*args, "4"]) == 0
    assert len(list((tmp_path / "streets/train/images").iterdir())) == 4
    assert json.loads((tmp_path / "streets/prepared.json").read_text())["script"] == "prepare_streets.py"
