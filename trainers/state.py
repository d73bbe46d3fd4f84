"""What a checkpoint holds, and how it goes back into a model.

It holds no random states: a step's draws and samples are functions of (seed, step).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from models.base_model import BaseModel
from trainers.checkpoint import MISFITS, CheckpointError, are_networks, does_not_fit
from trainers.ema import EMA

FORMAT = 1
_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "step": (lambda value: isinstance(value, int), "a number"),
    "nimg": (lambda value: isinstance(value, int), "a number"),
    "model": (are_networks, "tensors by network"),
    "optimizers": (lambda value: isinstance(value, Mapping), "states by phase"),
    "ema": (lambda value: value is None or are_networks(value), "tensors by network"),
    "options": (lambda value: isinstance(value, Mapping), "values by name"),
}
# Flags that may change when a run is continued without affecting its weights.
FREE_TO_CHANGE = frozenset(
    "cache checkpoints_dir config continue_train dataroot dist_timeout estimate eval_args eval_every "
    "image_every keep log_every max_steps name num_workers save_every style_bank_pictures tensorboard".split()
)


def pack(*, step: int, nimg: int, model: BaseModel, ema: EMA | None, options: dict[str, Any],
         best: Mapping[str, Any] | None = None) -> dict[str, Any]:  # fmt: skip
    """Return everything that the rest of the run depends on, as tensors and plain values.

    Args:
        best: of `trainers.best`, the best validation so far.
    """
    return {
        "format": FORMAT,
        "step": step,
        "nimg": nimg,
        "model": model.state(),
        "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers(model).items()},
        "ema": ema.state() if ema else None,
        "options": options,
        "best": best,
    }


def unpack(state: dict[str, Any], path: Path, *, model: BaseModel, ema: EMA | None) -> None:
    """Load networks, optimisers and averages; an average that is new to the run starts from the loaded weights.

    Raises:
        CheckpointError: the file at `path` was written by another method, architecture or version, or is incomplete.
    """
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: has format {state.get('format')}, this version reads {FORMAT}")
    for name, (fits, wanted) in _FORMS.items():
        if name not in state or not fits(state[name]):
            raise CheckpointError(
                f"{path}: no checkpoint of training: its '{name}' is missing or is not {wanted}. Remove the file to go "
                "on from the one before it"
            )
    try:
        model.load_state(state["model"])
        for name, optimizer in optimizers(model).items():
            _load_moments(optimizer, state["optimizers"][name])
        if ema:
            ema.load_state(state["ema"] or state["model"])
    except MISFITS as error:
        raise does_not_fit(path, error) from error


def _load_moments(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load an optimiser's state except its hyperparameters, which are options and may change on resuming.

    Among them is `fused`, on which it depends whether the step counters lie on the device.
    """
    kept = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    groups = [{**saved, **values} for saved, values in zip(state["param_groups"], kept, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})


def optimizers(model: BaseModel) -> dict[str, Optimizer]:
    """Return the optimisers by the name of the first phase that uses them: phases may share one."""
    distinct: dict[str, Optimizer] = {}
    for phase in model.phases():
        if not any(phase.optimizer is known for known in distinct.values()):
            distinct[phase.name] = phase.optimizer
    return distinct


def changed_options(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return 'name: old -> new' for each value in which a resumed run differs from the original one."""
    names = sorted((old.keys() | new.keys()) - FREE_TO_CHANGE)
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in names if old.get(name) != new.get(name)]
