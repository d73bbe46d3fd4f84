"""The overview picture of every editing test: input | mask | labels | result(s) | truth."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from util.batch import Batch
from util.images import colour_labels, picture_grid, to_uint8


def editing_rows(batch: Batch, results: list[Tensor], palette: np.ndarray) -> list[list[np.ndarray]]:
    """Return a row of pictures (H, W, 3) uint8 per sample of a batch.

    Args:
        batch: on the CPU.
        results: composites (B, 3, H, W) in [-1, 1], one per draw.
        palette: (N, 3) uint8.
    """
    truth, erased = to_uint8(batch["image"]), to_uint8(batch["image"] * (1 - batch["mask"]))
    draws = [to_uint8(result) for result in results]
    rows = []
    for b in range(len(batch["name"])):
        mask = (batch["mask"][b, 0].numpy() * 255).astype(np.uint8)
        labels = colour_labels(batch["label"][b].numpy(), palette)
        rows.append([erased[b], mask, labels, *(draw[b] for draw in draws), truth[b]])
    return rows


def editing_grid(rows: list[list[np.ndarray]], *, last: str = "truth") -> np.ndarray:
    """Lay out `editing_rows` under their titles; `last` stands above the real pictures."""
    draws = len(rows[0]) - 4
    results = ["result"] if draws == 1 else [f"result {k + 1}" for k in range(draws)]
    return picture_grid(rows, titles=["input", "mask", "labels", *results, last])
