"""edit.py keeps one result of a large picture at a time, however many are asked for."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import train as train_command
from models import MODELS
from scripts import edit
from util.images import read_image, save_png

SIDE = 900


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    run = ["--name", "run", "--checkpoints_dir", str(tmp_path), "--device", "cpu", "--num_workers", "0"]
    tiny = [*MODELS.get("divsem").tiny(tmp_path), "--no-tensorboard", "--image_every", "0", "--max_steps", "0"]
    assert train_command.main([*tiny, *run]) == 0
    label = np.zeros((SIDE, SIDE), np.uint8)
    label[: SIDE // 2] = 1
    mask = np.zeros_like(label)
    mask[400:430, 400:440] = 255
    noise = np.random.RandomState(0).randint(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    for name, array in (("image", noise), ("label", label), ("mask", mask)):
        save_png(array, tmp_path / f"{name}.png")
    return [*run, *(a for name in ("image", "label", "mask") for a in (f"--{name}", str(tmp_path / f"{name}.png")))]


def peak(line: list[str]) -> float:
    """Return the most memory that an edit took, in pictures."""
    tracemalloc.start()
    try:
        assert edit.main(line) == 0
        return tracemalloc.get_traced_memory()[1] / (3 * SIDE**2)
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_results(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edit, "STRIP_SIDE", 96)
    two, six = (peak([*line, "--output", str(tmp_path / f"{n}.png"), "--num_samples", str(n)]) for n in (2, 6))
    assert six < two + 1
    assert np.array_equal(read_image(tmp_path / "2.png"), read_image(tmp_path / "6.png"))
    assert read_image(tmp_path / "6_strip.png").shape[1] < 8 * 200, "the strip shows small copies"
