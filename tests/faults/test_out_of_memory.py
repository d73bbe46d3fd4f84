"""Memory that runs out while pictures are generated or a step is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_toys import exhaust, fit, toy_trainer

import test as test_command
import train as train_command
from models import MODELS
from models.base_cascade_gan import CascadeGAN
from trainers.checkpoint import load_checkpoint
from trainers.run_dir import open_run
from util.errors import UserError

QUICK = ["--num_workers", "0", "--device", "cpu"]


@pytest.mark.fault("21", "GPU memory exhausted in a step (simulated)", sees="which flags need less; the state is saved")
def test_training(ledger: Any, tmp_path: Path) -> None:
    for attempt in ledger.attempts(10):
        with attempt as number:
            trainer = toy_trainer(tmp_path / str(number), max_steps=100)
            exhaust(trainer, ("begin_step", "losses_D")[number % 2], step=number + 1)
            with (
                open_run(trainer.run_dir, resume=False, world=trainer.world),
                pytest.raises(UserError, match=r"out of memory.*--batch_size.*--continue_train"),
            ):
                trainer.fit()
            assert load_checkpoint(trainer.run_dir / "latest.pt")["step"] == number + 1
            fit(trainer.run_dir, max_steps=number + 3, resume=True)


@pytest.mark.fault("21", "GPU memory exhausted in test.py (simulated)", sees="which flags need less")
def test_generation(ledger: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = ["--checkpoints_dir", str(tmp_path), "--name", "run", *QUICK]
    tiny = [*MODELS.get("spmpgan").tiny(tmp_path), "--max_steps", "0", "--no-tensorboard"]
    assert train_command.main([*tiny, *where]) == 0

    def exhausted(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(CascadeGAN, "generate", exhausted)
    for attempt in ledger.attempts(3, quick=1):
        with attempt, pytest.raises(UserError, match=r"out of memory.*--batch_size.*--device cpu"):
            test_command.main([*where, "--metrics", "l1"])
