"""Loading of trained runs for generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.base_model import BaseModel
from trainers.best import BEST_FILE
from trainers.checkpoint import MISFITS, CheckpointError, Checkpoints, are_networks, does_not_fit, load_checkpoint
from trainers.weights import WEIGHTS_FILE, load_weights
from util.errors import UserError
from util.files import cause


@dataclass(frozen=True)
class Loaded:
    """Which weights of a run a model holds.

    Args:
        step: optimiser steps that they were trained for.
        name: the same in words, as a style bank remembers it.
        chosen: by what, where they are a run's best.
    """

    step: int
    name: str
    chosen: str | None = None


def describe_weights(step: int, *, averaged: bool) -> str:
    """Return the name of a checkpoint's weights."""
    return f"step {step}, averaged" if averaged else f"step {step}"


def load_run(model: BaseModel, run_dir: Path, *, step: int | str | None = None, averaged: bool = True) -> Loaded:
    """Load a run's networks into `model` and say which weights they are.

    Args:
        step: of `step_<N>.pt`; "best" the best by validation; None takes the newest good checkpoint.
        averaged: take the run's averaged weights where it has any.

    Raises:
        UserError: there is no such checkpoint, or it does not fit the model.
    """
    weights, loaded, path = read_run(run_dir, step=step, averaged=averaged)
    try:
        model.load_state(weights)
    except MISFITS as error:
        raise does_not_fit(path, error) from error
    return loaded


def load_inputs(model: BaseModel, folders: Mapping[str, Path]) -> None:
    """Give a new model the networks of the runs that it builds on, by flag: averaged weights where a run has them."""
    for flag, folder in folders.items():
        networks, loaded, path = read_run(folder, step=None, averaged=True)
        try:
            model.load_input(flag, networks, folder, weights=loaded.name)
        except MISFITS as error:
            raise CheckpointError(f"--{flag} {folder}: {path} is of another method ({cause(error)})") from error


def read_run(run_dir: Path, *, step: int | str | None, averaged: bool) -> tuple[Mapping[str, Any], Loaded, Path]:
    """Return state dicts by network, a description and the file, from a checkpoint or a converted run."""
    checkpoints = Checkpoints(run_dir)
    if step is None and not checkpoints.exist() and (run_dir / WEIGHTS_FILE).is_file():
        networks, trained = load_weights(run_dir / WEIGHTS_FILE)
        return networks, Loaded(trained, WEIGHTS_FILE), run_dir / WEIGHTS_FILE
    if step is None:
        restored = checkpoints.restore()
        if restored is None:
            raise UserError(f"{run_dir}: no checkpoint yet. Train the run, or check --name and --checkpoints_dir.")
        state, path = restored
    elif step == "best":
        path = run_dir / BEST_FILE
        if not path.is_file():
            raise UserError(f"--step best: there is no {path}. train.py --eval_every N keeps it")
        state = load_checkpoint(path)
    else:
        path = run_dir / f"step_{step}.pt"
        if not path.is_file():
            steps = ", ".join(p.stem.removeprefix("step_") for p in checkpoints.step_files()) or "none"
            raise UserError(f"--step {step}: there is no {path}. Steps kept: {steps}")
        state = load_checkpoint(path)
    model, averages, count = state.get("model"), state.get("ema"), state.get("step")
    if not (are_networks(model) and (averages is None or are_networks(averages)) and isinstance(count, int)):
        raise CheckpointError(f"{path}: no checkpoint of training: its 'model', 'ema' or 'step' are missing or odd")
    ema = (averages or {}) if averaged else {}
    best = state.get("best") if step == "best" else None
    chosen = str(best.get("how")) if isinstance(best, Mapping) else None
    return {**model, **ema}, Loaded(count, describe_weights(count, averaged=bool(ema)), chosen), path
