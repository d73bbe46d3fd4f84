"""A small method and its data for the trainer's tests; run as a script it is a training command of its own.

Networks and data are float64 (the float32 batch is cast), so that two ways to the same sum differ by 1e-16 and not
by the 1e-7 that Adam, which divides by the gradient's own size, may turn into a whole step.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from data.loader import Loader
from models.base_model import BaseModel, Phase
from trainers.best import Score
from trainers.distributed import Distributed
from trainers.run_dir import open_run
from trainers.sampler import BatchKeys
from trainers.trainer import Trainer, TrainerSettings
from util.batch import Batch, Sample, collate
from util.errors import DataError, run_main
from util.seeds import torch_generator
from util.workers import shield_worker

LENGTH = 5  # pictures: fewer than some global batches, and no multiple of any


class PowerConv(nn.Module):
    """A convolution divided by its largest singular value: a buffer that training forwards change."""

    u: Tensor

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, padding=1)
        self.register_buffer("u", torch.ones(cout))

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.conv.weight.flatten(1)
        v = F.normalize(matrix.detach().T @ self.u, dim=0)
        if self.training:
            self.u.copy_(F.normalize(matrix.detach() @ v, dim=0))
        sigma = self.u.clone() @ matrix @ v
        return F.conv2d(x, self.conv.weight / sigma, self.conv.bias, padding=1)


class ToyGenerator(nn.Module):
    """Its `spare` branch is used in every second step only: parameters that a forward pass may leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.spare, self.dec = PowerConv(4, 6), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 3, 3, padding=1)
        self.register_buffer("steps", torch.tensor(0))

    steps: Tensor

    def forward(self, image: Tensor, mask: Tensor, *, dark: bool) -> Tensor:
        x = F.leaky_relu(self.enc(torch.cat([image * (1 - mask), mask], 1)), 0.2)
        return torch.tanh(self.dec(self.spare(x) if dark else x))


class ToyDiscriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(PowerConv(3, 4), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))

    def forward(self, *images: Tensor) -> list[Tensor]:
        return [self.body(image) for image in images]


class ToyStep(NamedTuple):
    """What the phases of a step share."""

    real: Tensor
    mask: Tensor
    fake: Tensor


