"""Test a trained run: `python test.py --name cv --task free_form --segmenter espnet_camvid --segmenter_weights FILE`.

Generates the split under the task's fixed masks, saves the pictures and a grid, evaluates in the same pass, prints a
table and appends a line to `<checkpoints_dir>/<name>/metrics.jsonl`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from data import DATASETS
from data.base_dataset import BaseDataset
from data.loader import make_loader, plain_pictures
from data.masks import MaskSetHash
from metrics.base import Pictures
from metrics.evaluator import build_evaluator, format_table, parse_metrics, result_line
from models import MODELS
from options.base_options import run_folder
from options.test_options import TestOptions
from trainers.restore import load_run
from util.batch import Batch, to_device
from util.device import autocast, resolve_device
from util.errors import run_main
from util.images import to_uint8
from util.results import ResultFolder
from util.seeds import derive_seed
from util.versions import current_commit, library_versions


def main(argv: list[str] | None = None) -> int:
    opt = TestOptions().parse(argv)
    device, run_dir = resolve_device(opt.device), run_folder(opt)
    dataset = DATASETS.get(opt.dataset_mode).from_options(opt, split=opt.split, augment=False, task=opt.task)
    count = min(len(dataset), opt.num_images or len(dataset))
    model = MODELS.get(opt.model).from_options(opt, is_train=False)
    step = load_run(model, run_dir, step=opt.step, averaged=not opt.raw_weights)
    model.to(device).eval()
    evaluator = build_evaluator(
        parse_metrics(opt.metrics),
        device=device,
        inception_weights=opt.inception_weights,
        segmenter=opt.segmenter,
        segmenter_weights=opt.segmenter_weights,
        checkpoints_dir=opt.checkpoints_dir,
        label_nc=dataset.label_nc,
        ignore_label=dataset.ignore_label,
        class_names=dataset.class_names,
    )
    model.prepare_inference(run_dir, lambda limit: plain_pictures(opt, "train", limit))
    model.choose_styles(opt.style_source)
    folder = Path(opt.results_dir or run_dir / "results" / f"{opt.split}_{opt.task}")
    results, masks = ResultFolder(folder, palette=dataset.palette), MaskSetHash()

    keys = [list(range(i, min(i + opt.batch_size, count))) for i in range(0, count, opt.batch_size)]
    loader = make_loader(dataset, batch_size=opt.batch_size, num_workers=opt.num_workers, keys=keys)
    for batch in tqdm(loader, desc=f"{opt.name}: {opt.task}", unit="batch", disable=None):
        draws = generate_draws(model, to_device(batch, device), opt)
        results.add(batch, draws)
        for name, mask in zip(batch["name"], batch["mask"].numpy(), strict=True):
            masks.update(name, mask)
        evaluator.update(as_saved(batch, draws[0]))

    values = evaluator.compute()
    protocol = describe(opt, dataset, masks.hexdigest(), dict(model.counters))
    line = result_line(values, step=step, task=opt.task, num_images=count, protocol=protocol)
    results.finish(line, run_dir / "metrics.jsonl")
    print(format_table([(opt.name, values)]))
    counted = (f"{n} {what}" for what, n in model.counters.items() if n)
    for note in (*evaluator.notes, *counted):
        print(f"note: {note}")
    print(f"{count} pictures, step {step}, masks {masks.hexdigest()}: {folder / 'grid.png'}")
    return 0


def generate_draws(model: Any, batch: Batch, opt: Any) -> list[Tensor]:
    """Return `--num_samples` composites (B, 3, H, W) of a batch; a draw's seed is (seed, task, index, draw)."""
    draws = []
    for k in range(opt.num_samples):
        seeds = [derive_seed(opt.seed, opt.task, index, k) for index in batch["index"]]
        with autocast(batch["image"].device, opt.precision):
            draws.append(model.generate(batch, seeds).float().cpu())
    return draws


def as_saved(batch: Batch, fake: Tensor) -> Pictures:
    """Return a batch in 8 bit, as the metrics read it."""
    fake8, real8 = (torch.from_numpy(to_uint8(p)).movedim(-1, 1) for p in (fake, batch["image"]))
    return Pictures(fake8, real8, batch["mask"].to(torch.uint8), batch["label"], batch["name"])


def describe(opt: Any, dataset: BaseDataset, mask_set: str, counters: dict[str, int]) -> dict[str, Any]:
    """Return what the numbers depend on beside the metrics themselves."""
    return {
        "run": opt.name, "model": opt.model, "dataset_mode": opt.dataset_mode, "split": opt.split,
        "split_size": len(dataset), "mask_set": mask_set, "seed": opt.seed, "draw": "first of each picture",
        "style_source": opt.style_source,
        "crop_size": opt.crop_size, "load_size": opt.load_size, "reference": "the same cuts of the same files, 8 bit",
        "weights": "last" if opt.raw_weights else "averaged where the run has them", "precision": opt.precision,
        "counters": counters, "commit": current_commit(), "versions": library_versions(),
    }  # fmt: skip


if __name__ == "__main__":
    run_main(main)
