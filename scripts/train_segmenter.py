"""Train a small segmentation network on a data set's own pictures and labels, for mIoU and accuracy in test.py.

    python scripts/train_segmenter.py --dataset_mode camvid --dataroot datasets/camvid --name camvid_unet
    python test.py --name RUN --segmenter camvid_unet

Writes <checkpoints_dir>/<name>/segmenter.{safetensors,yaml}; the second holds the score on the real test pictures.
Beside them is the data set's classes.json, for scripts/label.py.
The one that ships for `streets` was made by `--dataset_mode streets --streets_train_size 1000 --crop_size 64 --width 12
--max_steps 2000 --batch_size 16 --name streets --checkpoints_dir metrics/segments/weights --overwrite`, 10 minutes
on two cores.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from data import DATASETS, scene_dataset
from data.base_dataset import BaseDataset
from data.loader import make_loader
from data.prepare.writing import save_classes
from metrics.segments.confusion import Confusion
from metrics.segments.segmenter import IGNORED, label_table
from metrics.segments.segmenters import CARD_FILE, WEIGHTS_FILE, is_reserved, load_trained
from metrics.segments.unet import ARCHITECTURES, build_segmenter_net
from options.base_options import add_data_flags, add_run_flags, run_folder
from options.parser import StrictParser, check_name, script_parser
from util.batch import Batch, on_host, to_device
from util.device import autocast, resolve_device
from util.errors import EXIT_OK, UserError, run_main
from util.files import require_writable, write_text
from util.flags import positive
from util.opt import Opt
from util.progress import progress
from util.sealed import save_tensors
from util.seeds import torch_generator

FREQUENCY_SAMPLES = 100  # pictures whose labels set the class weights


class SegmenterOpt(Opt):
    """Options of this command."""

    arch: str
    width: int
    overwrite: bool


def parse_options(argv: list[str] | None = None) -> SegmenterOpt:
    """Parse the command line; the chosen data set adds its flags and fills in what was not given."""
    probe = StrictParser(add_help=False)
    probe.add_argument("--dataset_mode", default="streets")
    mode = scene_dataset(probe.parse_known_args(argv)[0].dataset_mode)
    parser = script_parser(__doc__)
    add_run_flags(parser)
    add_data_flags(parser)
    group = parser.add_argument_group("network")
    group.add_argument("--arch", choices=ARCHITECTURES, default="unet", help="see metrics/segments/unet.py")
    group.add_argument("--width", type=int, default=24, help="first channel count of the U-Net")
    group.add_argument("--max_steps", type=int, default=4000, help="optimiser steps")
    group.add_argument("--lr", type=positive, default=2e-3, help="highest learning rate (AdamW, warm-up and cosine)")
    group.add_argument("--overwrite", action="store_true", help="replace the segmenter of this name")
    mode.modify_commandline_options(parser, is_train=True)
    opt: SegmenterOpt = parser.parse_args(argv)
    check_name(opt.name)
    if min(opt.max_steps, opt.batch_size, opt.width) < 1 or opt.crop_size < 16 or opt.crop_size % 8:
        raise UserError(
            "--max_steps, --batch_size and --width must be positive, --crop_size a multiple of 8 from 16 on"
        )
    if opt.num_workers < 0:
        raise UserError(f"--num_workers {opt.num_workers} is less than 0")
    if is_reserved(opt.name, run_folder(opt)):
        raise UserError(f"--name {opt.name}: a segmenter of this name comes with the code; choose another")
    vars(opt).update(mode.complete_options(opt))
    return opt


def main(argv: list[str] | None = None) -> int:
    """Train, score on the real test pictures, save: nothing is written under the name before the end."""
    opt = parse_options(argv)
    folder = run_folder(opt)
    if folder.exists() and not opt.overwrite:
        raise UserError(f"{folder} exists already: give another --name, or --overwrite to replace its segmenter")
    require_writable(folder if folder.exists() else folder.parent, "--checkpoints_dir")
    device = resolve_device(opt.device)
    torch.manual_seed(opt.seed)
    mode = DATASETS.get(opt.dataset_mode)
    train_set = mode.from_options(opt, split="train", augment=True, task="none")
    test_set = mode.from_options(opt, split="test", augment=False, task="none")
    net = build_segmenter_net(arch=opt.arch, width=opt.width, num_classes=train_set.label_nc).to(device)
    train(net, train_set, opt, device)
    trained_on = {name: getattr(opt, name) for name in ("dataset_mode", "crop_size", "seed")}
    card = {
        "arch": opt.arch,
        "width": opt.width,
        "class_names": list(train_set.class_names),
        "short_side": opt.load_size or opt.crop_size,
        "ignore_label": train_set.ignore_label,
        "trained_on": {**trained_on, "steps": opt.max_steps},
        "real_test": {},
    }
    with tempfile.TemporaryDirectory() as trial:  # score what is stored, in half precision
        save(net, card, Path(trial))
        card["real_test"] = score(opt, test_set, device, Path(trial))
    save(net, card, folder)
    save_classes(train_set, folder)
    print(f"{folder / WEIGHTS_FILE}: {opt.max_steps} steps; real test pictures: {card['real_test']}")
    return EXIT_OK


def train(net: nn.Module, dataset: BaseDataset, opt: SegmenterOpt, device: torch.device) -> None:
    """Minimise the class-weighted cross-entropy."""
    weight = class_weights(dataset).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=opt.lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, opt.max_steps))
    keys = list(key_batches(len(dataset), batch_size=opt.batch_size, steps=opt.max_steps, seed=opt.seed))
    loader = make_loader(dataset, batch_size=opt.batch_size, num_workers=opt.num_workers, keys=keys)
    bar = progress(loader, total=opt.max_steps, desc=f"segmenter {opt.name}", unit="step")
    net.train()
    for step, batch in enumerate(bar):
        pictures, target = training_pair(to_device(batch, device), dataset.ignore_label)
        with autocast(device, opt.precision):
            logits = net(pictures)
        loss = F.cross_entropy(logits.float(), target, weight=weight, ignore_index=IGNORED)
        if not bool(torch.isfinite(loss)):
            raise UserError(
                f"the loss became {loss.item()} at step {step}: lower --lr, or look for a batch without labels"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix({"loss": f"{loss.item():.3f}"})


def training_pair(batch: Batch, ignore_label: int | None) -> tuple[Tensor, Tensor]:
    """Return pictures (B,3,H,W) float in [0, 255] and classes (B,H,W) with -1 where the label is ignored."""
    label = batch["label"]
    if ignore_label is not None:
        label = torch.where(label == ignore_label, IGNORED, label)
    return (batch["image"] + 1) * 127.5, label


def class_weights(dataset: BaseDataset) -> Tensor:
    """Return (C,) 1/sqrt(pixel share), mean 1 over the classes that occur; 0 for those that do not."""
    counts = np.zeros(dataset.label_nc)
    for index in np.unique(np.linspace(0, len(dataset) - 1, FREQUENCY_SAMPLES).astype(int)):
        label = dataset.maps(int(index)).label
        inside = label[(label >= 0) & (label < dataset.label_nc)]
        counts += np.bincount(inside.ravel(), minlength=dataset.label_nc)
    if dataset.ignore_label is not None and dataset.ignore_label < dataset.label_nc:
        counts[dataset.ignore_label] = 0
    weight = np.where(counts > 0, 1 / np.sqrt(np.maximum(counts, 1) / counts.sum()), 0)
    return torch.from_numpy(weight / weight[weight > 0].mean()).float()


def rate(step: int, steps: int) -> float:
    """Share of the highest learning rate: 5 % warm-up, then half a cosine."""
    warm = max(1, steps // 20)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def key_batches(length: int, *, batch_size: int, steps: int, seed: int) -> Iterator[list[tuple[int, int]]]:
    """Yield `steps` batches of (epoch, index), each epoch in its own order."""
    stream = ((epoch, i) for epoch in range(steps * batch_size) for i in _order(length, seed, epoch))
    for _ in range(steps):
        yield [next(stream) for _ in range(batch_size)]


def _order(length: int, seed: int, epoch: int) -> list[int]:
    return torch.randperm(length, generator=torch_generator(seed, "segmenter", epoch)).tolist()


def score(opt: SegmenterOpt, dataset: BaseDataset, device: torch.device, folder: Path) -> dict[str, float | int]:
    """Return mIoU and accuracy in percent of the network saved in `folder` on the centre cuts of real test pictures."""
    segmenter = load_trained(opt.name, folder, weights=folder / WEIGHTS_FILE, device=device)
    table = label_table(segmenter, label_nc=dataset.label_nc, ignore_label=dataset.ignore_label).to(device)
    confusion = Confusion(segmenter.num_classes)
    loader = make_loader(dataset, batch_size=opt.batch_size, num_workers=opt.num_workers)
    for batch in map(on_host, progress(loader, desc="real test pictures", unit="batch")):
        pictures = ((batch["image"] + 1) * 127.5).round().to(torch.uint8)
        label = batch["label"].to(device)
        known = (label >= 0) & (label < len(table))
        confusion.add(torch.where(known, table[label.where(known, 0)], IGNORED), segmenter.predict(pictures))
    return {"miou": round(confusion.miou(), 3), "acc": round(confusion.accuracy(), 3), "num_images": len(dataset)}


def save(net: nn.Module, card: dict[str, object], folder: Path) -> None:
    """Write the weights (half precision) and their card, each by rename."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.cpu() for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    save_tensors(folder / WEIGHTS_FILE, {key: value.half() for key, value in state.items()}, {})
    write_text(folder / CARD_FILE, yaml.safe_dump(card, sort_keys=False))


if __name__ == "__main__":
    run_main(main)
