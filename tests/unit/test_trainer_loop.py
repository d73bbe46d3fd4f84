"""The loop: resume bit for bit, non-finite values, phases, intervals, failures of loading and memory."""

from __future__ import annotations

import multiprocessing
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from trainer_toys import ToyData, ToyModel, assert_same, exhaust, fit, stats, toy_trainer

from trainers.best import Score
from trainers.checkpoint import CheckpointError, load_checkpoint
from trainers.distributed import Distributed
from trainers.failures import NonFiniteError
from trainers.logger import read_validations
from trainers.run_dir import BUSY, open_run
from trainers.step import frozen
from trainers.weights import WEIGHTS_FILE
from util.errors import EXIT_NON_FINITE, DataError, UserError
from util.locks import locked


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_run_equals_the_unbroken_one_bit_for_bit(tmp_path: Path, precision: str) -> None:
    shared = {"ema_decay": 0.9, "precision": precision}

    def toy() -> ToyModel:
        return ToyModel(noise=0.1, dtype=torch.float32)

    fit(tmp_path / "a", model=toy(), max_steps=8, **shared)
    fit(tmp_path / "b", model=toy(), max_steps=4, **shared)
    fit(tmp_path / "b", model=toy(), max_steps=8, resume=True, **shared)
    unbroken, resumed = load_checkpoint(tmp_path / "a/latest.pt"), load_checkpoint(tmp_path / "b/latest.pt")
    assert unbroken["step"] == 8 and unbroken["nimg"] == 16
    assert_same(unbroken, resumed)
    assert stats(tmp_path / "a") == stats(tmp_path / "b")
    assert not torch.equal(unbroken["model"]["netG"]["dec.weight"], unbroken["ema"]["netG"]["dec.weight"])


def test_micro_batches_make_the_step_of_one_batch_and_resume(tmp_path: Path) -> None:
    """To the rounding of float64, buffers that forward passes change included."""
    fit(tmp_path / "whole", max_steps=4, batch_size=3)
    fit(tmp_path / "parts", max_steps=4, batch_size=1, accumulate=3)
    whole, parts = load_checkpoint(tmp_path / "whole/latest.pt"), load_checkpoint(tmp_path / "parts/latest.pt")
    assert whole["nimg"] == parts["nimg"] == 12
    for net in ("netG", "netD"):
        for key, value in whole["model"][net].items():
            torch.testing.assert_close(parts["model"][net][key], value, rtol=1e-9, atol=1e-9)
    for a, b in zip(stats(tmp_path / "whole"), stats(tmp_path / "parts"), strict=True):
        assert a["losses"] == pytest.approx(b["losses"], rel=1e-9)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-9)

    noisy = {"batch_size": 1, "accumulate": 3, "ema_decay": 0.9}
    fit(tmp_path / "a", model=ToyModel(noise=0.1), max_steps=4, **noisy)
    fit(tmp_path / "b", model=ToyModel(noise=0.1), max_steps=2, **noisy)
    fit(tmp_path / "b", model=ToyModel(noise=0.1), max_steps=4, resume=True, **noisy)
    assert_same(load_checkpoint(tmp_path / "a/latest.pt"), load_checkpoint(tmp_path / "b/latest.pt"))


@pytest.mark.parametrize(("precision", "kept"), [("fp32", "ieee"), ("tf32", "tf32")])
def test_products_are_rounded_in_both_passes_on_request(precision: str, kept: str, tmp_path: Path) -> None:
    kinds = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [kind.fp32_precision for kind in kinds]
    model, seen = ToyModel(), list[str]()
    model.netG.register_forward_hook(lambda *_: seen.extend(kind.fp32_precision for kind in kinds))
    weight = next(model.netG.parameters())
    weight.register_hook(lambda gradient: seen.extend(kind.fp32_precision for kind in kinds))
    fit(tmp_path, model=model, max_steps=1, precision=precision)
    assert len(seen) >= 4 and set(seen) == {kept}
    assert [kind.fp32_precision for kind in kinds] == before


