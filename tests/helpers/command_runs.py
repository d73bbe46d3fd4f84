"""Tiny runs by the commands, of any registered model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import test as test_command
import train as train_command
from models import MODELS

QUICK = ["--num_workers", "0", "--image_every", "0", "--no-tensorboard", "--device", "cpu"]


def tiny_line(model: str, tmp_path: Path) -> list[str]:
    """Return the smallest training line of a model, the runs that it builds on made."""
    if MODELS.get(model).flow == "stylising":
        pytest.importorskip("diffusers", reason="requirements-diffusion.txt is not installed")
    for line in MODELS.get(model).tiny_inputs(tmp_path):
        if not (tmp_path / line[line.index("--name") + 1]).exists():
            assert train_command.main([*line, *QUICK]) == 0
    return MODELS.get(model).tiny(tmp_path)


def train(model: str, tmp_path: Path, name: str, *args: str) -> Path:
    """Train a tiny run and return its folder."""
    where = ["--checkpoints_dir", str(tmp_path), "--name", name]
    assert train_command.main([*tiny_line(model, tmp_path), *where, *QUICK, *args]) == 0
    return tmp_path / name


def run_test(tmp_path: Path, name: str, *args: str) -> dict[str, Any]:
    """Test a run without networks of metrics and return its last line."""
    where = ["--checkpoints_dir", str(tmp_path), "--name", name]
    quick = ["--num_workers", "0", "--device", "cpu", "--metrics", "l1,psnr,ssim"]
    assert test_command.main([*where, *quick, *args]) == 0
    return json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1])
