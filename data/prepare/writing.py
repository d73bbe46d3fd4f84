"""What the scripts/prepare_*.py share: parallel conversion that can be resumed, class tables, masks.

A picture's files are written under another name and renamed, so what exists is complete, and a second run skips it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from data import DATASETS
from data.base_dataset import BaseDataset
from data.checks import load_record
from data.masks import MASK_TYPES
from data.prepare.archives import Source, opened
from data.records import CLASSES_FILE, MapRules, Maps, Record
from util.class_table import ClassTable
from util.errors import DataError, LostProcessError, UserError
from util.files import atomic_file
from util.opt import Opt
from util.progress import progress
from util.text_files import parse_json
from util.workers import deaf_children, waiting

JPEG_QUALITY = 92
FEW_JOBS = 24  # are done before a process has started
STAMP = "prepared.json"
ANY_LABEL = 1 << 16  # as `label_nc`: every id of a label map passes


def add_common_flags(parser: argparse.ArgumentParser, *, output: str) -> None:
    """Add the flags of every prepare script."""
    parser.add_argument("--output", type=Path, default=Path(output), metavar="DIR", help="folder to make")
    workers = min(8, os.cpu_count() or 1)
    parser.add_argument("--num_workers", type=int, default=workers, help="processes; 0: none")
    parser.add_argument(
        "--write_masks", nargs="*", metavar="TASK", choices=MASK_TYPES,
        help=f"write the masks of these tasks ({', '.join(MASK_TYPES)}; none named: all) to <split>/masks_<task>/, for "
        "every split but train; they equal those that test.py draws from the same seed and crop size",
    )  # fmt: skip
    parser.add_argument("--mask_seed", type=int, default=0, help="seed of the masks, --seed of test.py")
    parser.add_argument("--mask_size", type=int, default=256, help="side of the masks, --crop_size of test.py")


# --- files ------------------------------------------------------------------------------------------------------------
def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file by `write`, so that it is complete or absent; creates its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, durable=False) as file:  # it can be made again
        write(file)


def save_picture(path: Path, array: np.ndarray, *, quality: int = JPEG_QUALITY) -> None:
    """Write (H, W, 3) uint8, (H, W) uint8 or uint16 as JPEG or PNG, whichever the ending says."""
    picture = Image.fromarray(array)
    jpeg = path.suffix == ".jpg"
    write_whole(path, lambda to: picture.save(to, format="JPEG", quality=quality) if jpeg else picture.save(to, "PNG"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a value as JSON, one entry to a line, whole or not at all."""
    text = json.dumps(content, indent=1) + "\n"
    write_whole(path, lambda file: file.write(text.encode("utf-8")))


def write_class_table(output: Path, table: ClassTable) -> None:
    """Write <output>/classes.json, which `data.records.read_class_table` reads."""
    classes: list[dict[str, Any]] = [
        {"id": i, "name": name, "color": table.palette[i].tolist(), "thing": i in table.things}
        for i, name in enumerate(table.names)
    ]
    for rule in table.objects:
        classes[rule.label]["object"] = {"fill": rule.fill, "aspect": list(rule.aspect)}
    for entry, scene_id in zip(classes, table.scene_ids, strict=False):
        entry["scene_id"] = scene_id
    content: dict[str, Any] = {"num_classes": len(classes), "ignore_id": table.ignore}
    if table.objects:
        content["objects"] = [rule.label for rule in table.objects]
    write_json(output / CLASSES_FILE, {**content, "classes": classes})


def save_classes(dataset: BaseDataset, run_dir: Path) -> None:
    """Write a data set's classes into a run's folder, so that the run knows their names without the data."""
    write_class_table(run_dir, replace(dataset.classes, ignore=dataset.ignore_label))