def test_micro_batches_draw_differently(tmp_path: Path) -> None:
    """The draws of a step are those of its micro-batches, the same in each phase."""
    trainer, seen = toy_trainer(tmp_path, max_steps=1, batch_size=1, accumulate=2), []
    begin = trainer.model.begin_step
    trainer.model.begin_step = lambda batch: (seen.append(float(torch.rand(()))), begin(batch))[1]  # type: ignore
    with open_run(trainer.run_dir, resume=False, world=trainer.world):
        trainer.fit()
    assert len(set(seen)) == 2 and seen[:2] == seen[2:4]


def test_bf16_computes_in_bf16_and_keeps_the_weights_in_fp32(tmp_path: Path) -> None:
    model, seen = ToyModel(dtype=torch.float32), []
    model.netG.dec.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    fit(tmp_path, model=model, max_steps=1, precision="bf16")
    assert set(seen) == {torch.bfloat16}
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.netG.parameters() if p.grad is not None)


def test_lines_after_the_restored_step_are_dropped(tmp_path: Path) -> None:
    fit(tmp_path / "a", max_steps=6)
    fit(tmp_path / "b", max_steps=4, save_every=2)
    for name in ("step_4.pt", "latest.pt"):  # killed after step 4 was logged, with its checkpoint lost
        (tmp_path / "b" / name).unlink()
    with open(tmp_path / "b/stats.jsonl", "a") as file:
        file.write('{"step": 5, "nim')  # cut short
    fit(tmp_path / "b", max_steps=6, resume=True)
    assert stats(tmp_path / "a") == stats(tmp_path / "b")


def test_each_step_draws_anew_and_a_seed_repeats_it(tmp_path: Path) -> None:
    def draws(folder: str, seed: int) -> list[float]:
        trainer, seen = toy_trainer(tmp_path / folder, max_steps=3, seed=seed), []
        begin = trainer.model.begin_step
        trainer.model.begin_step = lambda batch: (seen.append(float(torch.rand(()))), begin(batch))[1]  # type: ignore
        with open_run(trainer.run_dir, resume=False, world=trainer.world):
            trainer.fit()
        return seen

    first = draws("a", 0)
    assert len(set(first)) == 3 and draws("b", 0) == first and not set(draws("c", 1)) & set(first)


def test_phases_every_and_repeat(tmp_path: Path) -> None:
    trainer = fit(tmp_path, max_steps=5, log_every=1)
    assert [("lazy/l2" in line["losses"]) for line in stats(tmp_path)] == [True, False, False, True, False]
    steps = trainer.model.opt_G.state[trainer.model.netG.dec.weight]["step"]  # type: ignore[attr-defined]
    assert steps == 5 + 2 * 2  # G at each step, lazy twice at steps 0 and 3; both phases share one optimiser
    saved = load_checkpoint(tmp_path / "latest.pt")
    assert list(saved["optimizers"]) == ["D", "G"]
    assert stats(tmp_path)[0]["lr"] == {"D": 4e-3, "G": 1e-3, "lazy": 1e-3}
    assert stats(tmp_path)[-1]["nimg"] == 10


def test_loss_weights_scale_the_gradient(tmp_path: Path) -> None:
    plain = fit(tmp_path / "a", max_steps=1)
    model = ToyModel()
    model.loss_weights = {"G/l1": 20.0, "G/gan": 2.0}
    doubled = fit(tmp_path / "b", model=model, max_steps=1)
    (losses, norms), (plain_losses, plain_norms) = doubled.guard.numbers(1), plain.guard.numbers(1)
    assert norms["G"] == pytest.approx(2 * plain_norms["G"], rel=1e-12)
    assert norms["D"] == plain_norms["D"]
    assert losses["G/l1"] == plain_losses["G/l1"]  # logged unweighted


