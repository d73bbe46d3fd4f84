"""The interface of a method: its networks, phases and losses, and how it generates.

The trainer's one loop drives `begin_step` and `phases`; a method never writes its own loop.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from models.networks.blocks.recompute import recompute
from util.batch import Batch, CompactBatch, on_host
from util.class_table import ClassTable
from util.compiling import compile_in_place
from util.errors import UserError
from util.grids import editing_grid, editing_rows
from util.opt import Opt

Runs = Mapping[str, Mapping[str, Any]]  # options of runs, and their class tables as "classes", by flag
TrainingPictures = Callable[[int | None], Iterable[CompactBatch]]
"""Returns batches of at most so many pictures of the training split (a seeded choice; None: all), unaugmented, nothing
erased."""


@dataclass
class Phase:
    """One kind of update: the losses' weighted sum is minimised over the parameters of `networks`.

    Args:
        name: as in the log, "D" or "G".
        networks: names (keys of `BaseModel.networks`) whose parameters this phase changes; all others are frozen
            while it runs.
        optimizer: over exactly these parameters.
        losses: called once per update with what `begin_step` returned; returns unweighted scalars, e.g.
            {"G/gan": ..., "G/l1": ...}. One whose weight is zero is logged and nothing else.
        every: run at steps that are multiples of this.
        repeat: updates per run.
    """

    name: str
    networks: tuple[str, ...]
    optimizer: torch.optim.Optimizer
    losses: Callable[[Any], dict[str, Tensor]]
    every: int = 1
    repeat: int = 1


class BaseModel(ABC):
    """A method. Subclasses are registered with `@MODELS.register("<name>")` in `models/<name>_model.py`.

    Attributes:
        loss_weights: weight of each loss by its name; a term of weight zero is not computed.
        step: finished optimiser steps, set by the trainer before `begin_step`.
        lie_channels_last: whether maps lie so in memory; None: on a CPU, where the method takes it. Set it before `to`.
        counters: numbers reported with the results, e.g. how many instances had no style code.
        summary: one line for `--help` and the README.
        formerly: flags that came after there were runs, with what a run whose opt.yaml does not name them did.
    """

    summary: ClassVar[str] = ""
    formerly: ClassVar[Mapping[str, Any]] = {
        "accumulate": 1, "checkpoint_activations": False, "compile": "none", "channels_last": None,
    }  # fmt: skip
    flow: ClassVar[str] = "editing"  # kind of test, see testing/flow.py
    dataset_modes: ClassVar[tuple[str, ...]] = ()  # data sets that it takes; empty: all with `scenes`
    input_runs: ClassVar[tuple[str, ...]] = ()  # flags that name trained runs whose networks this method builds on
    ema_networks: ClassVar[tuple[str, ...]] = ("netG",)
    channels_last: ClassVar[bool] = False  # whether it takes this memory format, which on a CPU is the faster one
    unused_parameters: ClassVar[bool] = False  # whether a step may leave parameters of a phase out (tells DDP)

    def __init__(self) -> None:
        self.loss_weights: dict[str, float] = {}
        self.step = 0
        self.counters: Counter[str] = Counter()
        self.lie_channels_last: bool | None = None
        self._wrapped: dict[str, nn.Module] = {}

    # --- options ---------------------------------------------------------------------------------------------------
    @classmethod
    def own_name(cls) -> str:
        """Return the name that --model takes, which is the file's: `<name>_model.py`."""
        return cls.__module__.split(".")[-1].removesuffix("_model")

    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        """Add this method's flags as a group; `parser.set_defaults` changes shared defaults."""

    @classmethod
    def complete_options(cls, opt: Opt, *, classes: ClassTable, runs: Runs) -> dict[str, Any]:
        """Return values for this method's flags that were not given and follow from others.

        Args:
            opt: parsed options, completed by the data set.
            classes: of the data set.
            runs: those that `input_runs` name; without those that are not given, and empty where a run is resumed or
                tested: its own options are complete.
        """
        return {}

    @classmethod
    @abstractmethod
    def from_options(cls, opt: Opt, *, is_train: bool) -> BaseModel:
        """Build from parsed options; the only place of a method that reads `opt`. Optimisers only if `is_train`."""

    @classmethod
    @abstractmethod
    def tiny(cls, tmp_path: Path) -> list[str]:
        """Return the smallest `train.py` command line with all it needs, for the tests that run over every model."""

    @classmethod
    def tiny_inputs(cls, tmp_path: Path) -> list[list[str]]:
        """Return the `train.py` command lines that make the runs which `tiny` builds on, in their order."""
        return []

    # --- training --------------------------------------------------------------------------------------------------
    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """All networks that the checkpoint holds, by name (`netG`, `netD`, ...)."""

    @abstractmethod
    def phases(self) -> list[Phase]:
        """The updates of one step, in their order."""

    def begin_step(self, batch: Batch) -> Any:
        """Run the forward pass that the phases of this step share, and return what their losses read.

        A value object of the method, by default the batch: the phases share nothing else.
        """
        return batch

    def load_input(
        self, flag: str, networks: Mapping[str, Mapping[str, Tensor]], run_dir: Path, *, weights: str
    ) -> None:
        """Take what a new run needs from a run that it builds on.

        Args:
            flag: of `input_runs`.
            networks: the run's state dicts.
            run_dir: its folder.
            weights: description of these weights.
        """

    def start_run(self, run_dir: Path, *, resumed: bool) -> None:
        """Store in a new run's folder the inputs that testing needs; check them when a run is resumed.

        Only the main process calls it, before the first step.
        """

    # --- inference -------------------------------------------------------------------------------------------------
    @abstractmethod
    def generate(self, batch: Batch, seeds: list[int]) -> Tensor:
        """Return composites (B, 3, H, W) in [-1, 1]: known pixels are the input's. `seeds`: one per picture."""

    def preview(self, batch: Batch) -> Tensor:
        """Return composites as `generate` does, with what is available in training."""
        return self.generate(batch, [0] * len(batch["name"]))

    def preview_grid(self, batch: Batch, palette: np.ndarray) -> np.ndarray:
        """Return the preview picture (H, W, 3) uint8 of a batch; `palette` (N, 3) uint8: colours of the labels."""
        result = self.preview(batch).cpu()
        return editing_grid(editing_rows(on_host(batch), [result], palette))

    def prepare_inference(
        self, run_dir: Path, training_pictures: TrainingPictures, *, weights: str, refresh: bool = False
    ) -> None:
        """Load what generation needs beside the weights, or make it (and store it in `run_dir`).

        Args:
            run_dir: the run's folder.
            training_pictures: of the run.
            weights: which weights of the run are loaded ("step 200, averaged"); those of others are not reused.
            refresh: make it again, as after training.
        """

    def choose_styles(self, source: str) -> None:
        """Choose where styles of fully erased instances come from: "bank", "mean" or "noise"; raises `UserError`."""
        if source != "bank":
            raise UserError(f"--style_source {source}: this run has no style codes; leave the flag out")

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(next(iter(self.networks().values())).parameters()).device

    # --- shared machinery ------------------------------------------------------------------------------------------
    def to(self, device: torch.device) -> BaseModel:
        """Move all networks, and arrange their weights."""
        for net in self.networks().values():
            net.to(device)
            self.arrange(net, device)
        return self

    def arrange(self, net: nn.Module, device: torch.device) -> None:
        """Store the weights of a network in the order of its maps; no value changes."""
        if self.is_channels_last(device):
            net.to(memory_format=torch.channels_last)

    def is_channels_last(self, device: torch.device) -> bool:
        """Whether maps lie channels last on a device."""
        chosen = self.lie_channels_last
        return self.channels_last and device.type == "cpu" if chosen is None else chosen

    def train(self, mode: bool = True) -> BaseModel:
        """Put all networks in training or evaluation mode."""
        for net in self.networks().values():
            net.train(mode)
        return self

    def eval(self) -> BaseModel:
        """Put all networks in evaluation mode."""
        return self.train(False)

    def checkpoint_activations(self) -> None:
        """Keep little of the generators' forward passes, and compute it again for the gradient, which is the same."""
        for name, net in self.networks().items():
            if name in self.ema_networks:
                recompute(net)

    def compiled_parts(self) -> list[nn.Module]:
        """The modules whose forward passes `compile` compiles: by default, every network with parameters to train."""
        return [net for net in self.networks().values() if trains(net)]

    def compile(self, mode: str, *, backend: str | Callable[..., Any] = "inductor") -> None:
        """Let `torch.compile` compile the networks when a step first calls them, each by itself.

        Graphs that reach from one into another would be used by the backward passes of several phases. Names of
        tensors, copies and wrappers stay as they are.

        Args:
            mode: see `util.compiling`.
            backend: of `torch.compile`.
        """
        for part in self.compiled_parts():
            compile_in_place(part, mode, backend)

    def distribute(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        """Wrap every network that has parameters to train (DDP); `call` then goes through the wrapper."""
        trained = {name: net for name, net in self.networks().items() if trains(net)}
        self._wrapped = {name: wrap(net) for name, net in trained.items()}

    def wrapped(self) -> Mapping[str, Any]:
        """The networks that `distribute` has wrapped, by name."""
        return self._wrapped

    def call(self, name: str) -> nn.Module:
        """The network to call where its parameters are trained: wrapped if distributed. Call it once per update."""
        return self._wrapped.get(name) or self.networks()[name]

    def weighted(self, name: str) -> bool:
        """Whether the loss `name` has a non-zero weight, that is, whether to compute it."""
        return bool(self.loss_weights.get(name, 1.0))

    def state(self) -> dict[str, dict[str, Tensor]]:
        """State dicts of all networks."""
        return {name: net.state_dict() for name, net in self.networks().items()}

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Load `state()`; strict."""
        for name, net in self.networks().items():
            net.load_state_dict(state[name])


def trains(net: nn.Module) -> bool:
    """Whether a network has parameters to train."""
    return any(p.requires_grad for p in net.parameters())
