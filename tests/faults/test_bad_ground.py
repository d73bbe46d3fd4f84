"""Every command that writes, where nothing can be written: a sentence, and what was there before stays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from grounds import COMMANDS, QUICK, ROOT, WRONG, World, ground, make_world

import test as test_command
from scripts import evaluate
from util.errors import EXIT_OK, EXIT_USER_ERROR, UserError, run_main

SEES = "one sentence: file or flag, what is wrong, what to do; before work begins where that can be known"
REWRITTEN = {"opt.yaml", ".lock", "stats.jsonl"}  # by --continue_train, whole
FITS = {
    (command, "24")
    for command in ("test a run elsewhere", "edit a run", "edit SemIA", "build_style_bank", "evaluate --json")
}  # what they write is smaller


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def kept(place: Path) -> dict[Path, bytes]:
    files = (path for path in place.rglob("*") if path.is_file() and path.name not in {*REWRITTEN, "filler"})
    return {path: path.read_bytes() for path in files}


def run_on(kind: str, command: str, world: World, place: Path, capfd: Any) -> None:
    """Run a command on a ground and check that it ends in a sentence and that no file that was there has changed."""
    main, line = COMMANDS[command]
    with ground(place, kind, world):
        before = kept(place)
        with pytest.raises(SystemExit) as left:
            run_main(lambda: main(line(world, place)))
        told, after = capfd.readouterr().err, kept(place)
    fits = (command, kind) in FITS
    assert left.value.code == (EXIT_OK if fits else EXIT_USER_ERROR), (command, told)
    assert "Traceback" not in told, (command, told)
    if not fits:
        sentence = told.splitlines()[-1]
        assert sentence.startswith("error: "), (command, told)
        assert str(place) in sentence, (command, told)
    assert after.keys() >= before.keys(), command
    assert fits or after.items() >= before.items(), command
    assert not [path for path in after if path.name.endswith((".tmp", ".partial"))], command


@pytest.mark.fault("6", "a command writes to a read-only file system", sees=SEES)
def test_read_only(ledger: Any, world: World, tmp_path: Path, capfd: Any) -> None:
    for command, attempt in zip(COMMANDS, ledger.attempts(len(COMMANDS), quick=len(COMMANDS)), strict=True):
        with attempt:
            run_on("read-only", command, world, tmp_path / "ground", capfd)


@pytest.mark.fault("6", "a command writes to a disk that is full, or gets full on the way", sees=SEES)
def test_full_disk(ledger: Any, world: World, tmp_path: Path, capfd: Any) -> None:
    cases = list(product(("0", "24"), COMMANDS))  # KiB that are free; the first half in every run of the tests
    for (kind, command), attempt in zip(cases, ledger.attempts(len(cases), quick=len(COMMANDS)), strict=False):
        with attempt:
            run_on(kind, command, world, tmp_path / "ground", capfd)


@pytest.mark.fault("6", "standard output is a full disk", sees="one sentence that says so")
def test_full_output(ledger: Any) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    line = [sys.executable, str(ROOT / "scripts/make_table.py"), str(ROOT / "experiments/demo.yaml")]
    for attempt in ledger.attempts(5, quick=1):
        with attempt, open("/dev/full", "w") as full:
            done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True)
            assert (done.returncode, done.stderr.startswith("error: standard output: the disk is full")) == (2, True)


@pytest.mark.fault("defect", "a flag's value is of no use, or its file is another thing", sees="one sentence")
def test_wrong_values(ledger: Any, world: World, tmp_path: Path, capfd: Any) -> None:
    places = {"empty": tmp_path / "empty", "bytes": tmp_path / "bytes", "folder": tmp_path / "folder"}
    places["empty"].touch()
    places["bytes"].write_bytes(bytes(range(256)))
    places["folder"].mkdir()
    for number, attempt in enumerate(ledger.attempts(len(WRONG), quick=len(WRONG))):
        command, given = WRONG[number]
        main, line = COMMANDS[command]
        out = world.root / "runs" if command == "build_style_bank" else tmp_path / "out"
        args = [*line(world, out), *(text.format(**places) for text in given)]
        with attempt:
            with pytest.raises(SystemExit) as left:
                run_main(lambda main=main, args=args: main(args))
            told = capfd.readouterr().err
            assert left.value.code == EXIT_USER_ERROR, (command, given, told)
            assert told.count("error: ") >= 1, (command, given, told)
            assert "Traceback" not in told, (command, given, told)


@pytest.mark.fault("17", "FID of a folder that is empty, or of one picture", sees="what is missing, for each metric")
def test_sets_too_small_for_a_distance(ledger: Any, world: World, tmp_path: Path) -> None:
    pictures = sorted((world.root / "scenes/train/images").iterdir())
    for number, attempt in enumerate(ledger.attempts(2)):
        folder = tmp_path / str(number)
        folder.mkdir()
        for picture in pictures[:number]:
            shutil.copy(picture, folder)
        told = ("no pictures", "fid: left out, it needs at least two pictures in each set")[number]
        line = ["--real", str(folder), "--fake", str(folder), "--metrics", "fid", *QUICK]
        with attempt, pytest.raises(UserError, match=told):
            evaluate.main(line)


def test_results_of_a_test_are_scored_again_labels_included(world: World, tmp_path: Path) -> None:
    results = tmp_path / "results"
    line = [*world.run(), *QUICK, "--metrics", "miou,l1", "--segmenter", "streets", "--results_dir", str(results)]
    assert test_command.main(line) == 0
    folders = [a for k, v in (("real", "real"), ("fake", "fake"), ("labels", "label"), ("masks", "mask"))
               for a in (f"--{k}", str(results / v))]  # fmt: skip
    out = tmp_path / "again.json"
    more = ["--metrics", "miou,l1", "--segmenter", "streets", "--json", str(out), *QUICK]
    assert evaluate.main([*folders, *more]) == 0
    told, again = (json.loads(path.read_text())["metrics"] for path in (results / "result.json", out))
    assert again == told


@pytest.mark.parametrize("metrics", ["l1,psnr", "l1,lpips,ssim_whole"])
def test_metrics_without_a_truth_are_refused_before_anything_is_generated(
    metrics: str, world: World, tmp_path: Path
) -> None:
    line = [*world.run(), *QUICK, "--task", "object_removal", "--results_dir", str(tmp_path / "results")]
    with pytest.raises(UserError, match=r"has no truth to compare with.*ask for some of fid,"):
        test_command.main([*line, "--metrics", metrics])
    assert not (tmp_path / "results").exists()


def test_metrics_none_of_which_can_be_had_are_refused(world: World, tmp_path: Path) -> None:
    line = [*world.run(), *QUICK, "--metrics", "miou,acc", "--results_dir", str(tmp_path / "results")]
    with pytest.raises(UserError, match=r"none of these can be had; .*--segmenter"):
        test_command.main(line)
