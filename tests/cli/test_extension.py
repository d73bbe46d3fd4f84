"""A method, a data set and a metric of three files (tests/extension) work once they lie in the tree, and are tested."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from util.images import save_png

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("data", "metrics", "models", "options", "scripts", "testing", "tests", "trainers", "util")
RUN = "--name run --dataset_mode facades --dataroot facades --num_workers 0 --device cpu"
SMALL = "--crop_size 64 --ngf 2 --ndf 2 --spm_hidden 4 --style_dim 4 --nef 1 --lambda_vgg 0 --batch_size 2"
TRAIN = f"--model divsem_dilated --style_layers 2 {RUN} {SMALL} --max_steps 2 --log_every 1 --no-tensorboard"
TEST = "--name run --num_workers 0 --device cpu --metrics l1,histogram --histogram_bins 8"
GENERIC = {
    "tests/cli/test_commands.py": "test_every_model_trains_resumes_bit_for_bit_and_tests",
    "tests/unit/test_devices.py": "test_every_backward_pass_keeps_to_its_device",
}
COMMANDS = f"""
import contextlib, runpy, sys
import pytest, test, train
for command, flags in ((train, ["--model", "divsem_dilated"]), (test, [])):
    with contextlib.suppress(SystemExit):
        command.main([*flags, "--help"])
assert train.main({TRAIN.split()}) == 0
assert test.main({TEST.split()}) == 0
runpy.run_module("options.view", run_name="__main__")  # make opt
plain = ["-n", "0", "-p", "no:cacheprovider"]
pytest.main([*plain, "--collect-only", *{list(GENERIC)}])
sys.exit(pytest.main([*plain, "tests/rules/test_rules.py"]))
"""  # in one process, as imports take seconds


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of the tree with the three files in their places, and pictures for the new data set."""
    tree = tmp_path / "tree"
    unwanted = shutil.ignore_patterns("__pycache__", "extension")
    for part in PARTS:
        shutil.copytree(ROOT / part, tree / part, ignore=unwanted)
    for name in ("train.py", "test.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tree / name)
    shutil.copytree(ROOT / "tests" / "extension", tree, dirs_exist_ok=True, ignore=unwanted)
    base, rng = tree / "facades" / "base", np.random.default_rng(0)
    base.mkdir(parents=True)
    for number in range(1, 11):
        label = np.kron(rng.integers(1, 13, (4, 5), dtype=np.uint8), np.ones((18, 18), np.uint8))
        picture = np.stack([20 * label, 255 - 20 * label, label * label], -1)
        Image.fromarray(picture).save(base / f"cmp_b{number:04}.jpg")
        save_png(label, base / f"cmp_b{number:04}.png")
    return tree


def test_they_work_keep_the_rules_and_inherit_the_tests(tree: Path) -> None:
    home = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        cwd=tree, env={**os.environ, **home}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for flag in ("--style_layers", "--histogram_bins", "facades"):
        assert flag in done.stdout
    assert "divsem_dilated: DivSem with a style encoder of dilated convolutions" in " ".join(done.stdout.split())
    for file, generic in GENERIC.items():
        assert f"{file}::{generic}[divsem_dilated]" in done.stdout
    assert "style_layers: int" in (tree / "util" / "opt.py").read_text()

    folder = tree / "checkpoints" / "run"
    losses = [json.loads(line)["losses"] for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert len(losses) == 2
    assert {"G/gan", "G/l1", "D/fake"} <= set(losses[0])
    result = json.loads((folder / "metrics.jsonl").read_text())
    assert 0 < result["metrics"]["histogram"] <= 1
    assert result["details"]["histogram"]["unit"] == "distance"
    assert result["num_images"] == 1
    assert (folder / "style_bank.safetensors").is_file()


def test_the_guide_shows_the_method_as_it_is() -> None:
    method = (ROOT / "tests" / "extension" / "models" / "divsem_dilated_model.py").read_text().splitlines()
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "contributing.md").read_text(), re.DOTALL)
    shown = [line.removesuffix(" ...") for block in blocks for line in block.splitlines() if line.strip(" .")]
    assert len(shown) > 15
    assert [line for line in shown if line not in method] == []
