"""On a GPU the host learns of a number that is not finite a step late, yet no weight is changed (on a fake one)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fake_device import DeviceMistakeError, FakeDevice, fake_device, missing_fakes
from torch import Tensor
from trainer_toys import LENGTH, ToyData, ToyModel, fit, toy_trainer

from trainers.checkpoint import load_checkpoint
from trainers.distributed import Distributed
from trainers.failures import NonFiniteError
from trainers.feed import Feed, arrived
from trainers.state import unpack
from trainers.trainer import Trainer
from util.batch import Batch, collate, on_host

pytestmark = pytest.mark.skipif(bool(missing_fakes()), reason=missing_fakes())


def toy(device: FakeDevice, run_dir: Path, **model: object) -> Trainer:
    made = ToyModel(dtype=torch.float32, **model)  # type: ignore[arg-type]
    return toy_trainer(run_dir, model=made, world=Distributed(device=device.device), max_steps=9)


def batch() -> Batch:
    return collate([ToyData()[0, index] for index in range(LENGTH)])


def step(trainer: Trainer) -> None:
    trainer._guarded_step(list(Feed([batch()], trainer.world.device)))


def weights(trainer: Trainer, device: FakeDevice) -> dict[str, list[Tensor]]:
    nets = trainer.model.networks()
    return {name: [device.values(p).clone() for p in net.parameters()] for name, net in nets.items()}


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("read", ["in the next step", "for the log", "before a checkpoint"])
def test_nothing_is_updated_from_a_bad_number_on(tmp_path: Path, read: str) -> None:
    with fake_device("cuda") as device:
        trainer = toy(device, tmp_path, poison_step=2)
        states = []
        for _ in range(2):
            step(trainer)
            states.append(weights(trainer, device))
        first, second = states
        assert same(first["netG"], second["netG"]) and not same(first["netD"], second["netD"])
        with pytest.raises(NonFiniteError, match=r"step 2, phase G: .*G/l1 nan"):
            {
                "in the next step": lambda: step(trainer),
                "for the log": lambda: trainer.guard.numbers(2),
                "before a checkpoint": trainer._save,
            }[read]()
        assert same(second["netG"], weights(trainer, device)["netG"])
        assert same(second["netD"], weights(trainer, device)["netD"])
    assert not list(tmp_path.iterdir())


def test_updates_after_a_bad_one_in_the_same_step_are_left_out_too(tmp_path: Path) -> None:
    with fake_device("cuda") as device:
        trainer = toy(device, tmp_path)
        step(trainer)
        before = weights(trainer, device)
        whole = trainer.model.losses_D  # type: ignore[attr-defined]
        phases = trainer.model.phases()
        phases[0].losses = lambda *shared: {name: loss * float("inf") for name, loss in whole(*shared).items()}
        trainer.model.phases = lambda: phases  # type: ignore[method-assign]
        step(trainer)
        after = weights(trainer, device)
        assert same(before["netD"], after["netD"]) and same(before["netG"], after["netG"])
        with pytest.raises(NonFiniteError, match="step 2, phase D"):
            trainer.guard.settle()


def test_the_host_waits_once_a_step_and_reads_what_a_cpu_reads(tmp_path: Path) -> None:
    real = fit(tmp_path / "real", model=ToyModel(dtype=torch.float32), max_steps=1)
    initial = load_checkpoint(tmp_path / "real/step_0.pt")["model"]
    with fake_device("cuda") as device:
        trainer = toy(device, tmp_path / "fake")
        trainer.model.load_state(initial)
        first = next(iter(trainer.make_loader(0)))
        trainer._guarded_step(list(Feed([first], device.device)))
        device.waits.clear()
        losses, norms = trainer.guard.numbers(1)
        assert device.waits == ["event"] and norms.keys() == real.guard.numbers(1)[1].keys()
        assert losses["D/real"] == pytest.approx(real.guard.numbers(1)[0]["D/real"], rel=1e-6)
        assert trainer.guard.numbers(2) == ({}, {})


def test_a_run_of_a_cpu_goes_on_on_a_gpu(tmp_path: Path) -> None:
    fit(tmp_path / "cpu", model=ToyModel(dtype=torch.float32), max_steps=2)
    path = tmp_path / "cpu/latest.pt"
    saved = load_checkpoint(path)
    with fake_device("cuda") as device:
        trainer = toy(device, tmp_path / "gpu")
        unpack(saved, path, model=trainer.model, ema=None)
        model = trainer.model
        assert isinstance(model, ToyModel)
        counter = model.opt_G.state[model.netG.dec.weight]["step"]
        assert counter.device == device.device and counter.tolist() == 4  # one of G, one of lazy, twice in step 0
        before = weights(trainer, device)
        step(trainer)
        assert not same(before["netG"], weights(trainer, device)["netG"])


def test_a_batch_is_not_used_before_it_is_on_the_device() -> None:
    with fake_device("cuda") as device:
        moved = next(Feed([batch()], device.device))
        with pytest.raises(DeviceMistakeError, match="before it has arrived"):
            moved["image"].sum()
        assert arrived(moved)["image"].sum().device == device.device
        assert not device.waits and on_host(moved)["image"].device.type == "cpu"
