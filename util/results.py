"""Files of a test of an editing run: pictures and a grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from util.batch import Batch
from util.errors import UserError
from util.grids import editing_grid, editing_rows
from util.images import save_labels, save_png, to_uint8

GRID_ROWS = 8


class ResultFolder:
    """`fake/`, `fake_2/`, ... (a folder per draw), `real/`, `mask/`, `label/` (ids, in colours), and `grid.png`.

    A picture has the same file name in all of them.

    Args:
        path: the folder.
        count: pictures to come; the grid shows some of them, evenly spread.
        palette: (N, 3) uint8 colours of the labels.
        real_title: what the real pictures are called in the grid.

    Pictures that an earlier run of the same command left here are removed first, so that a folder never mixes two.
    """

    def __init__(self, path: Path, *, count: int, palette: np.ndarray, real_title: str = "truth") -> None:
        self.path, self.palette, self.real_title = path, palette, real_title
        self._rows: list[list[np.ndarray]] = []
        self._shown = set(np.linspace(0, count - 1, min(count, GRID_ROWS)).round().astype(int).tolist())
        self._added = 0
        marker = path / ".pictures"  # these folders were made by this command, even if it did not finish
        if marker.is_file():
            (path / "result.json").unlink(missing_ok=True)
            for folder in (*path.glob("fake*"), path / "real", path / "mask", path / "label"):
                if folder.is_symlink():  # in somebody else's run: other pictures would be removed
                    raise UserError(f"{folder} is a link; remove it, or name another --results_dir")
                for picture in folder.glob("*.png"):
                    picture.unlink()
        path.mkdir(parents=True, exist_ok=True)
        marker.touch()

    def add(self, batch: Batch, draws: list[Tensor]) -> None:
        """Save a batch (on the CPU) and its draws, each (B, 3, H, W) in [-1, 1]."""
        for k, draw in enumerate(draws, start=1):
            self._save("fake" if k == 1 else f"fake_{k}", batch["name"], to_uint8(draw))
        self._save("real", batch["name"], to_uint8(batch["image"]))
        self._save("mask", batch["name"], (batch["mask"][:, 0].numpy() * 255).astype(np.uint8))
        for name, label in zip(batch["name"], batch["label"], strict=True):
            save_labels(label.numpy(), self.palette, self.path / "label" / f"{name}.png")
        for row in editing_rows(batch, draws, self.palette):
            if self._added in self._shown:
                self._rows.append(row)
            self._added += 1

    def finish(self) -> None:
        """Write the grid."""
        save_png(editing_grid(self._rows, last=self.real_title), self.path / "grid.png")

    def _save(self, folder: str, names: list[str], pictures: np.ndarray) -> None:
        for name, picture in zip(names, pictures, strict=True):
            save_png(picture, self.path / folder / f"{name}.png")
