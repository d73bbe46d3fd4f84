"""What a test run leaves on the disk: pictures, a grid, a line of numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from util.batch import Batch
from util.grids import editing_grid, editing_rows
from util.images import colour_labels, save_png, to_uint8

GRID_ROWS = 8


class ResultFolder:
    """`fake/`, `fake_2/`, ... (a folder per draw), `real/`, `mask/`, `label/` (coloured), and `grid.png`.

    A picture has the same file name in all of them.

    Args:
        path: the folder.
        palette: (N, 3) uint8 colours of the labels.
        real_title: what the real pictures are called in the grid.

    Pictures that an earlier run of the same command left here are removed first, so that a folder never mixes two.
    """

    def __init__(self, path: Path, *, palette: np.ndarray, real_title: str = "truth") -> None:
        self.path, self.palette, self.real_title = path, palette, real_title
        self._rows: list[list[np.ndarray]] = []
        marker = path / "result.json"
        if marker.is_file():
            marker.unlink()
            for folder in (*path.glob("fake*"), path / "real", path / "mask", path / "label"):
                for picture in folder.glob("*.png"):
                    picture.unlink()
        path.mkdir(parents=True, exist_ok=True)

    def add(self, batch: Batch, draws: list[Tensor]) -> None:
        """Save a batch (on the CPU) and its draws, each (B, 3, H, W) in [-1, 1]."""
        for k, draw in enumerate(draws, start=1):
            self._save("fake" if k == 1 else f"fake_{k}", batch["name"], to_uint8(draw))
        self._save("real", batch["name"], to_uint8(batch["image"]))
        self._save("mask", batch["name"], (batch["mask"][:, 0].numpy() * 255).astype(np.uint8))
        coloured = np.stack([colour_labels(label.numpy(), self.palette) for label in batch["label"]])
        self._save("label", batch["name"], coloured)
        if len(self._rows) < GRID_ROWS:
            self._rows += editing_rows(batch, draws, self.palette)

    def finish(self, line: dict[str, Any], metrics_file: Path) -> None:
        """Write the grid and the numbers, and append these to the run's `metrics.jsonl`."""
        save_png(editing_grid(self._rows[:GRID_ROWS], last=self.real_title), self.path / "grid.png")
        (self.path / "result.json").write_text(json.dumps(line, indent=1) + "\n")
        with metrics_file.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _save(self, folder: str, names: list[str], pictures: np.ndarray) -> None:
        for name, picture in zip(names, pictures, strict=True):
            save_png(picture, self.path / folder / f"{name}.png")
