"""What every data set does with a decoded picture: cut, flip, mask, edges, dense instances.

Shapes: H x W the picture, S the crop. Random draws come in the order of SPMPGAN's `dataset.py`. Their key is
(seed, "train", epoch, index) in training and (seed, task, index) in testing, so that workers, ranks and resumption do
not change them.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from data import masks
from data.checks import check_crop
from data.instances import unique_ids, worth_testing
from data.records import MapRules, Maps, parse_label_map
from data.samples import make_sample
from data.sampling import Sampling
from data.tasks import WANTED, Selection, named_classes, object_task, suitable, thing_instances
from data.transforms import scale_short_side
from util.batch import CompactSample, Sample, expand
from util.class_table import EMPTY_TABLE, ClassTable
from util.errors import DataError, UserError
from util.opt import Opt
from util.progress import progress
from util.seeds import derive_seed, random_pair

_THREADS = 4


class BaseDataset(Dataset[Sample], ABC):
    """Samples for one split. Subclasses are registered with `@DATASETS.register("<mode>")`.

    Args:
        names: base name of every picture; their order is that of the samples.
        split: "train", "test", ...
        classes: names, colours and things of the `label_nc` classes.
        rules: what the maps may hold.
        sampling: how samples are made of them; its crop size is S.

    Attributes:
        names: of the samples.
        label_nc, ignore_label, class_names, palette (label_nc, 3) uint8, things: as their names say.
        classes: the class table, which the above come from.
        mask_types: those of training.
    """

    summary: ClassVar[str] = ""
    scenes: ClassVar[bool] = True  # whether methods that do not name a data set can use it
    known_masks: ClassVar[tuple[str, ...]] = masks.MASK_TYPES
    mask_types: tuple[str, ...] = masks.MASK_TYPES
    formerly: ClassVar[Mapping[str, Any]] = {}  # as `BaseModel.formerly`, of this data set's flags

    def __init__(
        self, *, names: Sequence[str], split: str, classes: ClassTable, rules: MapRules, sampling: Sampling
    ) -> None:
        task, mask_dir = sampling.task, sampling.mask_dir
        if task not in (*masks.TASKS, masks.FOLDER, masks.NONE, masks.TRAIN):
            raise UserError(f"--task '{task}' is unknown. Known: {', '.join((*masks.TASKS, masks.FOLDER))}")
        if task == masks.FOLDER and not mask_dir:
            raise UserError("--task folder needs --mask_dir DIR, a folder of mask PNGs")
        self._halves = sampling.test_cuts == "halves" and task not in (masks.NONE, masks.TRAIN)
        self.names = [f"{name}_{side}" for name in names for side in "lr"] if self._halves else names
        self.split, self.rules, self._pictures = split, rules, len(names)
        self.label_nc, self.ignore_label = rules.label_nc, rules.ignore_label
        self.classes = classes = classes.resized(self.label_nc)
        self.class_names, self.palette, self.things = list(classes.names), classes.palette, set(classes.things)
        self.crop_size, self.load_size, self.augment = sampling.crop_size, sampling.load_size, sampling.augment
        self.task, self.seed, self.inst_class_rule = task, sampling.seed, sampling.inst_class_rule
        self.mask_schedule, self.mask_boxes = sampling.mask_schedule, sampling.mask_boxes
        if sampling.mask_types is not None:
            self.mask_types = masks.parse_mask_types(sampling.mask_types, self.known_masks)
        self.mask_paths = masks.mask_files(mask_dir, len(self.names)) if task == masks.FOLDER and mask_dir else []
        self._things = np.array(sorted(self.things), np.int64)
        self.removal, self._erased_classes = sampling.removal, None
        if sampling.object_classes is not None:
            self._erased_classes = named_classes(sampling.object_classes, self.class_names, self.label_nc)
        self._cache: list[Maps] | None = self._preload() if sampling.cache == "ram" else None

    # --- options ---------------------------------------------------------------------------------------------------
    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        """Add this data set's flags; `parser.set_defaults` changes shared defaults."""

    @classmethod
    @abstractmethod
    def complete_options(cls, opt: Opt) -> dict[str, Any]:
        """Return values for the flags label_nc, ignore_label and load_size that were not given (are None)."""

    @classmethod
    @abstractmethod
    def from_options(cls, opt: Opt, *, split: str, augment: bool, task: str) -> BaseDataset:
        """Build from completed options; the only place of a data set that reads `opt`."""

    @classmethod
    def class_table(cls, dataroot: str | None) -> ClassTable:
        """Return names, colours and things of the classes, without reading any picture."""
        return EMPTY_TABLE

    @classmethod
    def map_rules(cls, opt: Opt) -> MapRules:
        """Return what the maps may hold under these options."""
        ignore = opt.ignore_label if opt.ignore_label is not None and opt.ignore_label >= 0 else None
        return MapRules(label_nc=opt.label_nc, ignore_label=ignore, label_map=parse_label_map(opt.label_map))

    # --- access ----------------------------------------------------------------------------------------------------
    @abstractmethod
    def decode(self, index: int) -> Maps:
        """Return picture and maps of a place in the split as stored, checked; raises `DataError`."""

    def maps(self, index: int) -> Maps:
        """Return picture and maps with the short side scaled to `load_size`, from RAM if cached."""
        picture = index // 2 if self._halves else index
        return self._cache[picture] if self._cache is not None else self._read(picture)

    def share(self, other: BaseDataset) -> None:
        """Read from what another data set keeps in RAM, if it keeps the same pictures."""
        if self.names == other.names and self.split == other.split and self.load_size == other.load_size:
            self._cache = other._cache

    def _read(self, picture: int) -> Maps:
        name = self.names[2 * picture if self._halves else picture]
        return self._compact(scale_short_side(self.decode(picture), self.load_size, name=name))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Return the sample of an index, or of (epoch, index), see `compact`."""
        return expand(self.compact(key))

    def compact(self, key: int | tuple[int, int]) -> CompactSample:
        """Return the sample as loaders carry it; only training depends on the epoch.

        A subclass that changes samples overrides this, or else `__getitem__`, and then full samples are carried.
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if self.augment:
            R, NP = random_pair(self.seed, "train", epoch, index)
            maps = self._random_cut(self._large_enough(index), R)
        else:
            R, NP = random_pair(self.seed, self.task, index)
            maps = self._centre_cut(index)
        if self.task in masks.OBJECT_TASKS:
            maps, mask = self._object_task(maps, index)
        else:
            mask = self._mask(maps, R, NP, epoch, index)
        name, rule = self.names[index], self.inst_class_rule
        sample = make_sample(maps, mask, rules=self.rules, inst_class_rule=rule, name=name, index=index)
        if self.task == masks.REMOVAL and self.removal == "released":
            # As of SIEDOB's instance maps, which are 0 everywhere
            sample["edge"] = torch.zeros(sample["mask"].shape)  # type: ignore[typeddict-unknown-key]
        return {**sample, "draw": derive_seed(self.seed, "draw", epoch, index)}

    def select(self, limit: int | None = None) -> Selection:
        """Return the first `limit` pictures (None: all) that the task can use: any, or those with an object to erase.

        Raises:
            UserError: there is none.
        """
        limit = len(self) if limit is None else min(limit, len(self))
        if self.task not in masks.OBJECT_TASKS:
            return Selection(list(range(limit)), looked_at=limit)
        indices: list[int] = []
        looked_at = 0
        with ThreadPoolExecutor(_THREADS) as pool:
            usable = pool.map(lambda index: bool(self._erasable(self._centre_cut(index))), range(len(self)))
            for fits in progress(usable, total=len(self), desc=f"looking for a {WANTED}", unit="picture", leave=False):
                indices += [looked_at] if fits else []
                looked_at += 1
                if len(indices) == limit:
                    break
            pool.shutdown(cancel_futures=True)
        if not indices:
            raise UserError(
                f"--task {self.task}: none of the {looked_at} pictures of '{self.split}' has a {WANTED}. The task "
                "needs instance maps, and things among the classes (classes.json, see datasets/README.md)"
            )
        return Selection(indices, looked_at)

    # --- steps of a sample -----------------------------------------------------------------------------------------
    def instance_candidates(self, inst: np.ndarray, label: np.ndarray) -> list[int]:
        """Return the ids, ascending, that the instance mask chooses from; empty: no draw, a brush mask instead.

        Here: ids whose class is a thing (an instance counts where any of its pixels is labelled so), or all if there
        is none. The release keeps ids >= 1000 for Cityscapes and all, 0 included, for ADE20K-room.
        """
        on_things = inst[np.isin(label, self._things)]
        return unique_ids(on_things if on_things.size else inst).tolist()

    def objects(self, inst: np.ndarray, label: np.ndarray) -> list[int]:
        """Return the ids, ascending, of the single things that the object tasks choose from."""
        first = self.rules.first_instance
        return [number for number in thing_instances(inst, label, self.things) if number >= first]

    def _erasable(self, maps: Maps) -> list[int]:
        if maps.inst is None:
            return []
        found = self.objects(maps.inst, maps.label)
        if self._erased_classes is not None:
            found = sorted(set(found) & set(thing_instances(maps.inst, maps.label, self._erased_classes)))
        return suitable(maps.inst, found)

    def _object_task(self, maps: Maps, index: int) -> tuple[Maps, np.ndarray]:
        """Draw the object; both tasks erase the same one, so their key is the same."""
        candidates = self._erasable(maps)
        if not candidates:
            raise DataError(f"{self.names[index]}: --task {self.task} needs a {WANTED}")
        R = random_pair(self.seed, masks.ADDITION, index)[0]
        return object_task(self.task, maps, candidates, R, removal=self.removal)

    def _large_enough(self, index: int) -> Maps:
        maps = self.maps(index)
        height, width = maps.label.shape
        check_crop(height, width, self.crop_size, self.names[index])
        return maps

    def _centre_cut(self, index: int) -> Maps:
        """Return the cut of a test: the picture's centre, or that of one of its halves, moved inside the picture."""
        maps = self._large_enough(index)
        height, width = maps.label.shape
        top, left = (height - self.crop_size) // 2, (width - self.crop_size) // 2
        if self._halves:
            if width == self.crop_size:
                raise DataError(f"{self.names[index]}: is no wider than the crop ({width} pixels), so that its halves "
                                "would be the same; leave --test_cuts halves out")  # fmt: skip
            left = max(0, (width - 2 * self.crop_size) // 4)
            left = width - self.crop_size - left if index % 2 else left
        return self._cut(maps, top, left)

    def _random_cut(self, maps: Maps, R: Random) -> Maps:
        height, width = maps.label.shape
        left = R.randint(0, width - self.crop_size) if width > self.crop_size else 0
        top = R.randint(0, height - self.crop_size) if height > self.crop_size else 0
        cut = self._cut(maps, top, left)
        if R.random() > 0.5:
            return Maps(cut.image[:, ::-1], cut.label[:, ::-1], None if cut.inst is None else cut.inst[:, ::-1])
        return cut

    def _cut(self, maps: Maps, top: int, left: int) -> Maps:
        rows, columns = slice(top, top + self.crop_size), slice(left, left + self.crop_size)
        inst = None if maps.inst is None else maps.inst[rows, columns]
        return Maps(maps.image[rows, columns], maps.label[rows, columns], inst)

    def _mask(self, maps: Maps, R: Random, NP: np.random.RandomState, epoch: int, index: int) -> np.ndarray:
        """Draw instance, label, type, mask, and whether the things' boxes are erased too, in this order."""
        if self.task == masks.FOLDER:
            return masks.read_mask(self.mask_paths[index], self.crop_size)
        inst = maps.label if maps.inst is None else maps.inst
        candidates = self.instance_candidates(inst, maps.label)
        labels = unique_ids(maps.label).tolist()
        labels = [i for i in labels if i != self.ignore_label] or labels
        if not self.augment:  # Differs from the release: a test mask must erase something to be judged
            candidates = worth_testing(inst, candidates, boxed=True)
            labels = worth_testing(maps.label, labels, boxed=False)
        chosen_inst = R.choice(candidates) if candidates else None
        chosen_label = R.choice(labels)
        task = self._mask_type(R, epoch, index)
        choice = {"chosen_label": chosen_label, "chosen_inst": chosen_inst}
        mask = masks.make_mask(task, R, NP, label=maps.label, inst=inst, **choice)
        if self.task == masks.TRAIN and self.mask_boxes and R.random() < self.mask_boxes:
            mask |= masks.thing_boxes(inst, self.objects(inst, maps.label))
        return mask

    def _mask_type(self, R: Random, epoch: int, index: int) -> str:
        """Return the task; in training the type that the schedule gives, or a drawn one."""
        if self.task != masks.TRAIN:
            return self.task
        count = len(self.mask_types)
        scheduled = self.mask_schedule == "index"
        return self.mask_types[self._place(epoch, index) % count if scheduled else R.randrange(count)]

    def _place(self, epoch: int, index: int) -> int:
        """Return the place of a training sample by which the schedule counts: the picture's, in all epochs."""
        return index

    # --- cache -----------------------------------------------------------------------------------------------------
    @staticmethod
    def _compact(maps: Maps) -> Maps:
        """Store labels in one byte where they fit."""
        small = maps.label.max() < 256
        return Maps(maps.image, maps.label.astype(np.uint8 if small else np.int32), maps.inst)

    def _preload(self) -> list[Maps]:
        self._cache = None
        with ThreadPoolExecutor(_THREADS) as pool:
            loaded = pool.map(self._read, range(self._pictures))
            title = f"reading {self.split} into RAM"
            return list(progress(loaded, total=self._pictures, desc=title, unit="picture", leave=False))
