"""Gradients of every method's first step, by one process and by several: `python shared_gradients.py ROOT METHOD ...`.

Each process takes its part of one batch of four pictures; the first of COUNT writes `ROOT/gradients_<COUNT>.pt`. The
models are built once, and the processes are forks of the one that built them, which makes no step itself: importing and
building take longer than the steps. The optimisers' rates are zero: where a discriminator's gradient vanishes, rounding
decides the direction of its update.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing import start_processes
from toy_process import free_port

from data import DATASETS
from data.loader import make_loader
from models import MODELS
from models.base_model import BaseModel
from options.base_options import input_folder
from options.train_options import TrainOptions
from trainers.distributed import Distributed
from trainers.guard import UpdateGuard
from trainers.restore import load_inputs
from trainers.sampler import BatchKeys
from trainers.settings import TrainerSettings
from trainers.step import Step
from util.batch import on_host

PICTURES = 4
COUNTS = (1, 2, 4)  # of processes


def build(name: str, root: Path) -> tuple[BaseModel, Any]:
    """Return a method's new model and its data set."""
    line = [*MODELS.get(name).tiny(root), "--checkpoints_dir", str(root), "--name", "new"]
    opt = TrainOptions().parse([*line, "--num_workers", "0", "--device", "cpu"])
    dataset = DATASETS.get(opt.dataset_mode).from_options(opt, split="train", augment=True, task="train")
    torch.manual_seed(0)
    model = MODELS.get(name).from_options(opt, is_train=True)
    runs = {flag: getattr(opt, flag) for flag in model.input_runs}
    load_inputs(model, {flag: input_folder(opt, run) for flag, run in runs.items() if run is not None})
    for phase in model.phases():
        for group in phase.optimizer.param_groups:
            group["lr"] = 0.0
    return model, dataset


def gradients(model: BaseModel, dataset: Any, world: Distributed, *, pictures: int = PICTURES) -> dict[str, Tensor]:
    """Make a method's first step, of `pictures` over all processes; return the gradients of all that it trains."""
    model.to(world.device).train()
    if world.world_size > 1:
        model.distribute(partial(world.wrap, unused_parameters=model.unused_parameters))
    part = pictures // world.world_size
    keys = BatchKeys(length=len(dataset), batch_size=part, seed=0, rank=world.rank, world_size=world.world_size)
    batch = on_host(next(iter(make_loader(dataset, batch_size=part, num_workers=0, keys=keys))))
    Step(model, world=world, guard=UpdateGuard(model, world), settings=TrainerSettings(max_steps=1)).make([batch], 0)
    if world.world_size > 1:
        model.distribute(lambda net: net)
    return {
        f"{net}.{parameter}": value.grad
        for net, module in model.networks().items()
        for parameter, value in module.named_parameters()
        if value.grad is not None
    }


def share(rank: int, count: int, port: int, root: Path, built: dict[str, tuple[BaseModel, Any]]) -> None:
    """Be process `rank` of `count`."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "RANK": str(rank)}
    with Distributed.start("cpu") as world:
        found = {name: gradients(model, dataset, world) for name, (model, dataset) in built.items()}
        if world.is_main:
            torch.save(found, root / f"gradients_{count}.pt")


def main(root: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    built = {name: build(name, root) for name in names}
    for count in COUNTS:
        start_processes(share, (count, free_port(), root, built), nprocs=count, start_method="fork")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
