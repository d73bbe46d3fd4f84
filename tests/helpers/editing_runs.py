"""Runs and scenes for tests that edit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import train as train_command
from data.streets.scene import CLASSES, render_street
from data.streets_dataset import scene_rng
from models import MODELS
from scripts import edit
from util.images import read_image, read_map, save_png

HEIGHT, WIDTH = 96, 128
CAR = CLASSES.names.index("car")


def scene_files(folder: Path, name: str, index: int, height: int = HEIGHT) -> None:
    maps = render_street(scene_rng(0, "test", index), height=height, width=round(height * 4 / 3))
    assert maps.inst is not None
    save_png(maps.image, folder / "image" / f"{name}.png")
    save_png(maps.label.astype(np.uint8), folder / "label" / f"{name}.png")
    save_png(maps.inst.astype(np.uint16), folder / "inst" / f"{name}.png")


def make_runs(path: Path) -> Path:
    """Runs `divsem` and `spmpgan`, and scenes `a` and `b` with a mask each."""
    quick = ["--num_workers", "0", "--image_every", "0", "--no-tensorboard", "--device", "cpu", "--max_steps", "0"]
    for name in ("divsem", "spmpgan"):
        where = ["--checkpoints_dir", str(path), "--name", name]
        assert train_command.main([*MODELS.get(name).tiny(path), *where, *quick]) == 0
    amplify(path / "divsem")
    for name, index in (("a", 7), ("b", 6)):
        scene_files(path, name, index)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[30:60, 40:90] = 255
        save_png(mask, path / "mask" / f"{name}.png")
    return path


def amplify(run: Path) -> None:
    """Give an untrained generator weights that let a style show in 8 bits (their initial deviation is 0.02)."""
    for file in run.glob("*.pt"):
        state = torch.load(file, weights_only=True)
        for value in state["model"]["netG"].values():
            if value.ndim == 4:
                value.mul_(4)
        torch.save(state, file)
    (run / "style_bank.safetensors").unlink()  # edit.py makes it again, with these weights


def call(
    root: Path,
    *args: str,
    run: str = "divsem",
    scene: str = "a",
    mask: bool = False,
    output: str = "out/o.png",
) -> Path:
    kinds = ("image", "label", "inst", *(["mask"] if mask else []))
    files = [f"--{kind}={root / kind / f'{scene}.png'}" for kind in kinds]
    where = ["--checkpoints_dir", str(root), "--name", run, "--device", "cpu", "--num_workers", "0"]
    assert edit.main([*where, *files, "--output", str(root / output), *args]) == 0
    return root / output


def inst_of(root: Path, label: int, scene: str = "a") -> int:
    """The largest instance of a class."""
    inst, labels = (read_map(root / kind / f"{scene}.png", kind) for kind in ("inst", "label"))
    ids, counts = np.unique(inst[labels == label], return_counts=True)
    return int(ids[counts.argmax()])


def changed(root: Path, output: Path, scene: str = "a") -> np.ndarray:
    return (read_image(output) != read_image(root / "image" / f"{scene}.png")).any(axis=2)
