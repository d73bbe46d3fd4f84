"""The one training loop: steps, phases, updates. Methods add phases and losses, never a loop.

A step's samples and random draws are functions of (seed, step), so a resumed run equals an uninterrupted one, bit for
bit on a CPU. `step` counts finished optimiser iterations, `nimg` pictures over all processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from models.base_model import BaseModel
from trainers.best import BEST_FILE, Score
from trainers.checkpoint import Checkpoints, save_checkpoint
from trainers.distributed import Distributed
from trainers.ema import EMA
from trainers.failures import MemoryShortageError, out_of_memory_hint
from trainers.feed import Feed, arrived
from trainers.guard import UpdateGuard
from trainers.logger import Logger, read_validations
from trainers.restore import describe_weights
from trainers.settings import TrainerSettings
from trainers.signals import StopSignals
from trainers.state import changed_options, pack, unpack
from trainers.step import Step
from util.batch import Batch, CompactBatch
from util.compiling import uncompiled
from util.errors import EXIT_INTERRUPTED, EXIT_OK, LostProcessError, UserError
from util.progress import progress


class Trainer:
    """Trains a model; enter `trainers.run_dir.open_run` first.

    Args:
        model: the method, its networks initialised.
        make_loader: returns the batches from a number on (`BatchKeys(start_step=...)` as a loader's batch sampler);
            a step takes `settings.accumulate` of them.
        run_dir: the run's folder.
        settings: see there.
        world: this process among its peers.
        options: plain values to keep in the checkpoint; a resumed run says which differ.
        formerly: what checkpoints meant that do not hold these options.
        preview: draws a picture (H, W, 3) uint8 with the networks as they are; called in the first process alone.
        validate: measures the networks as they are; likewise, with `weights`.
    """

    def __init__(
        self,
        *,
        model: BaseModel,
        make_loader: Callable[[int], Iterable[CompactBatch]],
        run_dir: Path,
        settings: TrainerSettings,
        world: Distributed,
        options: dict[str, Any] | None = None,
        formerly: Mapping[str, Any] | None = None,
        preview: Callable[[], np.ndarray] | None = None,
        validate: Callable[[str], Score] | None = None,
    ) -> None:
        self.model, self.make_loader, self.settings, self.world = model, make_loader, settings, world
        self.run_dir, self.options, self.preview, self.validate = run_dir, options or {}, preview, validate
        self.formerly = formerly or {}
        self.best: Mapping[str, Any] | None = None  # validation, see `trainers.best`
        self.checkpoints = Checkpoints(run_dir, keep=settings.keep)
        self.step = self.nimg = 0
        self._saved_step: int | None = None
        self._validated = 0  # validations up to this step are made
        self._problem: Exception | None = None  # why there is no next batch, or what failed in `_aside`
        settings.set_up(model, world.device)
        self.guard = UpdateGuard(model, world)
        self.steps = Step(model, world=world, guard=self.guard, settings=settings)
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
            with self.world.together():
                restored()
            if self.world.world_size > 1:
                self.model.distribute(partial(self.world.wrap, unused_parameters=self.model.unused_parameters))
            tensorboard, enabled = self.settings.tensorboard, self.world.is_main
            self._logger = Logger(self.run_dir, enabled=enabled, tensorboard=tensorboard, start_step=self.step)
            try:
                return self._run(stop)
            finally:
                self._logger.close()
                if self.world.world_size > 1:
                    self.model.distribute(lambda net: net)  # releases DDP, and so the process group

    def _run(self, stop: StopSignals) -> int:
        self._save()  # at once, so that the run can be continued however it ends
        batches = Feed(self.make_loader(self.step * self.settings.accumulate), self.world.device)
        start, since, since_step = self.step, time.perf_counter(), self.step
        with progress(total=self.settings.max_steps, initial=self.step, unit="step", shown=self.world.is_main) as bar:
            while True:
                upcoming = self._fetch(batches, wanted=not stop.requested)
                logs = self.step > start and (self.step == 1 or self._due(self.settings.log_every))
                (stopped, failed), losses = self._agree([stop.requested, self._problem is not None], logs=logs)
                if logs:
                    elapsed, since = time.perf_counter() - since, time.perf_counter()
                    self._log(bar, losses, elapsed / (self.step - since_step))
                    since_step = self.step
                if self.step > start and self._due(self.settings.image_every):
                    self._aside(self._draw)
                if self.step > self._validated and self._due(self.settings.eval_every):
                    self._aside(self._validate)
                    self._saved_step = None  # one that was saved because this failed is without it
                if stopped:
                    self._save()
                    return EXIT_INTERRUPTED
                if failed:
                    self._give_up()
                if self.step == self.settings.max_steps:
                    break
                if self.step == start or self._due(self.settings.save_every):
                    self._save()
                self._guarded_step(upcoming)
                bar.update()
        self._save()
        if self.step > start and self.settings.image_every and not self._due(self.settings.image_every):
            self._aside(self._draw)
        return EXIT_INTERRUPTED if self.world.all_any([stop.requested])[0] else EXIT_OK

    # --- one step --------------------------------------------------------------------------------------------------
    def _fetch(self, batches: Feed, *, wanted: bool) -> list[Batch]:
        """Return the next step's micro-batches, while the device works on the last step; none if one is unusable."""
        if not wanted or self.step == self.settings.max_steps:
            return []
        try:
            return [next(batches) for _ in range(self.settings.accumulate)]
        except UserError as error:
            self._problem = error
            return []

    def _agree(self, flags: list[bool], *, logs: bool) -> tuple[list[bool], dict[str, float]]:
        """Return which flags any process has set and, if `logs`, the mean losses of the step just made.

        The one exchange of a step beside the gradients'.

        Raises:
            NonFiniteError: a number of a process is not finite.
        """
        losses = self.guard.numbers(self.step)[0] if logs else {}
        (bad, *agreed), means = self.world.agree([self.guard.failure is not None, *flags], losses)
        if bad:
            raise self.guard.error()
        return agreed, means

    def _guarded_step(self, batches: list[Batch]) -> None:
        """Make a step; if memory runs out before anything was updated, save the state from before it.

        (Vectors that a forward pass updates, such as spectral norm's, may be one pass ahead.)
        """
        try:
            with out_of_memory_hint():
                self._train_step([arrived(batch) for batch in batches])
        except MemoryShortageError:
            if not self.steps.updated and self.world.world_size == 1:  # the others are in the middle of the step
                self._rescue()
            raise

    def _train_step(self, batches: list[Batch]) -> None:
        self.steps.make(batches, self.step)
        if self.ema:
            self.ema.update()
        self.step += 1
        self.nimg += sum(len(batch["name"]) for batch in batches) * self.world.world_size

    # --- around the steps ------------------------------------------------------------------------------------------
    def _due(self, every: int) -> bool:
        return bool(every) and self.step % every == 0

    def _give_up(self) -> NoReturn:
        """Save, since the state between two steps is consistent, and raise why a process cannot go on."""
        self._rescue()
        # Not kept here: its traceback refers to this object, and the cycle would keep the loader's processes alive
        problem, self._problem = self._problem, None
        try:
            raise problem or LostProcessError("another process of this run cannot go on; see its message")
        finally:
            del problem

    def _rescue(self) -> None:
        self._save()
        if self.world.is_main:
            print(f"step {self.step} was saved: --continue_train goes on from it", flush=True)

    def _log(self, bar: Any, losses: dict[str, float], seconds_per_step: float) -> None:
        norms = self.guard.numbers(self.step)[1]
        rates = {phase.name: phase.optimizer.param_groups[0]["lr"] for phase in self.model.phases()}
        speed = {"seconds_per_step": round(seconds_per_step, 4)}
        self._logger.log(self.step, {"nimg": self.nimg, "losses": losses, "lr": rates, "grad_norm": norms, **speed})
        bar.set_postfix({name: f"{value:.4g}" for name, value in losses.items()}, refresh=False)

    def _aside(self, work: Callable[[], None]) -> None:
        """Let the first process do what is no part of training; if it fails, all of them save and give up."""
        failed = False
        with self.world.together():
            try:
                if self.world.is_main:
                    self.model.eval()
                    work()
                    self.model.train()
            except Exception as error:
                self._problem, failed = error, True
        if self.world.all_any([failed])[0]:
            self._give_up()

    def _draw(self) -> None:
        if self.preview is None:
            return
        try:
            with torch.no_grad(), self.averaged(), out_of_memory_hint(), self.steps.autocast():
                self._logger.image(self.step, self.preview())
        except UserError as error:  # a failed preview should not end a run
            print(f"warning: no more previews: {error}", flush=True)
            self.preview = None

    def _validate(self) -> None:
        """Measure the averaged weights, and keep them if they are the best so far."""
        if self.validate is None:
            return
        with self.averaged():
            score = self.validate(self.weights)
        if self.best is None or score.beats(self.best):
            best = score.as_best(self.step)
            save_checkpoint({**self.state(), "best": best}, self.run_dir / BEST_FILE)
            self.best = best
        self._logger.validation(self.step, score.values)  # last, as it tells `_restore` that all is done
        print(f"step {self.step}: {score}; best at step {self.best['step']}", flush=True)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the model hold its averaged weights, if the run has any, and be called without `--compile`."""
        with self.ema.swapped() if self.ema else nullcontext(), uncompiled(self.settings.compile):
            yield

    @property
    def weights(self) -> str:
        """What `averaged()` holds, in the words of `trainers.restore`."""
        return describe_weights(self.step, averaged=self.ema is not None)

    # --- checkpoints -----------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Return what a checkpoint of the present step holds."""
        return pack(step=self.step, nimg=self.nimg, model=self.model, ema=self.ema, options=self.options,
                    best=self.best)  # fmt: skip

    def _save(self) -> None:
        if self._saved_step == self.step:
            return
        self.guard.require_sound_state()
        with self.world.together():
            if self.world.is_main:
                self._logger.flush()
                self.checkpoints.save(self.state(), self.step)
        self._saved_step = self.step

    def _restore(self) -> None:
        with self.world.together():
            restored = self.checkpoints.restore()
            if restored is None:
                raise UserError(f"{self.run_dir}: no checkpoint to continue from")
            state, path = restored
            unpack(state, path, model=self.model, ema=self.ema)
        if state["step"] > self.settings.max_steps:
            raise UserError(f"--max_steps {self.settings.max_steps}: {path} is at step {state['step']} already. Give a "
                            "larger number, or none for the run's own.")  # fmt: skip
        self.step, self.nimg, self.best = state["step"], state["nimg"], state.get("best")
        self._saved_step = self.step
        self._validated = max((step for step, _ in read_validations(self.run_dir) if step <= self.step), default=0)
        if not self.world.equal([float(self.step), float(self._validated)]):
            raise UserError(f"{self.run_dir}: the processes read different checkpoints; is this disk shared by all?")
        if self.world.is_main:
            self.checkpoints.point_latest_at(path)
            done = "; nothing is left to train" if self.step == self.settings.max_steps else ""
            print(f"continuing from {path}, step {self.step}{done}", flush=True)
            for change in changed_options({**self.formerly, **state["options"]}, self.options):
                print(f"warning: {change}; the run will differ from an uninterrupted one", flush=True)
