"""Generation inside a picture of any size: window by window, known pixels untouched."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image
from torch import Tensor

from data.edit.changes import fill_nearest
from data.edit.scenes import Scene
from data.records import MapRules, Maps
from data.samples import make_sample
from data.transforms import scale_short_side
from util.batch import Batch, collate, expand
from util.images import to_uint8
from util.regions import Region, Window

GREY = 128  # of a window without any known pixel


class Painter:
    """Cuts windows to the size of a model and puts its results back.

    Args:
        rules, inst_class_rule: as in `make_sample`.
        crop_size: side of the model's pictures; windows of another side are scaled to it and back (LANCZOS).
    """

    def __init__(self, *, rules: MapRules, inst_class_rule: str, crop_size: int) -> None:
        self.rules, self.inst_class_rule, self.crop_size = rules, inst_class_rule, crop_size

    def batch(self, maps: Maps, mask: np.ndarray, window: Window, name: str) -> Batch:
        """Return a window as a batch of one, on the CPU.

        Erased pixels take the colour of the nearest known one first: the model never sees what they held, not even
        blurred by scaling. A reduced pixel is erased if any of its pixels is.
        """
        assert maps.inst is not None
        rows_columns = window.slices
        erased = mask[rows_columns]
        image = maps.image[rows_columns]
        if erased.any():
            # Differs from SPMPGAN, inference: its coarser stages see the true picture blurred across the mask's edge
            image = np.full_like(image, GREY) if erased.all() else fill_nearest(image, erased)
        cut = scale_short_side(Maps(image, maps.label[rows_columns], maps.inst[rows_columns]), self.crop_size)
        if window.side != self.crop_size:
            coverage = Image.fromarray(erased.astype(np.float32))
            erased = np.array(coverage.resize((self.crop_size, self.crop_size), Image.Resampling.BOX)) > 0
        sample = make_sample(cut, erased, rules=self.rules, inst_class_rule=self.inst_class_rule, name=name)
        return expand(collate([sample]))

    def paint(self, scene: Scene, regions: list[Region], generate: Callable[[Batch, int], Tensor]) -> np.ndarray:
        """Return the picture (H, W, 3) uint8 with its erased pixels generated; all others are unchanged.

        Args:
            scene: with a mask that `regions` were planned for.
            regions: painted in this order; a window sees the results of earlier ones.
            generate: called with a batch of one and the number of the window, returns (1, 3, S, S) in [-1, 1].
        """
        image, todo = scene.image.copy(), scene.mask.copy()
        number = 0
        for region in regions:
            for window in region.windows:
                here = todo[window.slices] & region.mask[window.slices]
                if not here.any():
                    continue
                batch = self.batch(Maps(image, scene.label, scene.inst), todo, window, scene.name)
                fake = to_uint8(generate(batch, number))[0]
                if window.side != self.crop_size:
                    side = (window.side, window.side)
                    fake = np.array(Image.fromarray(fake).resize(side, Image.Resampling.LANCZOS))
                image[window.slices][here] = fake[here]
                todo[window.slices][here] = False
                number += 1
        return image
