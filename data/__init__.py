"""Data sets, masks and edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from util.registry import Registry

if TYPE_CHECKING:
    from data.base_dataset import BaseDataset

DATASETS: Registry[BaseDataset] = Registry(flag="--dataset_mode", package="data", suffix="dataset")
