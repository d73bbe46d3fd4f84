"""One picture with its layout, as SemIA trains on: pairs with an augmented copy, or with target layouts."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data import DATASETS
from data.single_image import (
    KINDS,
    LayoutClasses,
    Reader,
    check_least,
    check_sizes,
    cropped,
    find_classes,
    find_picture,
    find_targets,
    read_opaque,
    require_root,
)
from data.warps import Augmentation, progress
from util.class_table import EMPTY_TABLE, ClassTable
from util.errors import UserError
from util.flags import fraction, positive, positive_int, weight
from util.images import PictureFile, to_tensor
from util.opt import Opt
from util.seeds import random_pair
from util.single_image import SingleImageBatch

COND = "cond"
NOT_HERE: dict[str, tuple[Any, str]] = {  # flags of scenes: their default, what to do instead
    "load_size": (0, "--resize scales the picture"),
    "crop_size": (256, "the whole picture is taken; --resize scales it"),
    "label_map": (None, "repaint the layouts"),
    "ignore_label": (None, "every pixel of a layout counts"),
    "inst_class_rule": ("majority", "there are no instances"),
    "cache": ("none", "the one picture is in memory anyway"),
    "mask_types": (None, "nothing is masked"),
    "mask_schedule": ("random", "nothing is masked"),
    "mask_boxes": (0.0, "nothing is masked"),
}


@DATASETS.register("single_image")  # type: ignore[arg-type]  # no scenes, another item
class SingleImageDataset(Dataset[Any]):
    """Items of one picture: its augmented copies (one item, another one in each epoch), or one per target layout.

    Args:
        root: see `data/single_image.py`.
        targets: files of target layouts; None: the source's own, augmented if `augmentation` is given.
        reader: kind of layouts and size.
        tolerance: see `LayoutClasses`.
        align: layouts' colours snap to the nearest class.
        augmentation, stable_steps: strengths, and epochs (steps) in which they grow to full strength.
        seed: of the augmentation.

    Attributes:
        image, layout: (H, W, 3) uint8 as scaled, not cropped; layouts: its classes.
    """

    summary: ClassVar[str] = "one picture img.*, its layout label.*, target layouts cond/* (SemIA)"
    scenes: ClassVar[bool] = False
    known_masks: ClassVar[tuple[str, ...]] = ()
    formerly: ClassVar[dict[str, Any]] = {}
    ignore_label: ClassVar[None] = None

    def __init__(
        self,
        *,
        root: Path,
        targets: Sequence[PictureFile] | None,
        reader: Reader,
        tolerance: float,
        align: bool = False,
        augmentation: Augmentation | None = None,
        stable_steps: int = 1000,
        seed: int = 0,
    ) -> None:
        self.root, self.targets, self.reader, self.align = root, targets, reader, align
        self.augmentation, self.stable_steps, self.seed = augmentation, stable_steps, seed
        self.image_path, self.label_path = find_picture(root, "img"), find_picture(root, "label")
        stored, layout = read_opaque(self.image_path), reader.stored_layout(self.label_path)
        check_sizes([(self.image_path, stored.shape), (self.label_path, layout.shape)])
        self.stored_size = stored.shape[:2]
        self.layouts: LayoutClasses = find_classes(layout, reader.kind, tolerance)
        self.image, self.layout = reader.scaled(stored), self.aligned(reader.scaled(layout))
        check_least(cropped(self.image), self.image_path, reader.resize)
        self.fit: Callable[[np.ndarray], np.ndarray] = cropped  # to multiples of 8
        self.names = ["source"] if targets is None else [Path(str(path)).stem for path in targets]
        self.label_nc, self.class_names = len(self.layouts.colours), self.layouts.names
        self.palette, self.things = self.layouts.colours, frozenset[int]()
        self.classes = ClassTable(tuple(self.class_names), self.palette)

    # --- options ---------------------------------------------------------------------------------------------------
    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        group = parser.add_argument_group("data: single_image")
        group.add_argument("--resize", type=positive, default=1.0, help="factor on the sides of picture and layouts")
        group.add_argument("--label_kind", choices=KINDS, default="colours",
                           help="layouts are colour pictures, as released, or maps of class ids (one-hot)")  # fmt: skip
        group.add_argument("--align_labels", action=argparse.BooleanOptionalAction, default=False,
                           help="colours of layouts snap to the nearest class")  # fmt: skip
        group.add_argument("--label_tolerance", type=positive, default=64.0,
                           help="distance (RGB, 0..255) up to which a colour is near a class")  # fmt: skip
        if is_train:
            group.add_argument("--stable_steps", type=positive_int, default=1000,
                               help="steps in which the augmentation grows to its full")  # fmt: skip
            group.add_argument("--aug_flip", type=fraction, default=0.5, help="probability of a horizontal flip")
            group.add_argument("--aug_zoom", type=weight, default=0.2, help="largest enlargement: 0.2 for 1.2 times")
            group.add_argument("--aug_warp", type=weight, default=0.02,
                               help="largest move of a thin-plate control point over the width")  # fmt: skip

    @classmethod
    def complete_options(cls, opt: Opt) -> dict[str, Any]:
        for name, (unused, instead) in NOT_HERE.items():
            if getattr(opt, name, None) not in (None, unused):
                raise UserError(f"--{name}: --dataset_mode single_image does not use it; {instead}")
        values: dict[str, Any] = {} if opt.load_size is not None else {"load_size": 0}
        if opt.label_nc is None:
            layout = Reader(opt.label_kind, 1.0).stored_layout(find_picture(require_root(opt.dataroot), "label"))
            values["label_nc"] = len(find_classes(layout, opt.label_kind, opt.label_tolerance).colours)
        return values

    @classmethod
    def class_table(cls, dataroot: str | None) -> ClassTable:
        return EMPTY_TABLE

    @classmethod
    def from_options(cls, opt: Opt, *, split: str, augment: bool, task: str) -> Self:
        """Build; `split` "train" is the source's own layout, "test" the targets; there is no other `task`."""
        root = require_root(opt.dataroot)
        targets = None if split == "train" else find_targets(Path(getattr(opt, "cond", None) or root / COND))
        augmentation = Augmentation(flip=opt.aug_flip, zoom=opt.aug_zoom, warp=opt.aug_warp) if augment else None
        dataset = cls(
            root=root,
            targets=targets,
            reader=Reader(opt.label_kind, opt.resize),
            tolerance=opt.label_tolerance,
            align=opt.align_labels,
            augmentation=augmentation,
            stable_steps=opt.stable_steps if augment else 1,
            seed=opt.seed,
        )
        if dataset.label_nc != opt.label_nc:
            raise UserError(
                f"{dataset.label_path}: {dataset.label_nc} classes ({', '.join(dataset.class_names)}), --label_nc "
                f"{opt.label_nc}. A run belongs to its picture and layout; leave --label_nc out in training"
            )
        if augment:  # a photograph given for a layout shows here
            print(f"{dataset.label_path}: {dataset.label_nc} classes: {', '.join(dataset.class_names)}", flush=True)
        return dataset

    # --- access ----------------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        """Return the item of an index, or of (epoch, index); only augmentation depends on the epoch."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        image, layout = self.image, self.layout
        if self.targets is not None:
            layout = self.target_layout(self.targets[index])
        elif self.augmentation is not None:
            rng = random_pair(self.seed, "train", epoch, index)[1]
            factor = progress(epoch, self.stable_steps)
            ids = [False, self.reader.kind == "ids"]
            image, layout = self.augmentation([image, layout], rng, factor, nearest=ids)
            layout = self.aligned(layout)
        source, target = self.tensors(self.image, self.layout), self.tensors(image, layout)
        moved = {f"target_{name}": value for name, value in target.items()}
        return {**source, **moved, "name": self.names[index], "index": index}

    def target_layout(self, path: PictureFile) -> np.ndarray:
        """Return a target's layout at the run's size, checked; raises `DataError`."""
        stored = self.reader.stored_layout(path)
        check_sizes([(self.label_path, self.stored_size), (path, stored.shape)])
        self.layouts.check(stored, path)
        return self.aligned(self.reader.scaled(stored))

    def aligned(self, layout: np.ndarray) -> np.ndarray:
        """Snap colours to classes, if asked for."""
        if not self.align or self.reader.kind == "ids":
            return layout
        return self.layouts.colours[self.layouts.nearest(layout)]

    def tensors(self, image: np.ndarray, layout: np.ndarray) -> dict[str, Tensor]:
        """Return picture, network input and classes of a layout, and the layout to be shown, cropped."""
        image, layout = self.fit(image), self.fit(layout)
        label, shown = self.layouts.nearest(layout), to_tensor(self.layouts.show(layout))
        seg = shown
        if self.reader.kind == "ids":
            seg = torch.from_numpy(np.eye(self.label_nc, dtype=np.float32)[label] * 2 - 1).permute(2, 0, 1).contiguous()
        return {"image": to_tensor(image), "seg": seg, "label": torch.from_numpy(label), "layout": shown}


def single_batch(dataset: SingleImageDataset, index: int) -> SingleImageBatch:
    """Return an item as a batch of one."""
    item = dataset[index]
    batch = {name: value[None] if isinstance(value, Tensor) else [value] for name, value in item.items()}
    return batch  # type: ignore[return-value]