def test_frozen_leaves_the_named_networks_and_restores_the_rest() -> None:
    model = ToyModel()
    model.netD.body[0].conv.bias.requires_grad_(False)  # frozen by its method: stays so
    with frozen(model, keep=("netG",)):
        assert all(p.requires_grad for p in model.netG.parameters())
        assert not any(p.requires_grad for p in model.netD.parameters())
    assert [n for n, p in model.netD.named_parameters() if not p.requires_grad] == ["body.0.conv.bias"]


@pytest.mark.parametrize("poison", ["G/l1", "G/gan"])
def test_non_finite_loss_stops_before_the_update(tmp_path: Path, poison: str) -> None:
    trainer = toy_trainer(tmp_path, model=ToyModel(poison_step=3, poison=poison), max_steps=5, save_every=1)
    weights: list[torch.Tensor] = []
    begin = trainer.model.begin_step
    trainer.model.begin_step = lambda b: (begin(b), weights.append(trainer.model.netG.dec.weight.clone()))[0]  # type: ignore
    with pytest.raises(NonFiniteError, match=rf"step 3, phase G.*{poison} nan.*netG\.enc\.conv\.weight") as caught:
        trainer.fit()
    assert caught.value.exit_code == EXIT_NON_FINITE
    assert torch.equal(weights[-1], trainer.model.netG.dec.weight)  # type: ignore[attr-defined]
    assert load_checkpoint(tmp_path / "latest.pt")["step"] == 2


def test_non_finite_gradient_with_finite_losses_is_found(tmp_path: Path) -> None:
    model = ToyModel()
    model.netG.dec.bias.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(NonFiniteError, match=r"phase G.*Gradients: netG\.dec\.bias\. "):
        fit(tmp_path, model=model, max_steps=2)


def test_zero_steps_write_the_initial_checkpoint(tmp_path: Path) -> None:
    trainer = fit(tmp_path, max_steps=0)
    saved = load_checkpoint(tmp_path / "step_0.pt")
    assert saved["step"] == 0
    assert_same(saved["model"], trainer.model.state())


def test_intervals_of_logging_saving_and_pictures(tmp_path: Path) -> None:
    drawn: list[bool] = []
    model = ToyModel()

    def preview() -> np.ndarray:
        drawn.append(model.netG.training or torch.is_grad_enabled())
        return np.full((4, 6, 3), 7, np.uint8)

    fit(tmp_path, model=model, max_steps=7, log_every=3, save_every=2, image_every=3, preview=preview, keep=3)
    assert [line["step"] for line in stats(tmp_path)] == [1, 3, 6]
    assert sorted(p.name for p in tmp_path.glob("*.pt")) == ["latest.pt", "step_4.pt", "step_6.pt", "step_7.pt"]
    assert sorted(p.name for p in (tmp_path / "images").iterdir()) == [
        "step_0000003.png",
        "step_0000006.png",
        "step_0000007.png",
    ]
    assert np.asarray(Image.open(tmp_path / "images/step_0000003.png")).shape == (4, 6, 3)
    assert drawn == [False, False, False] and model.netG.training


def test_preview_shows_the_average_and_leaves_training_alone(tmp_path: Path) -> None:
    model = ToyModel()
    seen: list[torch.Tensor] = []

    def preview() -> np.ndarray:
        seen.append(model.netG.dec.weight.clone())
        torch.rand(3)  # a draw of its own must not shift the run's
        return np.zeros((2, 2, 3), np.uint8)

    trainer = fit(tmp_path / "a", model=model, max_steps=2, image_every=1, preview=preview, ema_decay=0.5)
    assert trainer.ema is not None and torch.equal(seen[-1], trainer.ema.state()["netG"]["dec.weight"])
    plain = fit(tmp_path / "b", max_steps=2, ema_decay=0.5)
    assert_same(trainer.state(), plain.state())