def claim_output(output: Path, script: str, settings: Mapping[str, Any]) -> None:
    """Record in the folder the settings it is made with; raises `UserError` if it was made with other settings.

    Without this, a run continued with another split or size would mix the two.
    """
    wanted = {"script": script, "settings": dict(settings)}
    path = output / STAMP
    if path.is_file():
        try:
            recorded = dict(parse_json(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}: not readable ({error}); remove {output} and run again") from error
        if recorded != wanted:
            raise UserError(
                f"--output {output} was made by {recorded.get('script')} with {recorded.get('settings')}, now {script} "
                f"with {wanted['settings']} is asked for; give another --output, or remove the folder"
            )
    write_json(path, wanted)


# --- pictures ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Job:
    """One picture to convert: where its parts come from, and the files to write, by kind ("images", "labels", ...)."""

    name: str
    image: Source
    label: Source
    inst: Source | None
    targets: Mapping[str, Path]

    def load(self, rules: MapRules) -> Maps:
        """Return the decoded parts, of one size and within the rules; raises `DataError`."""
        inst = None if self.inst is None else opened(self.inst)
        return load_record(Record(self.name, opened(self.image), opened(self.label), inst), rules)

    def load_known(self, label_nc: int, needed: str, *, inst_rgb: bool = False) -> Maps:
        """Return the decoded parts; raises `DataError`, which says what is `needed`, for ids from `label_nc` on."""
        maps = self.load(MapRules(label_nc=ANY_LABEL, inst_rgb=inst_rgb))
        if maps.label.max() >= label_nc:
            raise DataError(f"{self.label}: id {maps.label.max()}; {needed} are needed")
        return maps

    def finished(self) -> bool:
        """Whether all files of the sample are there."""
        return all(path.is_file() for path in self.targets.values())


def target_files(folder: Path, name: str, kinds: Sequence[str], *, picture: str = ".jpg") -> dict[str, Path]:
    """Return <folder>/<kind>/<name> with the ending of its kind."""
    return {kind: folder / kind / f"{name}{picture if kind.startswith('images') else '.png'}" for kind in kinds}


Convert = Callable[[Job], Mapping[str, np.ndarray]]  # the arrays of a job's targets, by kind; picklable


def convert_all(convert: Convert, jobs: Sequence[Job], *, num_workers: int, title: str) -> None:
    """Make the files of all jobs that are not finished; raises the first error, after which a run can continue."""
    todo = [job for job in jobs if not job.finished()]
    if len(todo) < len(jobs):
        print(f"{title}: {len(jobs) - len(todo)} of {len(jobs)} are finished, going on")
    run_jobs(partial(_convert_one, convert), todo, num_workers=num_workers, title=title)


def _convert_one(convert: Convert, job: Job) -> None:
    arrays = convert(job)
    for kind, path in job.targets.items():
        save_picture(path, arrays[kind])


def run_jobs(function: Callable[[Any], Any], jobs: Sequence[Any], *, num_workers: int, title: str) -> list[Any]:
    """Call a picklable function on every job, in `num_workers` processes (0: in this one), with a progress bar.

    Returns:
        What it returned, in the order of the jobs.
    """
    if num_workers < 0:
        raise UserError(f"--num_workers {num_workers} is less than 0")
    if num_workers == 0 or len(jobs) < FEW_JOBS:
        return [function(job) for job in progress(jobs, desc=title, unit="file")]
    # spawn: forked children of a process with threads (PyTorch) may hang
    context = multiprocessing.get_context("spawn")
    with waiting([]):
        pool = ProcessPoolExecutor(min(num_workers, len(jobs)), mp_context=context, initializer=_follow_parent)
    try:
        with deaf_children():  # the parent handles Ctrl-C, and a child finishes its file
            futures = [pool.submit(function, job) for job in jobs]
        for future in progress(as_completed(futures), total=len(futures), desc=title, unit="file"):
            future.result()
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise LostProcessError(
            f"{title}: a process died, usually because memory ran out: run the same command again with a smaller "
            "--num_workers, or --num_workers 0"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """End when the parent does."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "called in children only"

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


# --- masks and report -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class MaskSet:
    """Which masks to write: those of a data set's split for one task."""

    mode: str
    root: Path
    split: str
    task: str
    seed: int
    size: int

    @property
    def folder(self) -> Path:
        """Where the masks are written: <root>/<split>/masks_<task>."""
        return self.root / self.split / f"masks_{self.task}"


@lru_cache(maxsize=1)
def _mask_source(masks: MaskSet) -> BaseDataset:
    """Return the data set that test.py draws from."""
    dataset = DATASETS.get(masks.mode)
    opt = Opt(
        dataset_mode=masks.mode, dataroot=str(masks.root), crop_size=masks.size, seed=masks.seed,
        load_size=None, label_nc=None, ignore_label=None, label_map=None,
    )  # fmt: skip
    vars(opt).update(dataset.complete_options(opt))
    return dataset.from_options(opt, split=masks.split, augment=False, task=masks.task)


def _write_mask(job: tuple[MaskSet, int]) -> None:
    masks, index = job
    sample = _mask_source(masks)[index]
    mask = (sample["mask"][0].numpy() * 255).astype(np.uint8)
    save_picture(masks.folder / f"{index:05d}_{sample['name']}.png", mask)  # sorted by name as the samples are


def write_masks(opt: argparse.Namespace, mode: str, splits: Sequence[str]) -> None:
    """Write the masks of `--write_masks` for every split but train, anew each time."""
    if opt.write_masks is None:
        return
    for split in (name for name in splits if name != "train"):
        for task in opt.write_masks or MASK_TYPES:
            masks = MaskSet(mode, opt.output, split, task, opt.mask_seed, opt.mask_size)
            for old in masks.folder.glob("*.png"):
                old.unlink()
            jobs = [(masks, index) for index in range(len(_mask_source(masks)))]
            run_jobs(_write_mask, jobs, num_workers=opt.num_workers, title=f"{split}: masks of {task}")
