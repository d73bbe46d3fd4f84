"""Every script answers a wrong flag alike: one line with the near name, exit code 2, no abbreviations."""

from __future__ import annotations

import importlib
import sys

import pytest

from util.errors import EXIT_USER_ERROR, run_main

SCRIPTS = {
    "check_data": ("DIR --dataset_mod x", "--dataset_mode"),
    "baselines": ("PACK --fill mean --step 3", "--steps"),
    "benchmark": ("metrics --rea x", "--real"),
    "evaluate": ("--real x --fak y", "--fake"),
    "study": ("make RESULT --pic 3", "--pictures"),
    "leaderboard": ("add RESULT --metho x", "--method"),
    "ledger": ("add TABLE --comman x", "--command"),
    "make_table": ("FILE --forma x", "--format"),
    "run_experiment": ("FILE --dry_ru", "--dry_run"),
    "pack_benchmark": ("--output x --num_image 3", "--num_images"),
    "import_results": ("PACK RESULTS --name x --paste_know", "--paste_known"),
    "pack_dataset": ("--dataroot x --output y --per_shar 3", "--per_shard"),
    "train_segmenter": ("--name x --widt 3", "--width"),
    "prepare_analogy": ("--output x --heigh 3", "--height"),
    "prepare_ade20k": ("--subset room --source x --scene y", "--scenes"),
    "prepare_camvid": ("--source x --mask_see 1", "--mask_seed"),
    "prepare_cityscapes": ("--source x --hire", "--hires"),
    "prepare_folder": ("--images x --labels y --short_sid 3", "--short_side"),
    "prepare_objects": ("--output x --min_crop 3", "--min_crops"),
    "prepare_streets": ("--output x --heigh 3", "--height"),
}


def call(name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a script with a command line and return its exit code."""
    monkeypatch.setattr(sys, "argv", [name, *line.split()])
    with pytest.raises(SystemExit) as left:
        run_main(importlib.import_module(f"scripts.{name}").main)
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_cut_flag_is_answered_with_the_whole_one(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line, meant = SCRIPTS[name]
    assert call(name, line, monkeypatch) == EXIT_USER_ERROR
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"is unknown. Did you mean '{meant}'" in said


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_shows_defaults(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(name, "--help", monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "(default: " in shown
    assert "(default: None)" not in shown
