"""Gradients of every method's first step, in the processes of `torchrun shared_gradients.py ROOT METHOD ...`.

Each process takes its part of one batch of four pictures; the first writes `ROOT/gradients_<processes>.pt`. The
optimisers' rates are zero: where a discriminator's gradient vanishes, rounding decides the direction of its update.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from data import DATASETS
from data.loader import make_loader
from models import MODELS
from options.base_options import input_folder
from options.train_options import TrainOptions
from trainers.distributed import Distributed
from trainers.guard import UpdateGuard
from trainers.restore import load_inputs
from trainers.sampler import BatchKeys
from trainers.settings import TrainerSettings
from trainers.step import Step

PICTURES = 4


def gradients(name: str, root: Path, world: Distributed) -> dict[str, Tensor]:
    """Make a method's first step; return the gradients of all that it trains."""
    part = str(PICTURES // world.world_size)
    line = [*MODELS.get(name).tiny(root), "--checkpoints_dir", str(root), "--name", "new", "--batch_size", part]
    opt = TrainOptions().parse([*line, "--num_workers", "0", "--device", "cpu"])
    dataset = DATASETS.get(opt.dataset_mode).from_options(opt, split="train", augment=True, task="train")
    torch.manual_seed(0)
    model = MODELS.get(name).from_options(opt, is_train=True)
    runs = {flag: getattr(opt, flag) for flag in model.input_runs}
    load_inputs(model, {flag: input_folder(opt, run) for flag, run in runs.items() if run is not None})
    model.to(world.device).train()
    for phase in model.phases():
        for group in phase.optimizer.param_groups:
            group["lr"] = 0.0
    if world.world_size > 1:
        model.distribute(partial(world.wrap, unused_parameters=model.unused_parameters))
    keys = BatchKeys(
        length=len(dataset), batch_size=opt.batch_size, seed=0, rank=world.rank, world_size=world.world_size
    )
    batch = next(iter(make_loader(dataset, batch_size=opt.batch_size, num_workers=0, keys=keys)))
    Step(model, world=world, guard=UpdateGuard(model, world), settings=TrainerSettings(max_steps=1)).make([batch], 0)
    model.distribute(lambda net: net)
    return {
        f"{net}.{parameter}": value.grad
        for net, module in model.networks().items()
        for parameter, value in module.named_parameters()
        if value.grad is not None
    }


def main(root: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    with Distributed.start("cpu") as world:
        found = {name: gradients(name, root, world) for name in names}
        if world.is_main:
            torch.save(found, root / f"gradients_{world.world_size}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
