"""scripts/evaluate.py --as_run: anybody's pictures are measured as a run's own test was, and join its table."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import test as test_command
import train as train_command
from metrics.reporting.table import CSV_HEAD
from scripts import evaluate, make_table
from util.errors import DataError, UserError

DATA = "--dataset_mode streets --streets_train_size 2 --streets_test_size 4 --crop_size 64 --device cpu --num_workers 0"
TINY = "--model spmpgan --ngf 4 --ndf 4 --spm_hidden 8 --lambda_vgg 0 --max_steps 0 --image_every 0 --no-tensorboard"
METRICS = "miou,acc,l1,psnr,ssim,l1_whole,seam"
TABLE = """
title: Ours and theirs
tasks: [class, object_removal]
rows:
  mine: {label: Mine, train: {model: spmpgan, max_steps: 0}}
"""
TEST = ("--name", "mine", "--segmenter", "streets", "--metrics", METRICS, "--batch_size", "3")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with tests of two tasks."""
    path = tmp_path_factory.mktemp("as_run")
    usual = ["--checkpoints_dir", str(path / "checkpoints")]
    assert train_command.main([*DATA.split(), *TINY.split(), *usual, "--name", "mine"]) == 0
    for task in ("class", "object_removal"):
        flags = [*usual, *TEST, "--task", task, "--device", "cpu", "--num_workers", "0"]
        assert test_command.main(flags) == 0
    return path


@pytest.fixture
def here(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, and somebody's pictures for the task "class": the run's own, by another name."""
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    shutil.copytree("checkpoints/mine/results/test_class/fake", "theirs")
    return tmp_path


def score(*flags: str, fake: str = "theirs") -> dict[str, Any]:
    usual = ["--as_run", "mine", "--fake", fake, "--name", "theirs", "--device", "cpu", "--num_workers", "0"]
    assert evaluate.main([*usual, "--json", "out.json", *flags]) == 0
    return json.loads(Path("out.json").read_text())


def own_line(task: str) -> dict[str, Any]:
    return json.loads(Path(f"checkpoints/mine/results/test_{task}/result.json").read_text())


def table(*flags: str) -> int:
    Path("two.yaml").write_text(TABLE)
    return make_table.main(["two.yaml", *flags])


def test_equal_pictures_have_equal_values_and_stand_in_one_table(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, line = own_line("class"), score("--task", "class")
    printed = capsys.readouterr().out
    assert line["metrics"] == pytest.approx(own["metrics"], rel=1e-9)
    assert line["protocol"]["mask_set"] == own["protocol"]["mask_set"]
    assert line["protocol"]["as_run"] == "mine"
    assert [text.split()[0] for text in printed.splitlines() if text.startswith(("mine", "theirs"))] == [
        "mine",
        "theirs",
    ]
    assert "stands in no table" not in printed
    assert table("--outside", "out.json") == 0
    rows = [text.strip("| ").split(" | ") for text in capsys.readouterr().out.splitlines() if text.startswith("| ")]
    mine, theirs = rows[2], rows[3]  # below the head of the first table
    assert mine[0] == "Mine" and mine[-1] == "0"
    assert theirs == ["theirs", *mine[1:-1]]  # and no step


def test_removed_objects_have_no_truth(here: Path) -> None:
    own = own_line("object_removal")
    line = score("--task", "object_removal", fake="checkpoints/mine/results/test_object_removal/fake")
    assert line["metrics"] == pytest.approx(own["metrics"], rel=1e-9)
    asked = score(
        "--task", "object_removal", "--metrics", "l1,seam", fake="checkpoints/mine/results/test_object_removal/fake"
    )
    assert set(asked["metrics"]) == {"seam"}


OBJECTS = """
title: Ours and theirs
tasks: [object_addition]
test: {metrics: "l1,seam"}
groups: {all: {}, houses: {test: {object_classes: building}}}
rows:
  mine: {label: any thing, group: all, train: {model: spmpgan, max_steps: 0}}
  mine_houses: {label: houses, group: houses, run: mine, train: {model: spmpgan, max_steps: 0}}
"""


def test_object_classes_tell_tests_of_a_run_apart(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usual = ["--name", "mine", "--task", "object_addition", "--metrics", "l1,seam", *DATA.split()[-4:]]
    for more in (["--object_classes", "building"], []):
        assert test_command.main([*usual, *more]) == 0
    houses = "checkpoints/mine/results/test_object_addition_building"
    line = score("--as_run", houses, fake=f"{houses}/fake")
    assert line["protocol"]["object_classes"] == "building"
    assert "stands in no table" not in capsys.readouterr().out
    assert "object_classes" not in score("--task", "class")["protocol"]
    with pytest.raises(UserError, match=rf"it has several tests; .*results/test_object_addition, {houses}"):
        score("--task", "object_addition")
    score("--as_run", houses, fake=f"{houses}/fake")
    Path("objects.yaml").write_text(OBJECTS)
    assert make_table.main(["objects.yaml", "--outside", "out.json", "--format", "csv"]) == 0
    cells = list(csv.DictReader(capsys.readouterr().out.splitlines()[-6:], fieldnames=CSV_HEAD))
    rows = {(cell["group"], cell["label"]): cell["ours"] for cell in cells if cell["metric"] == "l1_masked"}
    assert list(rows) == [("all", "any thing"), ("houses", "houses"), ("houses", "theirs")]
    assert float(rows["houses", "theirs"]) == pytest.approx(float(rows["houses", "houses"]), rel=1e-9)
    assert rows["all", "any thing"] != rows["houses", "houses"]
    assert {cell["protocol"].count("objects: building") for cell in cells if cell["group"] == "houses"} == {1}


def test_other_metrics_are_said_to_stand_apart(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("checkpoints/mine/results/test_class")
    line = json.loads((folder / "result.json").read_text())
    line["details"]["l1_masked"]["protocol"] = "of another version"
    (folder / "result.json").write_text(json.dumps(line))
    score("--task", "class")
    assert "note: stands in no table with mine, as these differ: l1_masked: protocol: of" in capsys.readouterr().out


def test_what_would_not_compare_is_refused(here: Path) -> None:
    folder = Path("checkpoints/mine/results/test_class")
    for flags, told in (
        (["--task", "class", "--masks", "masks"], "--masks and --as_run mine exclude each other"),
        (["--task", "class", "--skip_bad"], "--skip_bad and --as_run mine exclude each other"),
        ([], "it has several tests; name one of their folders"),
        (["--task", "extension"], "no results of a test with masks under --task extension"),
        (["--as_run", "nobody"], "--as_run nobody: no results of a test"),
    ):
        with pytest.raises(UserError, match=told):
            score(*flags)
    file = sorted((folder / "mask").iterdir())[0]
    mask = np.array(Image.open(file))
    mask[0, 0] = 255 - mask[0, 0]
    Image.fromarray(mask).save(file)
    with pytest.raises(DataError, match=r"the masks \([0-9a-f]{12}\) are not those that result.json tells of"):
        score("--as_run", str(folder))
    sorted(Path("theirs").iterdir())[0].unlink()
    with pytest.raises(DataError, match="no file of this name in theirs"):
        score("--as_run", str(folder))
    Path("lost.json").write_text(json.dumps(own_line("class")))
    with pytest.raises(UserError, match=r"--outside lost\.json: no table has the run and task"):
        table("--outside", "lost.json")
