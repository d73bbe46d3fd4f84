"""The one training loop: steps, phases, updates. Methods add phases and losses, never a loop.

A step's samples and random draws are functions of (seed, step), so a resumed run equals an uninterrupted one, bit for
bit on a CPU. `step` counts finished optimiser iterations, `nimg` pictures over all processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from models.base_model import BaseModel, Phase
from trainers.checkpoint import Checkpoints
from trainers.distributed import Distributed
from trainers.ema import EMA
from trainers.failures import MemoryShortageError, out_of_memory_hint
from trainers.guard import UpdateGuard
from trainers.logger import Logger
from trainers.restore import describe_weights
from trainers.settings import TrainerSettings
from trainers.signals import StopSignals
from trainers.state import changed_options, pack, unpack
from util.batch import Batch, to_device
from util.device import autocast
from util.errors import EXIT_INTERRUPTED, EXIT_OK, LostProcessError, UserError
from util.progress import progress
from util.seeds import derive_seed


class Trainer:
    """Trains a model; enter `trainers.run_dir.open_run` first.

    Args:
        model: the method, its networks initialised.
        make_loader: returns the batches from a step on (`BatchKeys(start_step=...)` as a loader's batch sampler).
        run_dir: the run's folder.
        settings: see there.
        world: this process among its peers.
        options: plain values to keep in the checkpoint; a resumed run says which differ.
        preview: draws a picture (H, W, 3) uint8 with the networks as they are, every `image_every` steps.
    """

    def __init__(
        self,
        *,
        model: BaseModel,
        make_loader: Callable[[int], Iterable[Batch]],
        run_dir: Path,
        settings: TrainerSettings,
        world: Distributed,
        options: dict[str, Any] | None = None,
        preview: Callable[[], np.ndarray] | None = None,
    ) -> None:
        self.model, self.make_loader, self.settings, self.world = model, make_loader, settings, world
        self.run_dir, self.options, self.preview = run_dir, options or {}, preview
        self.checkpoints = Checkpoints(run_dir, keep=settings.keep)
        self.step = self.nimg = 0
        self._saved_step: int | None = None
        self._updated = False  # whether any network was, in the present step
        model.to(world.device)
        model.train()
        self.guard = UpdateGuard(model, world)
        averaged = {name: net for name, net in model.networks().items() if name in model.ema_networks}
        self.ema = EMA(averaged, decay=settings.ema_decay) if settings.ema_decay else None

    def fit(self, *, restored: Callable[[], None] = lambda: None) -> int:
        """Train up to `max_steps` and return the exit code: `EXIT_OK`, or `EXIT_INTERRUPTED` after a stop signal.

        Args:
            restored: called once the checkpoint to continue from, if any, has been loaded and fits.

        Raises:
            NonFiniteError: a loss or gradient is NaN or infinite; nothing was updated with it, nothing is saved
                (`UpdateGuard`).
            UserError: out of memory, a checkpoint that cannot be read or written, a picture that cannot be used.
        """
        with StopSignals() as stop:
            if self.settings.resume:
                self._restore()
            restored()
            if self.world.world_size > 1:
                self.model.distribute(partial(self.world.wrap, unused_parameters=self.model.unused_parameters))
            self._logger = Logger(
                self.run_dir,
                enabled=self.world.is_main,
                tensorboard=self.settings.tensorboard,
                start_step=self.step,
            )
            try:
                return self._run(stop)
            finally:
                self._logger.close()
                if self.world.world_size > 1:
                    self.model.distribute(lambda net: net)  # releases DDP, and so the process group

    def _run(self, stop: StopSignals) -> int:
        self._save()  # at once, so that the run can be continued however it ends
        batches = iter(self.make_loader(self.step))
        since, since_step = time.perf_counter(), self.step
        with progress(total=self.settings.max_steps, initial=self.step, unit="step", shown=self.world.is_main) as bar:
            while self.step < self.settings.max_steps:
                batch = self._next(batches)
                self._guarded_step(batch)
                bar.update()
                if self.step == 1 or self._due(self.settings.log_every):
                    elapsed, since = time.perf_counter() - since, time.perf_counter()
                    self._log(bar, elapsed / (self.step - since_step))
                    since_step = self.step
                if self._due(self.settings.image_every):
                    self._draw()
                if self.world.all_any([stop.requested])[0]:
                    self._save()
                    return EXIT_INTERRUPTED
                if self._due(self.settings.save_every):
                    self._save()
        self._save()
        return EXIT_INTERRUPTED if self.world.all_any([stop.requested])[0] else EXIT_OK

    # --- one step --------------------------------------------------------------------------------------------------
    def _guarded_step(self, batch: Batch) -> None:
        """Make a step; if memory runs out before anything was updated, save the state from before it.

        (Vectors that a forward pass updates, such as spectral norm's, may be one pass ahead.)
        """
        try:
            with out_of_memory_hint():
                self._train_step(batch)
        except MemoryShortageError:
            if not self._updated and self.world.world_size == 1:  # the others are in the middle of the step
                self._rescue()
            raise

    def _train_step(self, batch: Batch) -> None:
        torch.manual_seed(derive_seed(self.settings.seed, "step", self.step, self.world.rank))
        self._updated = False
        self.model.step = self.step
        with self._autocast():
            shared = self.model.begin_step(batch)
        for phase in self.model.phases():
            if self.step % phase.every == 0:
                for _ in range(phase.repeat):
                    self._update(phase, shared)
        self.guard.end_step()
        if self.ema:
            self.ema.update()
        self.step += 1
        self.nimg += len(batch["name"]) * self.world.world_size

    def _update(self, phase: Phase, shared: Any) -> None:
        """One update of the phase's networks; the others neither get gradients nor spend time on them.

        Args:
            shared: what `begin_step` returned for this step.
        """
        with frozen(self.model, keep=phase.networks):
            with self._autocast():
                losses = phase.losses(shared)
            if not losses:
                return  # all its terms have weight zero
            total = sum(self.model.loss_weights.get(name, 1.0) * loss for name, loss in losses.items())
            self.guard.settle()  # of the step before: here its gradients are still there, and the device is busy
            phase.optimizer.zero_grad(set_to_none=True)
            assert isinstance(total, Tensor)
            total.backward()
        norm = get_total_norm(p.grad for g in phase.optimizer.param_groups for p in g["params"] if p.grad is not None)
        self.guard.check(self.step + 1, phase, losses, norm)
        self._updated = True
        phase.optimizer.step()

    def _autocast(self) -> AbstractContextManager[object]:
        """Entered anew for each phase: autocast caches cast weights, and a phase must see the last one's update."""
        return autocast(self.world.device, self.settings.precision)

    # --- around the steps ------------------------------------------------------------------------------------------
    def _due(self, every: int) -> bool:
        return bool(every) and self.step % every == 0

    def _next(self, batches: Iterator[Batch]) -> Batch:
        """Return the next batch; if any process has none, all save, since the state between two steps is consistent."""
        batch, problem = None, None
        try:
            batch = to_device(next(batches), self.world.device)
        except UserError as error:
            problem = error
        if self.world.all_any([problem is not None])[0]:
            self._rescue()
            try:
                raise problem or LostProcessError(
                    "another process of this run has no further pictures; see its message"
                )
            finally:
                del problem  # its traceback refers to this frame: the cycle would keep the loader's processes alive
        assert batch is not None
        return batch

    def _rescue(self) -> None:
        self._save()
        if self.world.is_main:
            print(f"step {self.step} was saved: --continue_train goes on from it", flush=True)

    def _log(self, bar: Any, seconds_per_step: float) -> None:
        losses, norms = self.guard.numbers(self.step)
        losses = self.world.mean(losses)
        rates = {phase.name: phase.optimizer.param_groups[0]["lr"] for phase in self.model.phases()}
        self._logger.log(
            self.step,
            nimg=self.nimg,
            losses=losses,
            lr=rates,
            grad_norm=norms,
            seconds_per_step=seconds_per_step,
        )
        bar.set_postfix({name: f"{value:.4g}" for name, value in losses.items()}, refresh=False)

    def _draw(self) -> None:
        if self.preview is None or not self.world.is_main:
            return
        self.model.eval()
        try:
            with torch.no_grad(), self.averaged(), out_of_memory_hint():
                self._logger.image(self.step, self.preview())
        except UserError as error:  # a failed preview should not end a run
            print(f"warning: no more previews: {error}", flush=True)
            self.preview = None
        self.model.train()

    def averaged(self) -> AbstractContextManager[None]:
        """Let the model hold its averaged weights within the block, if the run has any."""
        return self.ema.swapped() if self.ema else nullcontext()

    @property
    def weights(self) -> str:
        """What `averaged()` holds, in the words of `trainers.restore`."""
        return describe_weights(self.step, averaged=self.ema is not None)

    # --- checkpoints -----------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Return what a checkpoint of the present step holds."""
        return pack(step=self.step, nimg=self.nimg, model=self.model, ema=self.ema, options=self.options)

    def _save(self) -> None:
        if self._saved_step == self.step:
            return
        self.guard.settle()
        sums = [p.detach().double().sum() for net in self.model.networks().values() for p in net.parameters()]
        if not self.world.equal(torch.stack(sums).tolist()):
            raise RuntimeError("the processes' weights differ: a network is trained without BaseModel.call")
        if self.world.is_main:
            self._logger.flush()
            self.checkpoints.save(self.state(), self.step)
        self._saved_step = self.step

    def _restore(self) -> None:
        found = self.checkpoints.restore()
        if found is None:
            raise UserError(f"{self.run_dir}: no checkpoint to continue from")
        state, path = found
        unpack(state, path, model=self.model, ema=self.ema)
        if state["step"] > self.settings.max_steps:
            raise UserError(f"--max_steps {self.settings.max_steps}: {path} is at step {state['step']} already. Give a "
                            "larger number, or none for the run's own.")  # fmt: skip
        self.step, self.nimg = state["step"], state["nimg"]
        self._saved_step = self.step
        if not self.world.equal([float(self.step)]):
            raise UserError(f"{self.run_dir}: the processes read different checkpoints; is this disk shared by all?")
        if self.world.is_main:
            self.checkpoints.point_latest_at(path)
            done = "; nothing is left to train" if self.step == self.settings.max_steps else ""
            print(f"continuing from {path}, step {self.step}{done}", flush=True)
            before = {**self.model.formerly, **state["options"]}
            for change in changed_options(before, self.options):
                print(f"warning: {change}; the run will differ from an uninterrupted one", flush=True)


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
