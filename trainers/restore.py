"""A trained run, read for generation."""

from __future__ import annotations

from pathlib import Path

from models.base_model import BaseModel
from trainers.checkpoint import CheckpointError, Checkpoints, load_checkpoint
from util.errors import UserError


def load_run(model: BaseModel, run_dir: Path, *, step: int | None = None, averaged: bool = True) -> int:
    """Load a run's networks into `model` and return the step they are from.

    Args:
        step: of `step_<N>.pt`; None takes the newest good checkpoint.
        averaged: take the run's averaged weights where it has any.

    Raises:
        UserError: there is no such checkpoint, or it does not fit the model.
    """
    checkpoints = Checkpoints(run_dir)
    if step is None:
        found = checkpoints.restore()
        if found is None:
            raise UserError(
                f"{run_dir}: no checkpoint yet. Train the run first, or check --name and --checkpoints_dir."
            )
        state, path = found
    else:
        path = run_dir / f"step_{step}.pt"
        if not path.is_file():
            steps = ", ".join(p.stem.removeprefix("step_") for p in checkpoints.step_files()) or "none"
            raise UserError(f"--step {step}: there is no {path}. Steps kept: {steps}")
        state = load_checkpoint(path)
    weights = {**state["model"], **((state["ema"] or {}) if averaged else {})}
    try:
        model.load_state(weights)
    except (KeyError, RuntimeError) as error:
        first = str(error).strip().splitlines()
        raise CheckpointError(
            f"{path}: does not fit the model ({first[min(1, len(first) - 1)].strip()}). Its architecture comes from "
            "the run's opt.yaml: leave the model's flags out."
        ) from error
    return int(state["step"])