class ToyModel(BaseModel):
    """Adversarial inpainting in miniature: one shared generator pass, then D, then G, every third step twice more."""

    unused_parameters = True  # a branch that alternate steps leave out

    def __init__(
        self,
        *,
        noise: float = 0.0,
        poison_step: int | None = None,
        poison: str = "G/l1",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.netG, self.netD = ToyGenerator().to(dtype), ToyDiscriminator().to(dtype)
        self.opt_G = torch.optim.Adam(self.netG.parameters(), lr=1e-3, betas=(0.5, 0.999))
        self.opt_D = torch.optim.Adam(self.netD.parameters(), lr=4e-3, betas=(0.5, 0.999))
        self.loss_weights = {"G/l1": 10.0}
        self.noise, self.poison_step, self.poison, self.dtype = noise, poison_step, poison, dtype

    @classmethod
    def from_options(cls, opt: Any, *, is_train: bool) -> ToyModel:
        raise NotImplementedError

    @classmethod
    def tiny(cls, tmp_path: Path) -> list[str]:
        raise NotImplementedError

    def networks(self) -> dict[str, nn.Module]:
        return {"netG": self.netG, "netD": self.netD}

    def phases(self) -> list[Phase]:
        return [
            Phase("D", ("netD",), self.opt_D, self.losses_D),
            Phase("G", ("netG",), self.opt_G, self.losses_G),
            Phase("lazy", ("netG",), self.opt_G, self.losses_lazy, every=3, repeat=2),
        ]

    def begin_step(self, batch: Batch) -> ToyStep:
        self.netG.steps += 1
        real, mask = batch["image"].to(self.dtype), batch["mask"].to(self.dtype)
        jitter = self.noise * torch.randn(real.shape).to(real)
        dark = bool(self.netG.steps % 2 == 0)
        return ToyStep(real, mask, self.call("netG")(real + jitter, mask, dark=dark))

    def losses_D(self, shared: ToyStep) -> dict[str, Tensor]:
        fake, real = self.call("netD")(shared.fake.detach(), shared.real)
        return {"D/fake": F.relu(1 + fake).mean(), "D/real": F.relu(1 - real).mean()}

    def losses_G(self, shared: ToyStep) -> dict[str, Tensor]:
        assert not any(p.requires_grad for p in self.netD.parameters())
        losses = {"G/l1": (shared.fake - shared.real).abs().mean(), "G/gan": -self.netD(shared.fake)[0].mean()}
        if self.netG.steps == self.poison_step:
            losses[self.poison] = losses[self.poison] * float("nan")
        return losses

    def losses_lazy(self, shared: ToyStep) -> dict[str, Tensor]:
        """Runs a forward pass of its own, as an update that comes more than once must."""
        return {"lazy/l2": (self.call("netG")(shared.real, shared.mask, dark=False) ** 2).mean()}

    def generate(self, batch: Batch, seeds: list[int]) -> Tensor:
        raise NotImplementedError


class ToyData(Dataset):
    """Pictures that are functions of (epoch, index); `broken` is the index of one that cannot be read."""

    def __init__(self, broken: int | None = None, killed: int | None = None) -> None:
        self.broken, self.killed = broken, killed

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        number, index = key
        if index == self.broken:
            raise DataError(f"images/{index}.png: cannot be read")
        if index == self.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        draw = torch_generator("toy", number, index)
        plane, ids = torch.zeros(8, 8, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        return Sample(
            image=torch.rand(3, 8, 8, generator=draw) * 2 - 1,
            mask=(torch.rand(1, 8, 8, generator=draw) > 0.5).float(),
            edge=torch.zeros(1, 8, 8),
            label=plane,
            inst=plane,
            inst_id=ids,
            inst_class=ids,
            name=f"{index}",
            index=index,
        )


def toy_trainer(
    run_dir: Path,
    *,
    world: Distributed | None = None,
    batch_size: int = 2,
    workers: int = 0,
    data: ToyData | None = None,
    model: ToyModel | None = None,
    options: dict[str, Any] | None = None,
    preview: Any = None,
    validate: Any = None,
    **settings: Any,
) -> Trainer:
    """A trainer of the toy with small intervals; `settings` are those of `TrainerSettings`."""
    world = world or Distributed()
    chosen = TrainerSettings(**{"seed": 3, "log_every": 1, "save_every": 0, "tensorboard": False, **settings})

    def make_loader(start_step: int) -> Loader:
        keys = BatchKeys(
            length=LENGTH,
            batch_size=batch_size,
            seed=chosen.seed,
            start_step=start_step,
            rank=world.rank,
            world_size=world.world_size,
        )
        loader = DataLoader(
            data or ToyData(),
            batch_sampler=keys,
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=shield_worker,
        )
        return Loader(loader)

    return Trainer(
        model=model or ToyModel(),
        make_loader=make_loader,
        run_dir=run_dir,
        settings=chosen,
        world=world,
        options=options,
        preview=preview,
        validate=validate,
    )


def exhaust(trainer: Trainer, method: str, *, step: int) -> None:
    """Let the GPU's memory run out in a method of the trainer's model, in the step after `step`."""
    whole = getattr(trainer.model, method)

    def hungry(*arguments: Any) -> Any:
        if trainer.step == step:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(*arguments)

    setattr(trainer.model, method, hungry)


def failing_validation(weights: str) -> Score:
    raise DataError("val/3.png: cannot be read")


def fit(run_dir: Path, **arguments: Any) -> Trainer:
    """Train as train.py does, in one process; return the trainer."""
    trainer = toy_trainer(run_dir, **arguments)
    with open_run(run_dir, resume=trainer.settings.resume, world=trainer.world), one_thread():
        trainer.fit()
    return trainer


@contextmanager
def one_thread() -> Iterator[None]:
    """Convolutions this small spend nearly all their time waiting for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--announce_step", type=int, help="create <run_dir>/in_step when this step begins, then wait")
    parser.add_argument("--poison_rank", type=int, help="the process whose loss becomes NaN in its second step")
    parser.add_argument("--fail_validation", action="store_true", help="after step 2")
    parser.add_argument("--save_every", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=10, help="minutes")
    opt = parser.parse_args()
    with (
        Distributed.start("cpu", timeout=opt.timeout) as world,
        open_run(opt.run_dir, resume=opt.resume, world=world),
    ):
        poisoned = opt.poison_rank == world.rank
        model = ToyModel(noise=0.0 if world.world_size > 1 else 0.1, poison_step=2 if poisoned else None)
        trainer = toy_trainer(
            opt.run_dir,
            world=world,
            batch_size=opt.batch_size,
            workers=opt.workers,
            model=model,
            max_steps=opt.steps,
            accumulate=opt.accumulate,
            resume=opt.resume,
            save_every=opt.save_every,
            eval_every=2 if opt.fail_validation else 0,
            validate=failing_validation,
        )
        if opt.announce_step is not None:
            _announce(trainer, opt.announce_step)
        return trainer.fit()


def _announce(trainer: Trainer, step: int) -> None:
    """Let a test send its signal in the middle of a step."""
    import time

    begin_step = trainer.model.begin_step

    def begin(batch: Batch) -> ToyStep:
        shared = begin_step(batch)
        if trainer.step == step:
            (trainer.run_dir / "in_step").touch()
            time.sleep(0.5)
        return shared

    trainer.model.begin_step = begin  # type: ignore[method-assign]


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_main(main)


def assert_same(a: Any, b: Any, where: str = "state") -> None:
    """Compare nested state bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}/{i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def stats(run_dir: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds_per_step"]
    return lines
