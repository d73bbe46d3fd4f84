"""A picture with its layout and a target, for tests of single images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data.single_image import Reader
from data.single_image_dataset import SingleImageDataset
from util.images import save_png

SKY, GRASS = (0, 253, 255), (0, 249, 0)


def write_example(folder: Path, *, size: tuple[int, int] = (41, 53)) -> Path:
    """A picture, its layout of two halves, and a target; the size is no multiple of 8."""
    rng, (height, width) = np.random.RandomState(0), size
    rows = np.repeat(np.arange(height)[:, None], width, 1)
    for name, line in (("label", height // 2), ("cond/low", height // 3)):
        save_png(np.where((rows > line)[..., None], GRASS, SKY).astype(np.uint8), folder / f"{name}.png")
    save_png(rng.randint(0, 256, (height, width, 3), dtype=np.uint8), folder / "img.png")
    return folder


def dataset(root: Path, **settings: Any) -> SingleImageDataset:
    given: dict[str, Any] = {"root": root, "targets": None, "reader": Reader("colours", 1.0), "tolerance": 64.0}
    return SingleImageDataset(**(given | settings))
