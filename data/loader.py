"""Batches from a data set, optionally in worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from data.base_dataset import BaseDataset
from util.batch import CompactBatch, CompactSample, collate
from util.errors import UserError
from util.opt import Opt
from util.seeds import random_pair
from util.workers import defer_deaths, shield_worker, waiting

# One that fails before it has set this, as where /dev/shm is full, is asked for it by its own __del__.
_MultiProcessingDataLoaderIter._shutdown = True


class Compact(Dataset[CompactSample]):
    """The samples of a data set in the form that takes the fewest bytes."""

    def __init__(self, dataset: BaseDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> CompactSample:
        return self.dataset.compact(key)


class Loader:
    """A `DataLoader` that reports a worker's error, or its death, in one line."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[CompactBatch]:
        with waiting([]):
            batches = iter(self.loader)
            defer_deaths()
        workers = getattr(batches, "_workers", [])  # not active_children(), which omits those that have died
        while (batch := self._next(batches, workers)) is not None:
            yield batch

    @staticmethod
    def _next(batches: Iterator[CompactBatch], workers: list[BaseProcess]) -> CompactBatch | None:
        try:
            with waiting(workers):
                return next(batches, None)
        except UserError as error:  # from a worker it comes with the worker's traceback in its text
            message = str(error).strip().rsplit(f"{type(error).__name__}: ", 1)[-1]
            raise type(error)(message) from None


def make_loader(
    dataset: BaseDataset,
    *,
    batch_size: int,
    num_workers: int,
    keys: Iterable[Sequence[Any]] | None = None,
) -> Loader:
    """Return batches of `dataset`, in compact form: `to_device` or `on_host` comes before they are read.

    Args:
        dataset: what to load; with a `__getitem__` of its own, in the form that this returns.
        batch_size: pictures per batch, without `keys`.
        num_workers: processes; each uses one thread.
        keys: batches of keys (index or (epoch, index)); None takes every index in order, the last batch may be smaller.
    """
    order: dict[str, Any] = {"batch_size": batch_size} if keys is None else {"batch_sampler": keys}
    as_they_are = type(dataset).__getitem__ is not BaseDataset.__getitem__
    loader: DataLoader[Any] = DataLoader(
        dataset if as_they_are else Compact(dataset),
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=shield_worker,
        **order,
    )
    return Loader(loader)


def plain_dataset(opt: Opt, split: str, *, task: str = "none") -> BaseDataset:
    """Return a split for other uses than training: centre cuts, no flips, the masks of `task`.

    Its few pictures are read once: a second copy of a split in RAM would be a waste.
    """
    from data import DATASETS

    uncached = Opt(**{k: v for k, v in vars(opt).items() if not k.startswith("_")} | {"cache": "none"})
    return DATASETS.get(opt.dataset_mode).from_options(uncached, split=split, augment=False, task=task)


def plain_pictures(
    opt: Opt, split: str, limit: int | None = None, *, task: str = "none", kept: BaseDataset | None = None
) -> Loader:
    """Return batches of `plain_dataset`.

    Args:
        opt: options of the run.
        limit: at most so many pictures, always the same choice; None takes all.
        kept: a data set that may have the pictures in RAM.
    """
    dataset = plain_dataset(opt, split, task=task)
    if kept is not None:
        dataset.share(kept)
    order = random_pair(split, "choice")[1].permutation(len(dataset))[:limit]
    chosen = [order[i : i + opt.batch_size].tolist() for i in range(0, len(order), opt.batch_size)]
    return make_loader(dataset, batch_size=opt.batch_size, num_workers=opt.num_workers, keys=chosen)
