"""One step of training: the updates of its phases, from one batch or from several micro-batches (`--accumulate`).

With micro-batches, an update's gradient is the mean over them: that of one batch of all their pictures, to rounding,
where no layer mixes pictures (batch normalisation does). A shared forward pass would have to be kept for each of them,
which is the memory that accumulation is to save; so it is run anew for every phase, with the same draws and from the
same buffers (the vectors of spectral norm, which a forward pass moves on).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from models.base_model import BaseModel, Phase
from trainers.distributed import Distributed
from trainers.guard import UpdateGuard
from trainers.settings import TrainerSettings
from util.batch import Batch
from util.compiling import compiled_step
from util.device import autocast, tf32
from util.seeds import derive_seed


class Step:
    """Makes the steps of a model.

    Attributes:
        updated: whether any network was changed in the present step.
    """

    def __init__(self, model: BaseModel, *, world: Distributed, guard: UpdateGuard, settings: TrainerSettings) -> None:
        self.model, self.world, self.guard, self.settings = model, world, guard, settings
        self.updated = False

    def make(self, batches: Sequence[Batch], number: int) -> None:
        """Make step `number`, counted from 0."""
        self.updated = False
        self.model.step = number
        settings = self.settings
        with tf32(settings.precision == "tf32"), compiled_step(settings.compile):  # in the backward passes too
            passes: Pass | Replay = Pass(self, batches[0]) if len(batches) == 1 else Replay(self, batches)
            for phase in self.model.phases():
                if number % phase.every == 0:
                    for _ in range(phase.repeat):
                        self._update(phase, passes)
        self.guard.end_step()

    def begin(self, batch: Batch, *micro: int) -> Any:
        """Return what the losses of a batch share; `micro`: its number among the micro-batches, if not the first."""
        torch.manual_seed(derive_seed(self.settings.seed, "step", self.model.step, self.world.rank, *micro))
        with self.autocast():
            return self.model.begin_step(batch)

    def _update(self, phase: Phase, passes: Pass | Replay) -> None:
        """One update of the phase's networks; the others neither get gradients nor spend time on them."""
        means: dict[str, Tensor] = {}
        with frozen(self.model, keep=phase.networks):
            for number, shared in enumerate(passes.of(phase)):
                with self.autocast():
                    losses = phase.losses(shared)
                if not losses:
                    return  # all its terms have weight zero
                total = sum(self.model.loss_weights.get(name, 1.0) * loss for name, loss in losses.items())
                if number == 0:
                    self.guard.settle()  # of the step before: here its gradients are still there, the device is busy
                    phase.optimizer.zero_grad(set_to_none=True)
                assert isinstance(total, Tensor)
                (total / passes.count).backward()
                parts = {name: loss.detach() / passes.count for name, loss in losses.items()}
                means = {name: means[name] + part if number else part for name, part in parts.items()}
        norm = get_total_norm(p.grad for g in phase.optimizer.param_groups for p in g["params"] if p.grad is not None)
        if self.guard.allows(self.model.step + 1, phase, means, norm):
            self.updated = True
            phase.optimizer.step()

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context of the run's precision, of its previews too: frozen weights may be held in it.

        Entered anew for each phase: autocast caches cast weights, and a phase must see the last one's update.
        """
        return autocast(self.world.device, self.settings.precision)


class Pass:
    """One batch, whose shared forward pass is run once for all phases."""

    count = 1

    def __init__(self, step: Step, batch: Batch) -> None:
        self.shared = step.begin(batch)

    def of(self, phase: Phase) -> Iterator[Any]:
        """Yield what the losses of a phase take."""
        yield self.shared


class Replay:
    """Micro-batches, whose shared forward passes are run in every phase, one after the other."""

    def __init__(self, step: Step, batches: Sequence[Batch]) -> None:
        self.step, self.batches, self.count = step, batches, len(batches)
        trained = [net for net in step.model.networks().values() if any(True for _ in net.parameters())]
        kept = [(net.state_dict(keep_vars=True), net) for net in trained]  # others are constants, which graphs may hold
        self.buffers = [state[name] for state, net in kept for name, _ in net.named_buffers() if name in state]
        self.initial = self._copied()
        self.reached: list[Tensor] | None = None  # the buffers before the losses of the present phase

    def of(self, phase: Phase) -> Iterator[Any]:
        """Yield what the losses of a phase take; processes exchange their gradients with the last one's."""
        for number, batch in enumerate(self.batches):
            last = number == self.count - 1
            with silent(self.step.model, () if not last else phase.networks):
                self._restore(self.initial)
                shared = self.step.begin(batch, *([number] if number else []))
                self.reached = self.reached or self._copied()
                self._restore(self.reached)
                yield shared
        self.reached = self._copied()

    def _copied(self) -> list[Tensor]:
        return [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()
    def _restore(self, values: list[Tensor]) -> None:
        for buffer, value in zip(self.buffers, values, strict=True):
            buffer.copy_(value)


@contextmanager
def silent(model: BaseModel, exchanging: Sequence[str]) -> Iterator[None]:
    """Let only the networks `exchanging` of a distributed model average their gradients over the processes."""
    with ExitStack() as stack:
        for name, net in model.wrapped().items():
            if name not in exchanging:
                stack.enter_context(net.no_sync())
        yield


@contextmanager
def frozen(model: BaseModel, *, keep: tuple[str, ...]) -> Iterator[None]:
    """Let no parameter require a gradient but those of the networks `keep`.

    A network that a shared forward pass has been through (`begin_step`) may be frozen by another phase in between:
    its graph remains, and gradients flow again once it is unfrozen. This also works under DDP, whose hooks are in it.
    """
    off = [p for name, net in model.networks().items() if name not in keep for p in net.parameters() if p.requires_grad]
    for parameter in off:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in off:
            parameter.requires_grad_(True)
