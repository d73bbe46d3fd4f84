"""Every command of docs/tutorial.md, read from its text, does what the text says; in few steps and on few pictures."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from util.images import read_image

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text()
SMALLER = {"--train 60": "--train 10", "--max_steps 300 --image_every 100": "--max_steps 4", "--ngf 8": "--ngf 4"}
FOR_SPEED = {"train", "test", "pack_benchmark", "baselines", "evaluate", "export", "edit"}  # take --num_workers


def blocks(kind: str) -> Iterator[str]:
    """Return the code blocks of a kind ("" for commands), with the replacements of `SMALLER`."""
    for found, block in re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S):
        if found == kind:
            for ours, smaller in SMALLER.items():
                block = block.replace(ours, smaller)
            yield block


def run(line: str) -> None:
    """Run a command in this process."""
    name, *arguments = shlex.split(line)
    if name == "mv":
        shutil.move(*arguments)
        return
    assert name == "python", line
    script = Path(arguments.pop(0)).with_suffix("")
    if script.name in FOR_SPEED:
        arguments += ["--num_workers", "0"]
    assert importlib.import_module(".".join(script.parts)).main(arguments) == 0, line


def test_the_tutorial_from_photographs_to_a_model_that_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(TEXT.count(each) == 1 for each in SMALLER)
    monkeypatch.chdir(tmp_path)
    lines = "".join(blocks("")).replace("\\\n", " ").splitlines()
    assert len(lines) > 12
    for line in lines:
        run(line)

    assert (tmp_path / "labelled/train/overlays/train_00000.png").is_file()
    assert "patches" in (tmp_path / "page/report.html").read_text()
    measured = [json.loads((tmp_path / f"checkpoints/{name}/metrics.jsonl").read_text().splitlines()[0])
                for name in ("mine", "patches")]  # fmt: skip
    assert measured[0]["protocol"]["mask_set"] == measured[1]["protocol"]["mask_set"]
    assert read_image(tmp_path / "wider/train_00001.png").shape == (96, 128 + 32, 3)
    photo, added, again = (read_image(tmp_path / name) for name in ("photos/train_00000.png", "added.png", "again.png"))
    assert (photo[:, 70:] == added[:, 70:]).all() and (photo != added).any()
    assert abs(added.astype(int) - again).max() <= 2  # in half precision

    scope: dict[str, object] = {}
    (python,) = blocks("python")
    exec(python, scope)
    pictures = scope["pictures"]
    assert isinstance(pictures, list) and len(pictures) == 3 and (pictures[0] == added).all()
