"""Test an editing run: generate a split under fixed masks, evaluate in the same pass, save pictures, grid and report.

The result is a table on the screen and a line in the run's `metrics.jsonl`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data import DATASETS
from data.base_dataset import BaseDataset
from data.loader import make_loader, plain_pictures
from data.masks import FOLDER, MaskSetHash, has_truth, inverted_note, read_mask, real_title
from data.tasks import Selection
from metrics.base import Pictures
from metrics.evaluator import METRICS, NEED_TRUTH, Files, build_evaluator, format_table, parse_metrics, result_line
from metrics.report import write_report
from metrics.segmentation import class_table
from models import MODELS
from options.base_options import run_folder
from trainers.restore import load_run
from util.batch import Batch, to_device
from util.device import autocast, resolve_device
from util.errors import DataError, UserError
from util.files import require_writable, results_in
from util.images import to_uint8
from util.progress import progress
from util.results import ResultFolder
from util.seeds import derive_seed
from util.versions import current_commit, library_versions

NO_DRAWS = "the method draws nothing, or no picture needs a draw; leave --num_samples out"


def run(opt: Any) -> int:
    """Test the run that `opt` (of `TestOptions`) names; returns the exit code."""
    metrics = wanted_metrics(opt)
    dataset = DATASETS.get(opt.dataset_mode).from_options(opt, split=opt.split, augment=False, task=opt.task)
    selection = dataset.select(opt.num_images)
    if opt.task == FOLDER:
        shares = [read_mask(dataset.mask_paths[index], dataset.crop_size).mean() for index in selection.indices]
        if note := inverted_note(sum(shares) / len(shares), f"--mask_dir {opt.mask_dir}"):
            print(f"note: {note}")
    require_writable(run_folder(opt), "the run's folder")  # takes a line of numbers
    with results_in(results_folder(opt), "--results_dir"):
        return generate_split(opt, dataset, selection, metrics)


def wanted_metrics(opt: Any) -> list[str]:
    """Return the names in --metrics; raises `UserError` if none of them can be had for the task."""
    names = parse_metrics(opt.metrics)
    if names and not has_truth(opt.task) and not set(names) - NEED_TRUTH:
        others = ", ".join(name for name in METRICS if name not in NEED_TRUTH)
        raise UserError(
            f"--metrics {opt.metrics}: --task {opt.task} has no truth to compare with, as its pictures still show what "
            f"is removed; ask for some of {others}, or none"
        )
    return names


def generate_split(opt: Any, dataset: BaseDataset, selection: Selection, metrics: list[str]) -> int:
    """Generate and measure the selected pictures; returns the exit code."""
    device, run_dir = resolve_device(opt.device), run_folder(opt)
    model = MODELS.get(opt.model).from_options(opt, is_train=False)
    loaded = load_run(model, run_dir, step=opt.step, averaged=not opt.raw_weights)
    model.to(device).eval()
    evaluator = build_evaluator(
        metrics,
        device=device,
        files=Files.from_options(opt),
        label_nc=dataset.label_nc,
        ignore_label=dataset.ignore_label,
        class_names=dataset.class_names,
        per_class=opt.per_class,
        bootstrap=opt.bootstrap,
        required=opt.metrics != "all",
    )
    model.prepare_inference(run_dir, lambda limit: plain_pictures(opt, "train", limit), weights=loaded.name)
    model.choose_styles(opt.style_source)
    folder = results_folder(opt)
    masks, indices = MaskSetHash(), selection.indices
    results = ResultFolder(folder, count=len(indices), palette=dataset.palette, real_title=real_title(opt.task))

    keys = [indices[i : i + opt.batch_size] for i in range(0, len(indices), opt.batch_size)]
    alike = opt.num_samples > 1
    loader = make_loader(dataset, batch_size=opt.batch_size, num_workers=opt.num_workers, keys=keys)
    for batch in progress(loader, desc=f"{opt.name}: {opt.task}", unit="batch"):
        draws = generate_draws(model, to_device(batch, device), opt)
        alike = alike and all(torch.equal(draw, draws[0]) for draw in draws[1:])
        evaluator.update(as_saved(batch, draws, opt.task))
        results.add(batch, draws)
        for name, mask in zip(batch["name"], batch["mask"].numpy(), strict=True):
            masks.update(name, mask)

    values = evaluator.compute()
    protocol = describe(opt, dataset, selection, masks.hexdigest(), dict(model.counters))
    line = result_line(values, step=loaded.step, task=opt.task, num_images=len(indices), protocol=protocol)
    print(format_table([(opt.name, values)]))
    if opt.per_class:
        print(class_table(values))
    results.finish(line, run_dir / "metrics.jsonl")
    report = write_report(line, evaluator, folder, title=f"{opt.name}, {opt.task}")
    counted = (f"{n} {what}" for what, n in model.counters.items() if n)
    same = [f"all draws of each picture are equal: {NO_DRAWS}"] if alike else []
    for note in (*selection.notes, *evaluator.notes, *counted, *same):
        print(f"note: {note}")
    print(f"{len(indices)} pictures, {loaded.name}, masks {masks.hexdigest()}: {folder / 'grid.png'}, {report}")
    return 0


def results_folder(opt: Any) -> Path:
    """Return where the results of a test go."""
    return Path(opt.results_dir or run_folder(opt) / "results" / f"{opt.split}_{opt.task}")


def generate_draws(model: Any, batch: Batch, opt: Any) -> list[Tensor]:
    """Return `--num_samples` composites (B, 3, H, W) of a batch; a draw's seed is (seed, task, index, draw)."""
    draws = []
    for k in range(opt.num_samples):
        seeds = [derive_seed(opt.seed, opt.task, index, k) for index in batch["index"]]
        with autocast(batch["image"].device, opt.precision):
            draws.append(model.generate(batch, seeds).float().cpu())
    return draws


def as_saved(batch: Batch, draws: list[Tensor], task: str) -> Pictures:
    """Return a batch in 8 bit, as the metrics read it; raises `DataError` for a picture that is not finite."""
    for name, *results in zip(batch["name"], *draws, strict=True):
        if not all(bool(torch.isfinite(result).all()) for result in results):
            raise DataError(f"{name}: the generated picture holds NaN or infinite values; is the checkpoint sound?")
    draws8 = torch.from_numpy(to_uint8(torch.stack(draws, 1))).movedim(-1, 2)
    real8 = torch.from_numpy(to_uint8(batch["image"])).movedim(-1, 1)
    mask = batch["mask"].to(torch.uint8)
    truth, inst = has_truth(task), batch["inst"]
    return Pictures(draws8[:, 0], real8, mask, batch["label"], batch["name"], truth, inst, draws8)


def describe(
    opt: Any, dataset: BaseDataset, selection: Selection, mask_set: str, counters: dict[str, int]
) -> dict[str, Any]:
    """Return what the numbers depend on beside the metrics themselves."""
    return {
        "run": opt.name, "model": opt.model, "dataset_mode": opt.dataset_mode, "split": opt.split,
        "split_size": len(dataset), "left_out": selection.left_out, "notes": selection.notes,
        "mask_set": mask_set, "seed": opt.seed, "draw": "first of each picture",
        "style_source": opt.style_source,
        "crop_size": opt.crop_size, "load_size": opt.load_size, "reference": "the same cuts of the same files, 8 bit",
        "weights": "last" if opt.raw_weights else "averaged where the run has them", "precision": opt.precision,
        "counters": counters, "commit": current_commit(), "versions": library_versions(),
    }  # fmt: skip
