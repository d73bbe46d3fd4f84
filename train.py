"""Train a method: `python train.py --model divsem --dataset_mode camvid --dataroot datasets/camvid --name cv`.

Leaves `<checkpoints_dir>/<name>/` with opt.yaml, checkpoints, stats.jsonl, preview pictures and TensorBoard events.
Several GPUs and machines: `torchrun --nproc_per_node 4 train.py ...` (docs/gpus.md). Exit codes: 0 done, 2 a mistake
that the message explains, 3 a loss or gradient is not finite, 4 a data worker or another process died, 75 stopped by a
signal: all finished steps are saved (go on with --continue_train; start a new run again if it had made no step). One of
several processes that is stopped before the first or after the last step ends with the signal's code.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt(stop_signals=True)

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from data import DATASETS
from data.base_dataset import BaseDataset
from data.checks import quick_check
from data.loader import Loader, make_loader, plain_pictures
from data.prepare.writing import save_classes
from models import MODELS
from models.base_model import BaseModel
from options.base_options import OPTIONS_FILE, Options, formerly, input_folder, run_folder
from options.train_options import TrainOptions
from testing.validation import Validation
from trainers.distributed import Distributed, planned_processes
from trainers.estimate import Cost, estimate
from trainers.failures import SMALLER, out_of_memory_hint
from trainers.preview import Preview
from trainers.restore import load_inputs
from trainers.run_dir import open_run
from trainers.sampler import BatchKeys
from trainers.settings import TrainerSettings
from trainers.signals import LeaveSignals
from trainers.trainer import Trainer
from util.device import compute_deterministically
from util.errors import EXIT_ABORTED, EXIT_INTERRUPTED, EXIT_OK, UserError, run_main

PREVIEWS = 4  # pictures


def main(argv: list[str] | None = None) -> int:
    with LeaveSignals("no step was made", alone=planned_processes() == 1) as leave:
        opt = TrainOptions().parse(argv)
        try:
            return train(opt, leave)
        except KeyboardInterrupt:  # while nothing is to be saved, or a second time
            saved = any(run_folder(opt).glob("*.pt"))
            print(f"interrupted; {how_to_go_on(opt) if saved else leave.state}", file=sys.stderr)
            return EXIT_ABORTED


def train(opt: Options, leave: LeaveSignals) -> int:
    """Train and return the exit code; `leave` learns when every step is done."""
    if opt.estimate:
        print("\n".join(cost(opt).lines(opt.max_steps)))
        return EXIT_OK
    run_dir = run_folder(opt)
    start = Distributed.start(opt.device, timeout=opt.dist_timeout)
    with start as world, open_run(run_dir, resume=opt.continue_train, world=world):
        training = Training.prepare(opt, world)
        model, dataset, trainer = training.model, training.dataset, training.trainer

        def restored() -> None:  # not earlier: options that do not fit the checkpoint must not replace the saved ones
            if world.is_main:
                model.start_run(run_dir, resumed=opt.continue_train)  # may refuse
                opt.save(run_dir / OPTIONS_FILE)
                save_classes(dataset, run_dir)

        code = trainer.fit(restored=restored)
        leave.state = "every step is saved, and --continue_train does the rest"
        if code == EXIT_OK and world.is_main:
            with trainer.averaged(), out_of_memory_hint():
                pictures = lambda limit: plain_pictures(opt, "train", limit, kept=dataset)  # noqa: E731
                model.prepare_inference(run_dir, pictures, weights=trainer.weights, refresh=True)
            print(f"saved in {run_dir}, step {trainer.step}; next: {next_command(opt)}", flush=True)
        if code == EXIT_INTERRUPTED and world.is_main:
            print(f"stopped at step {trainer.step}, saved in {run_dir}; {how_to_go_on(opt)}", flush=True)
        return code


def cost_of(argv: list[str]) -> tuple[int, Cost]:
    """Return the steps of a command line and what each will cost."""
    opt = TrainOptions().parse(argv)
    return opt.max_steps, cost(opt)


def cost(opt: Options) -> Cost:
    """Return what a training will cost (`--estimate`): no run is made."""
    if planned_processes() > 1:
        raise UserError("--estimate: steps of one process are measured; start it without torchrun")
    with Distributed.start(opt.device, timeout=opt.dist_timeout) as world, out_of_memory_hint(SMALLER):
        return estimate(Training.prepare(opt, world).trainer)


@dataclass(frozen=True)
class Training:
    """What a run trains, on what and how."""

    model: BaseModel
    dataset: BaseDataset
    trainer: Trainer

    @classmethod
    def prepare(cls, opt: Options, world: Distributed) -> Self:
        """Build all of it from options, and print what it is."""
        if opt.deterministic:
            compute_deterministically()
        with world.together():
            dataset = DATASETS.get(opt.dataset_mode).from_options(opt, split="train", augment=True, task="train")
            quick_check(dataset)
            torch.manual_seed(opt.seed)
            model = MODELS.get(opt.model).from_options(opt, is_train=True)
            validation = Validation(opt, model, dataset) if opt.eval_every else None
            if not opt.continue_train:  # a resumed run has them in its checkpoint
                named = {flag: getattr(opt, flag) for flag in model.input_runs}
                load_inputs(model, {flag: input_folder(opt, name) for flag, name in named.items() if name is not None})

        if world.is_main:
            print("\n".join(introduction(dataset, model.networks(), world, opt)), flush=True)

        def batches(start: int) -> Loader:
            keys = BatchKeys(
                length=len(dataset), batch_size=opt.batch_size, seed=opt.seed,
                start_step=start, rank=world.rank, world_size=world.world_size,
            )  # fmt: skip
            return make_loader(dataset, batch_size=opt.batch_size, num_workers=opt.num_workers, keys=keys)

        trainer = Trainer(
            model=model,
            make_loader=batches,
            run_dir=run_folder(opt),
            settings=TrainerSettings(
                max_steps=opt.max_steps,
                seed=opt.seed,
                accumulate=opt.accumulate,
                checkpoint_activations=opt.checkpoint_activations,
                compile=opt.compile,
                channels_last=opt.channels_last,
                precision=opt.precision,
                ema_decay=opt.ema,
                log_every=opt.log_every,
                save_every=opt.save_every,
                image_every=opt.image_every,
                eval_every=opt.eval_every,
                keep=opt.keep,
                resume=opt.continue_train,
                tensorboard=opt.tensorboard,
            ),
            world=world,
            options=opt.values(),
            formerly=formerly(opt.values()),
            validate=validation,
            preview=Preview(model, lambda: preview_pictures(opt), dataset.palette),
        )
        return cls(model, dataset, trainer)


def introduction(
    dataset: BaseDataset, networks: Mapping[str, nn.Module], world: Distributed, opt: Options
) -> list[str]:
    """Return what is trained on what and where, in three lines."""
    per_step = opt.batch_size * opt.accumulate * world.world_size
    classes = f", {dataset.label_nc} classes" if dataset.label_nc else ""
    sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}
    parts = ", ".join(f"{name} {size / 1e6:.2f}" for name, size in sizes.items())
    cuda = world.device.type == "cuda"
    where = torch.cuda.get_device_name(world.device) if cuda else f"threads: {torch.get_num_threads()}"
    processes = f", {world.world_size} processes" if world.world_size > 1 else ""
    return [
        f"data: {len(dataset)} pictures ({opt.dataset_mode}){classes}, {opt.crop_size} pixels, {per_step} per step",
        f"networks: {sum(sizes.values()) / 1e6:.2f} million parameters ({parts})",
        f"device: {world.device} ({where}{processes}), {opt.precision}, up to step {opt.max_steps}",
    ]


def of_run(opt: Options) -> str:
    """Return the flags that name the run."""
    elsewhere = [] if opt.checkpoints_dir == "checkpoints" else ["--checkpoints_dir", opt.checkpoints_dir]
    return shlex.join(["--name", opt.name, *elsewhere])


def how_to_go_on(opt: Options) -> str:
    """Return the command that continues the run."""
    return f"go on: python train.py {of_run(opt)} --continue_train"


def next_command(opt: Options) -> str:
    """Return the command that tests the run."""
    return f"python test.py {of_run(opt)}" + (" --content DIR" if MODELS.get(opt.model).flow == "stylising" else "")


def preview_pictures(opt: Options) -> Loader:
    """Return a few held-out pictures, or training pictures where there is no test split."""
    try:
        return plain_pictures(opt, "test", PREVIEWS, task="free_form")
    except UserError as error:
        print(f"note: previews show training pictures ({error})", flush=True)
        return plain_pictures(opt, "train", PREVIEWS, task="free_form")


if __name__ == "__main__":
    run_main(main)
