"""A small folder of object crops, for the tests of the data set and of what is built on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {
    "num_classes": 2,
    "classes": [{"id": 0, "name": "car", "scene_id": 26}, {"id": 1, "name": "person", "scene_id": 24}],
}
COUNTS = {"car": {"train": 5, "test": 2}, "person": {"train": 2, "test": 1}}
WIDTHS = {"car": 64, "person": 32}


def crop_of(kind: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy picture (64, W, 3) and an ellipse (64, W) of 0 and 255 in it."""
    width = WIDTHS[kind]
    rng = np.random.RandomState([number, width])
    y, x = np.mgrid[:64, :width]
    height, across = rng.uniform(20, 30), rng.uniform(0.3, 0.45) * width
    ellipse = ((y - 32) / height) ** 2 + ((x - width / 2) / across) ** 2 <= 1
    image = rng.randint(0, 256, (16, width // 4, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    return image, ellipse.astype(np.uint8) * 255


def make_objects(root: Path, counts: dict[str, dict[str, int]] = COUNTS) -> Path:
    """Write the folder and return it; stems of persons begin with their class, those of cars do not."""
    for k, (kind, splits) in enumerate(counts.items()):
        for s, (split, count) in enumerate(splits.items()):
            folder = root / kind / split
            for part in ("images", "inst_mask"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                stem = f"{'person_' if kind == 'person' else ''}p{i}"
                image, mask = crop_of(kind, 100 * k + 10 * s + i)
                Image.fromarray(image).save(folder / "images" / f"{stem}.png")
                Image.fromarray(mask).save(folder / "inst_mask" / f"{stem}.png")
    (root / "classes.json").write_text(json.dumps(CLASSES))
    return root