def test_fresh_start_into_a_used_folder_and_resume_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint to continue from.*without --continue_train"):
        fit(tmp_path / "a", max_steps=1, resume=True)
    assert not (tmp_path / "a").exists()
    fit(tmp_path / "a", max_steps=1)
    with pytest.raises(UserError, match=r"already holds checkpoints.*--continue_train.*--name"):
        fit(tmp_path / "a", max_steps=1)


def test_weights_without_a_checkpoint_are_not_trained_over(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS_FILE).touch()
    for resume in (False, True):
        with pytest.raises(UserError, match=r"holds converted or exported weights.*another --name"):
            fit(tmp_path, max_steps=1, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS_FILE]


def test_two_runs_cannot_write_in_one_folder(tmp_path: Path) -> None:
    run = partial(open_run, tmp_path, resume=False, world=Distributed())
    with locked(tmp_path, busy=BUSY), pytest.raises(UserError, match=r"another process is training"), run():
        pass
    with run():  # free again
        pass


def test_workers_of_a_killed_run_do_not_hold_its_lock(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    started = fork.Event()

    def work() -> None:
        started.set()
        time.sleep(60)

    with locked(tmp_path, busy=BUSY):
        worker = fork.Process(target=work, daemon=True)
        worker.start()
        assert started.wait(30)
    try:  # the worker, forked while the lock was held, outlives it
        with locked(tmp_path, busy=BUSY):
            assert worker.is_alive()
    finally:
        worker.kill()
        worker.join()


def test_resume_says_which_options_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, max_steps=1, options={"batch_size": 2, "lr": 1e-4, "max_steps": 1})
    fit(tmp_path, max_steps=2, options={"batch_size": 4, "lr": 1e-4, "max_steps": 2}, resume=True)
    out = capsys.readouterr().out
    assert "continuing from" in out and "batch_size: 2 -> 4" in out and "lr:" not in out and "max_steps" not in out


def test_resume_with_another_network_names_the_file(tmp_path: Path) -> None:
    fit(tmp_path, max_steps=1)
    model = ToyModel()
    model.netG.dec = torch.nn.Conv2d(6, 3, 1).double()
    with pytest.raises(CheckpointError, match=r"step_1\.pt: does not fit the model.*opt\.yaml"):
        fit(tmp_path, model=model, max_steps=2, resume=True)


def test_average_switched_on_in_a_resumed_run_begins_at_its_weights(tmp_path: Path) -> None:
    fit(tmp_path, max_steps=2)
    trainer = fit(tmp_path, max_steps=2, resume=True, ema_decay=0.99)
    assert trainer.ema is not None
    assert_same(trainer.ema.state()["netG"], dict(trainer.model.state()["netG"]))


@pytest.mark.parametrize("workers", [0, 1])
def test_unusable_picture_saves_and_names_the_file(tmp_path: Path, workers: int) -> None:
    with pytest.raises(DataError) as caught:
        fit(tmp_path, max_steps=5, data=ToyData(broken=2), workers=workers)
    assert str(caught.value) == "images/2.png: cannot be read"  # without the worker's trace
    assert (tmp_path / "latest.pt").exists()


def test_killed_loader_process_is_explained_and_the_state_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data worker died.*--num_workers"):
        fit(tmp_path, max_steps=5, data=ToyData(killed=2), workers=1)
    assert (tmp_path / "latest.pt").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_out_of_memory_names_the_flags(tmp_path: Path, error: Exception) -> None:
    trainer = toy_trainer(tmp_path, max_steps=1)
    trainer.model.begin_step = lambda batch: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"out of memory.*--batch_size.*--crop_size.*bf16"):
        trainer.fit()


