"""Tiny SIEDOB runs and scenes of rectangles, for the tests of its models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import train as train_command
from data.records import MapRules, Maps
from data.samples import make_sample
from models import MODELS
from models.siedob_fusion_model import SIEDOBFusionModel
from options.base_options import input_folder
from options.train_options import TrainOptions
from trainers.restore import load_inputs
from util.batch import Batch, collate, expand

LABEL_NC, ROAD, CAR, PERSON = 9, 2, 6, 7
QUICK = "--num_workers 0 --image_every 0 --no-tensorboard --device cpu".split()
RULES = MapRules(label_nc=LABEL_NC)


def line_of(root: Path, model: str, name: str, *flags: str) -> list[str]:
    where = ["--checkpoints_dir", str(root), "--name", name]
    return [*MODELS.get(model).tiny(root), *where, *QUICK, *flags]


def train(root: Path, model: str, name: str, *flags: str) -> Path:
    assert train_command.main(line_of(root, model, name, *flags)) == 0
    return root / name


def weights(run: Path) -> dict[str, dict[str, Tensor]]:
    state: dict[str, dict[str, Tensor]] = torch.load(run / "latest.pt", weights_only=True)["model"]
    return state


def build(root: Path, model: str, *flags: str, is_train: bool = True) -> Any:
    """Return a new model as train.py makes it."""
    opt = TrainOptions().parse(line_of(root, model, "new", *flags))
    torch.manual_seed(0)
    made = MODELS.get(model).from_options(opt, is_train=is_train)
    given = {flag: getattr(opt, flag) for flag in made.input_runs}
    load_inputs(made, {flag: input_folder(opt, run) for flag, run in given.items() if run is not None})
    return made.eval()


# --- scenes ---
Part = tuple[int, int, int, int, int, int]  # r0, r1, c0, c1, label, id


def scene(*parts: Part, mask: tuple[int, int, int, int], size: int = 64, inst: bool = True, seed: int = 0) -> Any:
    """Return a sample: road with rectangles, of which a rectangle is erased; without `inst` ids are the labels."""
    image = np.random.RandomState(seed).randint(0, 256, (size, size, 3)).astype(np.uint8)
    label, ids = np.full((size, size), ROAD), np.full((size, size), ROAD)
    for r0, r1, c0, c1, kind, number in parts:
        label[r0:r1, c0:c1], ids[r0:r1, c0:c1] = kind, number
    erased = np.zeros((size, size))
    erased[mask[0] : mask[1], mask[2] : mask[3]] = 1
    maps = Maps(image, label, ids if inst else None)
    compact = make_sample(maps, erased, rules=RULES, inst_class_rule="majority", name=f"s{seed}", index=seed)
    return expand(compact)


def batch_of(*samples: Any) -> Batch:
    return collate([{**sample, "draw": 5 + k} for k, sample in enumerate(samples)])


HIDDEN, SEEN, OTHER = (8, 24, 8, 28, CAR, 6000), (32, 50, 36, 60, CAR, 6001), (40, 62, 4, 14, PERSON, 7000)
TYPICAL = {"mask": (4, 44, 0, 48)}  # all of the first car, some of the other and of the person
Make = Callable[..., SIEDOBFusionModel]


def make_runs(path: Path) -> Path:
    """Train the three runs that the fusion builds on, and one of it: `fusion`, with two steps behind it."""
    for line in MODELS.get("siedob_fusion").tiny_inputs(path):
        assert train_command.main([*line, *QUICK]) == 0
    train(path, "siedob_fusion", "fusion", "--max_steps", "2")
    return path


def generate(model: Any, batch: Batch, seeds: list[int] | None = None) -> Tensor:
    """Generate, and check what always holds: known pixels come back as they are."""
    model.counters.clear()
    made: Tensor = model.generate(batch, seeds or [3] * len(batch["name"]))
    known = (batch["mask"] < 0.5).expand_as(made)
    assert torch.equal(made[known], batch["image"][known])
    assert torch.isfinite(made).all()
    return made


def crop_batch() -> Any:
    """Return a crop of an object, which is its own style partner."""
    sample = scene(mask=(0, 64, 0, 64))
    shape = torch.full((64, 64), 2)
    shape[8:56, 8:56] = 1
    image = sample["image"] * (shape != 2)
    return batch_of({**sample, "label": shape, "image": image, "style_image": image, "style_label": shape})
