"""Two styles learnt on the tiny random pipeline; test files that import this are skipped where diffusers is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import test as test_command
import train as train_command
from models import MODELS
from options.test_options import TestOptions
from testing.stylising_flow import StylisingFlow
from util.errors import UserError
from util.images import read_image, save_png

for library in ("diffusers", "transformers"):
    pytest.importorskip(library, reason="requirements-diffusion.txt is not installed")

QUICK = ["--num_workers", "0", "--no-tensorboard", "--device", "cpu"]


def disc(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(y - height / 2, x - width / 2) < min(height, width) / 3
    return np.stack([np.where(inside, 220, 40 + x), np.where(inside, 60, 90 + y), 200 - x], -1).astype(np.uint8)


def make_styles(home: Path) -> Path:
    """Fill a folder with the tiny pipeline, the styles wiki_1 and wiki_2 and three contents."""
    tiny = MODELS.get("s2prest").tiny(home)
    second = home / "second.png"
    save_png(disc(50, 90)[::-1], second)
    for name, more in (("wiki_1", []), ("wiki_2", ["--style_image", str(second)])):
        steps = ["--max_steps", "2", "--image_every", "2", "--log_every", "1"]
        assert train_command.main([*tiny, *more, *QUICK, *steps, "--name", name, "--checkpoints_dir", str(home)]) == 0
    for name, size in (("wide", (64, 96)), ("square", (64, 64)), ("tall.v2", (200, 180))):
        save_png(disc(*size), home / "contents" / f"{name}.png")
    return home


def stylise(home: Path, *args: str, name: str = "wiki_1", content: str = "contents/square.png") -> Path:
    """Run test.py in seconds; return the folder of its pictures."""
    where = ["--name", name, "--checkpoints_dir", str(home), "--results_dir", str(home / "results")]
    usual = ["--content", str(home / content), "--size", "64", "--steps", "10", "--device", "cpu"]
    assert test_command.main([*where, *usual, *args]) == 0
    return StylisingFlow.results_folder(TestOptions().parse([*where, *usual, *args]))


def result(home: Path, *args: str) -> np.ndarray:
    return read_image(stylise(home, *args) / "stylized" / "square.png")


def wrong(home: Path, *args: str, content: str = "contents/square.png", name: str = "wiki_1") -> str:
    with pytest.raises(UserError) as caught:
        stylise(home, *args, content=content, name=name)
    return str(caught.value)