def test_out_of_memory_before_an_update_saves_the_step_before(tmp_path: Path) -> None:
    for method, saved in (("losses_D", 2), ("losses_G", 0)):  # D is updated first; then the state is half a step's
        trainer = toy_trainer(tmp_path / method, max_steps=5)
        exhaust(trainer, method, step=2)
        with (
            open_run(trainer.run_dir, resume=False, world=trainer.world),
            pytest.raises(UserError, match="out of memory"),
        ):
            trainer.fit()
        assert load_checkpoint(tmp_path / method / "latest.pt")["step"] == saved
    fit(tmp_path / "whole", max_steps=2)
    rescued, whole = (load_checkpoint(tmp_path / name / "latest.pt") for name in ("losses_D", "whole"))
    assert_same(rescued["optimizers"], whole["optimizers"])


def test_out_of_memory_in_a_preview_ends_previews_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def preview() -> np.ndarray:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    trainer = fit(tmp_path, max_steps=2, image_every=1, preview=preview)
    assert trainer.step == 2
    assert capsys.readouterr().out.count("no more previews: out of memory") == 1


def test_a_failed_validation_saves_and_is_made_again(tmp_path: Path) -> None:
    """The resumed run is the unbroken one: its log, its best checkpoint and what its checkpoints know of that."""
    values, broken = {2: 3.0, 4: 1.0, 6: 2.0}, {4}

    def validate(weights: str) -> Score:
        step = int(weights.removeprefix("step "))
        if step in broken:
            raise DataError("val/3.png: cannot be read")
        return Score({"l1": values[step]}, first="l1", lower_is_better=True, how="l1")

    def run(name: str, steps: int, **more: Any) -> None:
        fit(tmp_path / name, max_steps=steps, eval_every=2, validate=validate, **more)

    for steps in (4, 6):  # at the end of a run and before
        with pytest.raises(DataError, match=r"val/3\.png"):
            run(f"broken_{steps}", steps)
        assert load_checkpoint(tmp_path / f"broken_{steps}/latest.pt")["step"] == 4
    with pytest.raises(DataError, match=r"val/3\.png"):
        run("broken_6", 6, resume=True)
    broken.clear()
    for steps in (4, 6):
        run(f"broken_{steps}", steps, resume=True)
        run(f"whole_{steps}", steps)
        ours, theirs = tmp_path / f"broken_{steps}", tmp_path / f"whole_{steps}"
        for file in ("latest.pt", "step_4.pt", "best.pt"):
            if (theirs / file).exists():
                assert_same(load_checkpoint(ours / file), load_checkpoint(theirs / file))
        assert (ours / "step_4.pt").exists() and load_checkpoint(ours / "step_4.pt")["best"]["step"] == 4
        assert read_validations(ours) == read_validations(theirs)


def test_a_best_checkpoint_that_cannot_be_written_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise UserError("best.pt: the disk is full")

    monkeypatch.setattr("trainers.trainer.save_checkpoint", full)
    score = Score({"l1": 1.0}, first="l1", lower_is_better=True, how="l1")
    with pytest.raises(UserError, match="disk is full"):
        fit(tmp_path, max_steps=3, eval_every=2, validate=lambda weights: score)
    saved = load_checkpoint(tmp_path / "latest.pt")
    assert (saved["step"], saved["best"], read_validations(tmp_path)) == (2, None, [])


def test_a_preview_that_fails_otherwise_loses_no_step(tmp_path: Path) -> None:
    def preview() -> np.ndarray:
        raise RuntimeError("mat1 and mat2 must have the same dtype")

    with pytest.raises(RuntimeError, match="same dtype"):
        fit(tmp_path, max_steps=5, image_every=3, preview=preview)
    assert load_checkpoint(tmp_path / "latest.pt")["step"] == 3


def test_other_runtime_errors_pass_as_they_are(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, max_steps=1)
    trainer.model.begin_step = lambda batch: torch.ones(2) @ torch.ones(3)  # type: ignore
    with pytest.raises(RuntimeError, match="size"):
        trainer.fit()
