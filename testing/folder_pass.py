"""One pass over folders of any pictures: decoded in workers, fed to every metric, problems collected."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from torch.utils.data import DataLoader

from data.loader import Loader
from data.masks import MaskSetHash, has_truth
from metrics.doubts import Doubts
from metrics.evaluator import Evaluator
from metrics.folders import Item, Items, Loaded, batches
from trainers.distributed import Distributed
from util.errors import DataError, UserError
from util.progress import progress
from util.workers import shield_worker

LISTED = 10  # problems that are listed


def measure(
    evaluator: Evaluator, items: list[Item], args: argparse.Namespace, problems: dict[str, str], doubts: Doubts
) -> dict[str, str]:
    """Decode, feed evaluator and `doubts`, add to `problems`; return the hash of each set of pictures used."""
    sets: dict[str, list[str]] = {"fake": [], "real": []}
    masks = MaskSetHash()
    for loaded in progress(load(items, evaluator, args), desc=args.name, unit="batch"):
        for one in loaded:
            if one.problem:  # in unpaired sets two files may have one name
                problems[f"{one.name}, second" if one.name in problems else one.name] = one.problem
        refuse(problems, args)
        good = [one for one in loaded if not one.problem]
        for one in good:
            doubts.add(one)
            if one.mask is not None:
                masks.update(one.name, one.mask.numpy())
            for kind, digest in (one.hashes or {}).items():
                sets[kind] += [f"{one.name} {digest}"] if digest else []
        feed(evaluator, good, args)
    hashes = {kind: hashlib.sha256("\n".join(sorted(each)).encode()).hexdigest()[:12] for kind, each in sets.items()}
    return {**hashes, "mask": masks.hexdigest()}


def feed(evaluator: Evaluator, good: Sequence[Loaded], args: argparse.Namespace) -> None:
    """Give an evaluator what could be decoded of a batch."""
    truth = args.own_test is None or has_truth(args.task)
    pairs = [one for one in good if one.draws is not None and one.real is not None]
    for pictures in batches(pairs, has_truth=truth):
        evaluator.update(pictures)
    single = [one for one in good if one.draws is None or one.real is None]
    evaluator.add_sets(
        fake={one.name: one.draws[0] for one in single if one.draws is not None},
        real={one.name: one.real for one in single if one.real is not None},
    )


def share_features(evaluator: Evaluator, items: list[Item], args: argparse.Namespace, world: Distributed) -> None:
    """Let each of several processes compute the features of every so-manieth batch: the first then knows all of them.

    The batches are those of `measure`, which leads to the same bits as one process, and reports what cannot be used.

    Raises:
        UserError: no metric has features of single pictures.
    """
    sharing = Evaluator([metric for metric in evaluator.metrics if metric.feature_cache])
    caches = [metric.feature_cache for metric in sharing.metrics if metric.feature_cache]
    if not caches:
        raise UserError(f"--metrics {args.metrics}: several processes share Inception's features, which none of these "
                        "reads: start evaluate.py without torchrun")  # fmt: skip
    size, count = args.batch_size, -(-len(items) // args.batch_size)
    own = [item for k in range(world.rank, count, world.world_size) for item in items[k * size : (k + 1) * size]]
    loader = iter(load(own, evaluator, args)) if own else iter([])
    for cache in caches:
        cache.share()
    with progress(desc="features", total=count, unit="batch", shown=world.is_main) as bar:
        for _ in range(0, count, world.world_size):
            feed(sharing, [one for one in next(loader, []) if not one.problem], args)
            for found in world.gather([cache.share() for cache in caches]):
                for cache, features in zip(caches, found, strict=True):
                    cache.take(features)
                bar.update(min(1, count - bar.n))
    sharing.reset()


def load(items: list[Item], evaluator: Evaluator, args: argparse.Namespace) -> Iterable[list[Loaded]]:
    """Return decoded batches."""
    dataset = Items(items, label_nc=evaluator.label_nc, ignore_label=args.ignore_label,
                    smallest_side=evaluator.smallest_side, side=args.metric_side)  # fmt: skip
    workers = min(args.num_workers, len(items))
    loader: Any = DataLoader(dataset, batch_size=args.batch_size, num_workers=workers, collate_fn=list,
                             worker_init_fn=shield_worker)  # fmt: skip
    return Loader(loader)  # type: ignore[return-value]


def refuse(problems: dict[str, str], args: argparse.Namespace, notes: Sequence[str] = ()) -> None:
    """Raise `DataError` for problems unless they are to be skipped; `notes` may explain them."""
    if problems and not args.skip_bad:
        lines = [listed(problems), *notes]
        raise DataError(
            f"{len(problems)} unusable (--skip_bad leaves such pictures out and lists them):\n" + "\n".join(lines)
        )


def listed(problems: dict[str, str]) -> str:
    """Return the first problems, a line each."""
    more = [f"  and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
    return "\n".join([*(f"  {problem}" for problem in list(problems.values())[:LISTED]), *more])
