"""Preview pictures during training: the same few held-out scenes each time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

from models.base_model import BaseModel
from util.batch import CompactBatch, to_device


class Preview:
    """Draws the grid of one batch with the model as it is.

    Args:
        pictures: returns batches, of which the first is drawn; called once, when first needed.
        palette: (N, 3) uint8 colours of the labels.
    """

    def __init__(self, model: BaseModel, pictures: Callable[[], Iterable[CompactBatch]], palette: np.ndarray) -> None:
        self.model, self.pictures, self.palette = model, pictures, palette
        self._batch: CompactBatch | None = None

    def __call__(self) -> np.ndarray:
        """Return the grid (H, W, 3) uint8."""
        if self._batch is None:
            self._batch = next(iter(self.pictures()))
        with torch.no_grad():
            return self.model.preview_grid(to_device(self._batch, self.model.device), self.palette)
