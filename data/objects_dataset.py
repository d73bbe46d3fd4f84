"""Crops of single objects, for the object networks of SIEDOB, cut by scripts/prepare_objects.py.

Layout: <dataroot>/classes.json, <dataroot>/<class>/<split>/{images,inst_mask}/, paired by base name. Labels are the n
classes in the order of classes.json, and n = outside of the object, where the picture is 0: with the authors' car and
person, channel i of a one-hot label times the object is channel i of their class map.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data import DATASETS
from data.base_dataset import BaseDataset
from data.checks import size_problem
from data.masks import FOLDER, NONE, OBJECT_BRUSH, TRAIN, brush, read_mask, strip
from data.object_crops import find_crops, read_objects_table, with_outside
from data.records import MapRules, Maps
from data.sampling import Sampling
from data.tasks import Selection
from data.transforms import nearest
from util.batch import Sample
from util.class_table import ClassTable
from util.errors import DataError, UserError
from util.images import read_binary, read_image, to_tensor
from util.opt import Opt
from util.seeds import random_pair

_OBJECT = 1000  # instance id of the object; outside keeps its label
_ENLARGED, _SIDE = 72, 64  # half of the training crops are enlarged so much, then cut
_REDRAWS = 10
_RELEASED = 10_000  # entries per class, to which the release repeats a list
_WHOLE = ("class", "instance", "object_addition")  # tasks that erase the object whole
_TASKS = ("free_form", "extension", *_WHOLE, FOLDER, NONE, TRAIN)


@DATASETS.register("objects")
class ObjectsDataset(BaseDataset):
    """One crop is one sample, of `crop_size` pixels whatever its file has; outside of the object everything is 0.

    Each sample also holds `style_image` (3, S, S) and `style_label` (S, S): another crop of the same class (in
    training any, drawn anew in each epoch; in testing one drawn by the seed), neither enlarged nor flipped.

    Differs from SIEDOB's `instance_style/dataset.py`: in training every class counts as many samples as the largest
    one has crops, and smaller ones repeat theirs; the release repeats each list to 10000. A test draws the style crop,
    the release takes crop 1. A drawn mask that misses the object is drawn again, up to ten times, then the whole
    object is erased; masks from files stay as they are.

    Args:
        dataroot: the data folder.
        split: a folder within each class's folder.
        table: the classes, without "outside".
        rules, sampling: see `BaseDataset`; `load_size` is `crop_size`.
    """

    summary = "crops of single objects, made by scripts/prepare_objects.py; for the object networks of SIEDOB"
    scenes = False
    known_masks = ("free_form", "extension", "instance")
    mask_types = ("free_form", "free_form", "extension")  # as released: index % 3, or two to one at random

    def __init__(self, *, dataroot: str, split: str, table: ClassTable, rules: MapRules, sampling: Sampling) -> None:
        if sampling.task not in _TASKS:
            fitting = ", ".join(_TASKS[:-2])
            raise UserError(f"--task {sampling.task} is not for single objects; --dataset_mode objects has {fitting}")
        if sampling.mask_boxes:
            raise UserError("--mask_boxes erases things of a scene; --dataset_mode objects has one object in a picture")
        self.outside = len(table.names)
        crops = find_crops(Path(dataroot), table.names, split, every_class=sampling.augment)
        self.records, self.kinds = [record for record, _ in crops], np.array([kind for _, kind in crops])
        self.of_class = [np.flatnonzero(self.kinds == kind).tolist() for kind in range(self.outside)]
        self.largest = max(map(len, self.of_class))
        names = [record.name for record in self.records]
        super().__init__(names=names, split=split, classes=with_outside(table), rules=rules, sampling=sampling)

    # --- options ---------------------------------------------------------------------------------------------------
    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        parser.set_defaults(cache="ram", crop_size=64)  # crops are small

    @classmethod
    def class_table(cls, dataroot: str | None) -> ClassTable:
        return with_outside(read_objects_table(dataroot))

    @classmethod
    def complete_options(cls, opt: Opt) -> dict[str, Any]:
        label_nc = len(read_objects_table(opt.dataroot).names) + 1
        if opt.label_nc not in (None, label_nc):
            raise UserError(f"--label_nc {opt.label_nc}: {opt.dataroot} has {label_nc - 1} classes, and outside")
        if opt.load_size not in (None, opt.crop_size):
            raise UserError(f"--load_size {opt.load_size}: objects always have --crop_size, {opt.crop_size}; omit it")
        if opt.label_map or opt.ignore_label not in (None, -1):
            raise UserError("--label_map and --ignore_label do not apply to --dataset_mode objects")
        return {"label_nc": label_nc, "load_size": opt.crop_size}

    @classmethod
    def from_options(cls, opt: Opt, *, split: str, augment: bool, task: str) -> Self:
        table, sampling = read_objects_table(opt.dataroot), Sampling.from_options(opt, augment=augment, task=task)
        return cls(dataroot=opt.dataroot, split=split, table=table, rules=cls.map_rules(opt), sampling=sampling)

    # --- access ----------------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return self.largest * self.outside if self.augment else len(self.names)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Return the sample of an index, or of (epoch, index); `index` in the sample is the number of the crop."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self.augment:
            kind, k = divmod(index, self.largest)
            crops = self.of_class[kind]
            repeats = -(-self.largest // len(crops))
            epoch, index = epoch * repeats + k // len(crops), crops[k % len(crops)]
        sample: Any = super().__getitem__((epoch, index))
        sample["image"] = sample["image"] * (sample["label"] != self.outside)
        sample["style_image"], sample["style_label"] = self._partner(epoch, index)
        return sample

    def select(self, limit: int | None = None) -> Selection:
        """Return the first crops: every task can use every crop."""
        count = len(self) if limit is None else min(limit, len(self))
        return Selection(list(range(count)), looked_at=count)

    def decode(self, index: int) -> Maps:
        """Return a crop, stretched to S x S: picture bilinear, mask nearest."""
        record, size = self.records[index], self.crop_size
        image, mask = read_image(record.image), read_binary(record.label)
        if mask.shape != image.shape[:2]:
            raise DataError(size_problem("object mask", record.label, mask, record.image, image))
        image, mask = _resized(image, mask, size)
        if not mask.any():
            raise DataError(f"{record.label}: the object mask is empty at {size}x{size}; remove the crop")
        return self._maps(image, mask, int(self.kinds[index]))

    # --- steps of a sample -----------------------------------------------------------------------------------------
    def _maps(self, image: np.ndarray, mask: np.ndarray, kind: int) -> Maps:
        label = np.where(mask > 0, kind, self.outside).astype(np.int32)
        return Maps(image, label, np.where(mask > 0, _OBJECT, self.outside).astype(np.int32))

    def _random_cut(self, maps: Maps, R: Random) -> Maps:
        """Enlarge half of the crops and cut a random part; flip half of them. As released."""
        if R.random() < 0.5:
            inside = maps.label != self.outside
            image, mask = _resized(maps.image, inside.astype(np.uint8), round(self.crop_size * _ENLARGED / _SIDE))
            cut = super()._random_cut(self._maps(image, mask, int(maps.label[inside][0])), R)
            if (cut.label != self.outside).any():  # not so for a speck at the border
                return cut
        return super()._random_cut(maps, R)

    def _object_task(self, maps: Maps, index: int) -> tuple[Maps, np.ndarray]:
        return maps, (maps.label != self.outside).astype(np.uint8)

    def _mask(self, maps: Maps, R: Random, NP: np.random.RandomState, epoch: int, index: int) -> np.ndarray:
        """Draw the type, then the mask, within the object."""
        silhouette = (maps.label != self.outside).astype(np.uint8)
        if self.task == FOLDER:
            return silhouette * read_mask(self.mask_paths[index], self.crop_size)
        task = self._mask_type(R, epoch, index)
        if task in _WHOLE or task == NONE:
            return silhouette * (task != NONE)
        for _ in range(_REDRAWS):
            size = self.crop_size
            mask = silhouette * (strip(R, size) if task == "extension" else brush(R, NP, size, OBJECT_BRUSH))
            if mask.any():
                return mask
        return silhouette

    def _place(self, epoch: int, index: int) -> int:
        """Return the place in the release's lists: of 10000 per class, each crop repeated after all others.

        A crop so gets another type at its next repeat, where the number of crops is no multiple of that of the types.
        `epoch` counts the repeats.
        """
        kind = int(self.kinds[index])
        crops = self.of_class[kind]
        return _RELEASED * kind + epoch * len(crops) + index - crops[0]

    def _partner(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """Return picture and label of a random crop of the same class."""
        key = ("style", epoch, index) if self.augment else ("style", index)
        maps = self.maps(random_pair(self.seed, *key)[0].choice(self.of_class[self.kinds[index]]))
        label = torch.from_numpy(maps.label.astype(np.int64))
        return to_tensor(maps.image) * (label != self.outside), label


def _resized(image: np.ndarray, mask: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Stretch a picture (bilinear) and a mask (nearest) to size x size."""
    if mask.shape == (size, size):
        return image, mask
    picture = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(picture), nearest(mask, size, size)
