"""Data sets, masks and edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from util.errors import UserError
from util.registry import Registry

if TYPE_CHECKING:
    from data.base_dataset import BaseDataset

DATASETS: Registry[BaseDataset] = Registry(flag="--dataset_mode", package=__name__, suffix="dataset")


def scene_dataset(mode: str) -> type[BaseDataset]:
    """Return the data set of a mode for commands that need scenes; raises `UserError` for other kinds of data."""
    dataset = DATASETS.get(mode)
    if not dataset.scenes:
        raise UserError(f"--dataset_mode {mode}: no scenes with label maps, so this command has no use for it")
    return dataset
