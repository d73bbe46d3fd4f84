"""No weight is changed by a loss or gradient that is NaN or infinite, and a GPU is not waited for to know it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from models.base_model import BaseModel, Phase
from trainers.distributed import Distributed
from trainers.failures import NonFiniteError, non_finite


@dataclass(frozen=True)
class Update:
    """One update's numbers: its losses, and last the norm of its gradients."""

    step: int
    phase: Phase
    names: tuple[str, ...]
    values: Tensor


class UpdateGuard:
    """Checks each update before it is made.

    On a CPU its numbers are read at once. Reading them from a GPU, the host would wait for all that it has been given
    to do, in every update. There the update itself changes nothing where one before it, or its own numbers, are not
    finite (`found_inf` of PyTorch's fused optimisers); a step's numbers are copied while the GPU goes on, and are read
    within the next step, or earlier where somebody asks for them.

    A process among others does not leave at once, or they would wait for it in the next exchange: it makes no more
    updates, and all stop after the step, when they have told each other.

    Attributes:
        failure: what this process has found, if it is one of several.
    """

    def __init__(self, model: BaseModel, world: Distributed) -> None:
        self.model, self.world = model, world
        self.failure: NonFiniteError | None = None
        self._read_step = 0
        self._losses: dict[str, float] = {}  # of that step, by name
        self._norms: dict[str, float] = {}  # likewise, by phase
        self._last: tuple[Update, dict[str, float]]  # that was read
        self._made: list[Update] = []  # in the present step, unread
        self._copied: tuple[list[Update], Tensor, torch.cuda.Event] | None = None  # of a step, on their way
        self._bad = torch.zeros((), device=world.device)
        for phase in model.phases():
            fuse(phase.optimizer)

    def allows(self, step: int, phase: Phase, losses: dict[str, Tensor], norm: Tensor) -> bool:
        """Return whether to make the optimiser's step, which may itself change nothing; `step` counts from 1.

        Raises:
            NonFiniteError: a number is read at once and is not finite.
        """
        values = torch.stack([v.detach().double() for v in (*losses.values(), norm)])
        update = Update(step, phase, tuple(losses), values)
        if self.world.device.type == "cuda" and _skips(phase.optimizer):
            self._bad = torch.maximum(self._bad, values.isfinite().logical_not().any().float())
            phase.optimizer.found_inf = self._bad  # type: ignore[attr-defined]
            self._made.append(update)
            return True
        self._read([update], values.tolist())
        return self.failure is None

    def end_step(self) -> None:
        """Let the step's numbers come to the host."""
        if self._made:
            values = torch.cat([update.values for update in self._made]).to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            self._copied, self._made = (self._made, values, arrived), []

    def settle(self) -> None:
        """Read the numbers of the step that was ended last, if they have not been.

        Raises:
            NonFiniteError: one is not finite, and there is no other process; nothing was updated with it, nor after it.
        """
        if self._copied is not None:
            (updates, values, arrived), self._copied = self._copied, None
            arrived.synchronize()
            self._read(updates, values.tolist())

    def numbers(self, step: int) -> tuple[dict[str, float], dict[str, float]]:
        """Return the losses of the step just ended, by name, and the norms of its gradients, by phase; see `settle`."""
        self.settle()
        return (self._losses, self._norms) if self._read_step == step else ({}, {})

    def _read(self, updates: list[Update], values: list[float]) -> None:
        for update in updates:
            if update.step != self._read_step:
                self._read_step, self._losses, self._norms = update.step, {}, {}
            count = len(update.names) + 1
            *losses, norm = values[:count]
            values = values[count:]
            named = dict(zip(update.names, losses, strict=True))
            self._losses |= named
            self._norms[update.phase.name] = norm
            self._last = update, named
            if self.failure is None and not np.isfinite([*losses, norm]).all():
                self.failure = self.error()
        if self.failure is not None and self.world.world_size == 1:
            raise self.failure

    def require_sound_state(self) -> None:
        """Check all updates until now; every process must call it.

        Raises:
            NonFiniteError: a number of a process is not finite.
        """
        self.settle()
        if self.world.all_any([self.failure is not None])[0]:
            raise self.error()
        sums = [p.detach().double().sum() for net in self.model.networks().values() for p in net.parameters()]
        if not self.world.equal(torch.stack(sums).tolist()):
            raise RuntimeError("the processes' weights differ: a network is trained without BaseModel.call")

    def error(self) -> NonFiniteError:
        """Return what this process has found, or in its place the last numbers that it has read."""
        update, named = self._last
        networks = {name: self.model.networks()[name] for name in update.phase.networks}
        found = non_finite(step=update.step, phase=update.phase.name, losses=named, networks=networks)
        return self.failure or found


def fuse(optimizer: Optimizer) -> None:
    """Let an optimiser that can do so read and write its memory once a step; call before its first one."""
    if isinstance(optimizer, Adam | SGD):
        for group in optimizer.param_groups:
            group["fused"] = True


def _skips(optimizer: Optimizer) -> bool:
    """Whether an optimiser can be told on the device to change nothing."""
    return all(group.get("fused") for group in optimizer.param_groups)
