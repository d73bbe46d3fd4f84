"""How long and how often a run trains, logs, draws and saves."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from models.base_model import BaseModel


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Intervals are in steps; 0 means never.

    Attributes:
        max_steps: where training ends; 0 writes the initial checkpoint.
        seed: seed of the run.
        accumulate: micro-batches of a step, see `trainers.step`.
        checkpoint_activations: compute the generators' activations again instead of keeping them.
        compile: mode of `torch.compile`, see `util.compiling`.
        channels_last: whether maps lie channels last in memory; None: as `BaseModel.channels_last` says.
        precision: "fp32", "tf32" (`util.device.tf32`), or "bf16" for autocast.
        ema_decay: of the weights' moving average; 0 = none.
        log_every: between lines of `stats.jsonl`; the first step is always logged.
        save_every: between checkpoints; the end of a run is always saved.
        image_every: between preview pictures; the end of a run is drawn too.
        eval_every: between validations.
        keep: how many step files stay.
        resume: continue from the newest good checkpoint.
        tensorboard: also write TensorBoard events.
    """

    max_steps: int
    seed: int = 0
    accumulate: int = 1
    checkpoint_activations: bool = False
    compile: str = "none"
    channels_last: bool | None = None
    precision: str = "fp32"
    ema_decay: float = 0.0
    log_every: int = 50
    save_every: int = 1000
    image_every: int = 0
    eval_every: int = 0
    keep: int = 2
    resume: bool = False
    tensorboard: bool = True

    def set_up(self, model: BaseModel, device: torch.device) -> None:
        """Move a model to its device, to be trained as these settings say."""
        model.lie_channels_last = self.channels_last
        model.to(device)
        model.train()
        if self.checkpoint_activations:
            model.checkpoint_activations()
        model.compile(self.compile)
