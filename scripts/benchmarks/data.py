"""`benchmark.py data`: samples of a data set, as training reads them, against a plain form, on one core.

The plain one works as SPMPGAN's release: whole pictures become float tensors, which are then cut and flipped, labels go
through floats and back, ids are found by sorting, labels are made one-hot and edges marked by PyTorch. It draws the
same numbers, and its samples are equal. "Carried" is what a worker makes; who takes the batch makes full maps of it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.checks import load_record
from data.custom_dataset import CustomDataset
from data.folder import FolderDataset
from data.masks import make_mask
from data.records import MapRules
from data.sampling import Sampling
from scripts import prepare_streets
from scripts.benchmarks.measure import OURS, PLAIN, save
from util.batch import CompactSample
from util.errors import UserError
from util.seeds import random_pair

SCENES = 24  # made where no data set is given


def plain_sample(dataset: FolderDataset, epoch: int, index: int) -> dict[str, Tensor]:
    """Return image, label, inst (ids as stored), edge, mask, seg and masked image of a training sample."""
    record = dataset.records[index]
    R, NP = random_pair(dataset.seed, "train", epoch, index)
    image = pixels(record.image, "RGB").float().div(255)
    label = pixels(record.label, None).float().div(255)
    inst = label if record.inst is None else pixels(record.inst, None).int()
    size, (height, width) = dataset.crop_size, label.shape[1:]
    left = R.randint(0, width - size) if width > size else 0
    top = R.randint(0, height - size) if height > size else 0
    cut = [x[:, top : top + size, left : left + size] for x in (image, label, inst)]
    if R.random() > 0.5:
        cut = [x.flip(2) for x in cut]
    image, label, inst = (cut[0] - 0.5) / 0.5, (cut[1] * 255).long(), cut[2]
    ids, labels = inst[0].numpy(), label[0].numpy()
    candidates = np.unique(ids[np.isin(labels, list(dataset.things))]).tolist() or np.unique(ids).tolist()
    known = [i for i in np.unique(labels).tolist() if i != dataset.ignore_label] or np.unique(labels).tolist()
    chosen_inst, chosen_label = R.choice(candidates) if candidates else None, R.choice(known)
    types = dataset.mask_types
    task = types[index % len(types) if dataset.mask_schedule == "index" else R.randrange(len(types))]
    drawn = make_mask(task, R, NP, label=labels, inst=ids, chosen_label=chosen_label, chosen_inst=chosen_inst)
    mask = torch.from_numpy(drawn).float()[None]
    seg = torch.zeros(dataset.label_nc, size, size)
    seg.scatter_(0, torch.where(label < dataset.label_nc, label, 0), 1.0)
    edge = torch.zeros(1, size, size, dtype=torch.uint8)
    edge[:, :, 1:] |= inst[:, :, 1:] != inst[:, :, :-1]
    edge[:, :, :-1] |= inst[:, :, 1:] != inst[:, :, :-1]
    edge[:, 1:] |= inst[:, 1:] != inst[:, :-1]
    edge[:, :-1] |= inst[:, 1:] != inst[:, :-1]
    return {"image": image, "label": label[0], "inst": inst[0], "edge": edge.float(), "mask": mask,
            "seg": seg * mask, "masked": image * (1 - mask)}  # fmt: skip


def pixels(path: Path, mode: str | None) -> Tensor:
    """Return (C, H, W) of a file."""
    with Image.open(path) as picture:
        array = np.array(picture if mode is None else picture.convert(mode))
    return torch.from_numpy(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1).copy())


def open_split(dataroot: str, size: int, *, cache: str) -> FolderDataset:
    """Open the training split of a folder with a classes.json as training does."""
    table = CustomDataset.class_table(dataroot)
    rules = MapRules(label_nc=len(table.names), ignore_label=table.ignore, inst_8bit=True)
    sampling = Sampling(crop_size=size, load_size=0, augment=True, task="train", cache=cache)
    return CustomDataset(dataroot=dataroot, split="train", rules=rules, sampling=sampling)


# --- measuring --------------------------------------------------------------------------------------------------------
def main(opt: argparse.Namespace) -> None:
    """Print the table and write the JSON."""
    if opt.num_images < 1:
        raise UserError(f"--num_images {opt.num_images}: must be at least 1")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        dataroot = opt.dataroot
        if dataroot is None:
            dataroot = scratch
            prepare_streets.main(
                ["--output", scratch, "--height", str(opt.size), "--train", str(SCENES), "--test", "0"]
            )
        plain, cached = (open_split(dataroot, opt.size, cache=cache) for cache in ("none", "ram"))
        forms: dict[str, Callable[[int], Any]] = {
            PLAIN: lambda i: plain_sample(plain, 0, i),
            OURS: lambda i: plain[0, i],
            "ours, --cache ram": lambda i: cached[0, i],
            "carried": lambda i: plain.compact((0, i)),
            "carried, --cache ram": lambda i: cached.compact((0, i)),
            "decoding alone": lambda i: load_record(plain.records[i], plain.rules),
        }
        if opt.against != PLAIN:
            del forms[PLAIN]
        seconds = measure(forms, range(min(len(plain), opt.num_images)), opt.repeats)
        size = {"full": bytes_per_pixel(cached[0, 0]), "carried": bytes_per_pixel(cached.compact((0, 0)))}
    print(f"{opt.size}x{opt.size}, one thread, CPU time of a sample")
    print(f"{'':22}{'ms':>9}{'images/s':>10}{'ratio':>7}")
    rows = {}
    for name, spent in seconds.items():
        rows[name] = {"cpu_ms": 1e3 * spent, "images_per_s": 1 / spent}
        ratio = ""
        if PLAIN in seconds:
            rows[name]["ratio"] = seconds[PLAIN] / spent
            ratio = f"{rows[name]['ratio']:6.2f}x"
        print(f"{name:22}{1e3 * spent:9.2f}{1 / spent:10.0f}{ratio}")
    print(f"bytes per pixel: {size['full']:g}, carried {size['carried']:g}")
    save(opt, {"size": opt.size, "rows": rows, "bytes_per_pixel": size})


def bytes_per_pixel(sample: CompactSample) -> float:
    """Return the bytes of a sample's maps over its pixels."""
    maps = [value for value in sample.values() if isinstance(value, Tensor) and value.ndim > 1]
    return sum(x.nbytes for x in maps) / sample["label"].numel()


def measure(forms: dict[str, Callable[[int], Any]], indices: range, repeats: int) -> dict[str, float]:
    """Return the mean CPU seconds of a sample, of each the least that it took; all forms in turn."""
    least = {name: [float("inf")] * len(indices) for name in forms}
    for _ in range(repeats + 1):  # the first turn warms up
        for name, form in forms.items():
            for place, index in enumerate(indices):
                start = time.thread_time()
                form(index)
                least[name][place] = min(least[name][place], time.thread_time() - start)
    return {name: sum(seconds) / len(indices) for name, seconds in least.items()}
