"""One style picture for S2PreST: squeezed to a square, flipped at random (InST's `ldm/data/personalized.py`)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from data import DATASETS
from data.base_dataset import BaseDataset
from data.records import MapRules, Maps
from data.samples import make_sample
from data.sampling import Sampling
from util.batch import CompactSample
from util.class_table import EMPTY_TABLE
from util.errors import DataError, UserError
from util.opt import Opt
from util.pictures import read_photo
from util.seeds import derive_seed, random_pair
from util.shared_flags import add_shared

SMALLEST = 32  # pixels a side


@DATASETS.register("style_image")
class StyleImageDataset(BaseDataset):
    """The same picture in every epoch; it has no labels (one class), and nothing is ever erased.

    Samples have one more key: `flip` (0 or 1).
    """

    summary = "one style picture (--style_image), for s2prest"
    scenes = False

    def __init__(self, *, path: Path, split: str, sampling: Sampling) -> None:
        self.path = path
        rules = MapRules(label_nc=1)
        super().__init__(names=[path.stem], split=split, classes=EMPTY_TABLE, rules=rules, sampling=sampling)

    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        if is_train:
            add_shared(parser, "style_image")
        parser.set_defaults(cache="ram")

    @classmethod
    def complete_options(cls, opt: Opt) -> dict[str, Any]:
        return {"label_nc": 1, "load_size": 0}

    @classmethod
    def from_options(cls, opt: Opt, *, split: str, augment: bool, task: str) -> Self:
        style = getattr(opt, "style_image", None)
        if not style:
            raise UserError("--dataset_mode style_image is one --style_image FILE, for train.py --model s2prest alone")
        path = Path(style)
        if path.is_dir():
            raise UserError(f"--style_image {path} is a folder; name one picture, a run learns one style")
        return cls(path=path, split=split, sampling=Sampling.from_options(opt, augment=augment, task=task))

    def decode(self, index: int) -> Maps:
        picture = read_photo(self.path).rgb
        height, width = picture.shape[:2]
        if min(height, width) < SMALLEST:
            raise DataError(f"{self.path}: {width}x{height}; a style picture needs at least {SMALLEST} pixels a side")
        side = (self.crop_size, self.crop_size)
        squeezed = np.asarray(Image.fromarray(picture).resize(side, Image.Resampling.BICUBIC))
        return Maps(squeezed, np.zeros(side, np.int32), None)

    def compact(self, key: int | tuple[int, int]) -> CompactSample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        maps = self.maps(index)
        flip = self.augment and random_pair(self.seed, "train", epoch, index)[0].random() < 0.5
        image = maps.image[:, ::-1] if flip else maps.image
        nothing = np.zeros(maps.label.shape, np.uint8)
        plain = make_sample(
            Maps(image, maps.label, None), nothing, rules=self.rules, inst_class_rule=self.inst_class_rule,
            name=self.names[index], index=index,
        )  # fmt: skip
        draw = derive_seed(self.seed, "draw", epoch, index)
        return {**plain, "flip": int(flip), "draw": draw}  # type: ignore[typeddict-unknown-key]
