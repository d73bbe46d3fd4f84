"""Test a run of one picture (SemIA): render the source for every target layout, and measure.

Leaves in `--results_dir` a picture per target, a strip (source, its layout, target layout, result) beside each and of
all, report.html, and a line in the run's `metrics.jsonl`. Rendering is deterministic: there is no diversity.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data import DATASETS
from data.single_image_dataset import COND, SingleImageDataset, single_batch
from metrics.base import MetricValue, Pictures
from metrics.evaluator import Evaluator, result_line
from metrics.layout import mean_colours, measure_layout, nearest_colour
from metrics.lpips import load_lpips
from metrics.perceptual import Perceptual
from metrics.reconstruction import Reconstruction
from metrics.report import write_report
from metrics.sifid import measure_sifid
from models import MODELS
from models.base_model import BaseModel
from options.base_options import run_folder
from trainers.restore import Loaded, load_run
from util.analogy import TITLES, AnalogyBatch, analogy_row, analogy_strip
from util.batch import to_device
from util.device import autocast, resolve_device
from util.errors import DataError, UserError
from util.files import append_line, require_writable, results_in, write_text
from util.flags import metric_names
from util.images import save_png, to_uint8
from util.versions import current_commit, library_versions

RECONSTRUCTION = ("l1", "psnr", "ssim")
METRICS = (*RECONSTRUCTION, "lpips", "sifid", "layout")
MARKER = ".pictures"  # lists what a test wrote, for the next one to remove


@dataclass(frozen=True)
class Rendered:
    """A result: its batch, picture (3, H, W) in [-1, 1] and, as saved, (3, H, W) uint8."""

    batch: AnalogyBatch
    image: Tensor
    saved: Tensor


class Renderer:
    """A run with its picture, ready to render.

    Args:
        opt: of `TestOptions` or `EditOptions`.
    """

    def __init__(self, opt: Any) -> None:
        self.opt, self.device = opt, resolve_device(opt.device)
        self.run_dir = run_folder(opt)
        self.model: BaseModel = MODELS.get(opt.model).from_options(opt, is_train=False)
        self.loaded: Loaded = load_run(self.model, self.run_dir, step=opt.step, averaged=not opt.raw_weights)
        self.model.to(self.device).eval()

    def dataset(self, split: str) -> SingleImageDataset:
        """Return the source with its own layout ("train") or with the targets ("test")."""
        kind: Any = DATASETS.get(self.opt.dataset_mode)
        dataset: SingleImageDataset = kind.from_options(self.opt, split=split, augment=False, task="none")
        return dataset

    def render(self, batch: AnalogyBatch) -> Rendered:
        """Render a batch of one; raises `DataError` for a result that is not finite."""
        moved: Any = to_device(batch, self.device)  # type: ignore[arg-type]
        with autocast(self.device, self.opt.precision):
            image = self.model.generate(moved, [0]).float().cpu()[0]
        if not bool(torch.isfinite(image).all()):
            raise DataError(f"{batch['name'][0]}: the result holds NaN or infinite values; is the checkpoint sound?")
        return Rendered(batch, image, as_saved(image))


def as_saved(image: Tensor) -> Tensor:
    """Return a picture (3, H, W) in 8 bit."""
    return torch.from_numpy(to_uint8(image)).movedim(-1, 0)


def run(opt: Any) -> int:
    """Test the run that `opt` (of `TestOptions`) names; returns the exit code."""
    wanted = metric_names(opt.metrics, METRICS)
    require_writable(run_folder(opt), "the run's folder")  # takes a line of numbers
    renderer, folder = Renderer(opt), Path(opt.results_dir or run_folder(opt) / "results" / "analogy")
    with results_in(folder, "--results_dir"):
        return render_targets(opt, renderer, wanted, folder)


def render_targets(opt: Any, renderer: Renderer, wanted: list[str], folder: Path) -> int:
    """Render and measure all targets; returns the exit code."""
    source, targets = renderer.dataset("train"), renderer.dataset("test")
    names = file_names(targets.names)
    own = renderer.render(single_batch(source, 0))
    results = {name: renderer.render(single_batch(targets, k)) for k, name in enumerate(targets.names)}
    values, notes = measure(wanted, own, results, renderer, source.label_nc, required=opt.metrics != "all")
    line = result_line(
        values, step=renderer.loaded.step, task="analogy", num_images=len(results), protocol=describe(opt, source)
    )
    clear_earlier(folder)
    rows = {name: analogy_row(found.batch, found.image[None]) for name, found in results.items()}
    for name, row in rows.items():
        save_png(row[-1], folder / f"{name}.png")
        save_png(analogy_strip([row]), folder / f"{name}_strip.png")
    save_png(analogy_strip(list(rows.values())), folder / "grid.png")
    write_text(folder / MARKER, "\n".join(names) + "\n")
    write_text(folder / "result.json", json.dumps(line, indent=1) + "\n")
    append_line(renderer.run_dir / "metrics.jsonl", json.dumps(line))
    report = report_page(line, rows, folder, title=f"{opt.name}, analogies")
    for name, value in values.items():
        real = f" (source {value.extra['real']:.2f})" if "real" in value.extra else ""
        print(f"{name:<20} {value.value:9.4f}{real}")
    for note in notes:
        print(f"note: {note}")
    print(f"{len(results)} targets, {renderer.loaded.name}: {folder / 'grid.png'}, {report}")
    return 0


# --- files ------------------------------------------------------------------------------------------------------------
def file_names(stems: list[str]) -> list[str]:
    """Return the names of all pictures; raises `UserError` if targets would overwrite each other's."""
    names = [f"{stem}{ending}" for stem in stems for ending in (".png", "_strip.png")] + ["grid.png"]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two pictures would be called {twice}: rename a file in the folder of target layouts")
    return names


def clear_earlier(folder: Path) -> None:
    """Remove the pictures of an earlier test, so that a folder never mixes two."""
    marker = folder / MARKER
    folder.mkdir(parents=True, exist_ok=True)
    if marker.is_file():
        for name in marker.read_text(encoding="utf-8").splitlines():
            if Path(name).name == name:  # of a run that somebody else made, the file may name any path
                (folder / name).unlink(missing_ok=True)


def report_page(line: dict[str, Any], rows: dict[str, list[np.ndarray]], folder: Path, *, title: str) -> Path:
    """Write report.html."""
    evaluator = Evaluator([])
    evaluator.names, evaluator.share = list(rows), [float("nan")] * len(rows)
    return write_report(
        line, evaluator, folder, title=title, load=lambda name: dict(zip(TITLES, rows[name], strict=True))
    )


# --- numbers ----------------------------------------------------------------------------------------------------------
def measure(
    wanted: list[str], own: Rendered, results: dict[str, Rendered], renderer: Renderer, classes: int, *, required: bool
) -> tuple[dict[str, MetricValue], list[str]]:
    """Return the values by name, and notes on what is missing; `required`: what cannot be had is an error."""
    opt, source = renderer.opt, as_saved(own.batch["image"][0])
    found: dict[str, MetricValue] = {}
    notes = ["rendering is deterministic: no diversity"]
    pair = Pictures(own.saved[None], source[None], None, None, own.batch["name"])
    for name in wanted:
        try:
            if name in RECONSTRUCTION:
                metric: Any = Reconstruction((f"{name}_whole",))
                found |= reconstruction(metric, pair, name)
            elif name == "lpips":
                net, hashes = load_lpips(opt.lpips_net, heads=opt.lpips_weights, backbone=opt.lpips_backbone)
                found |= reconstruction(Perceptual(net, hashes, device=renderer.device, kinds=("lpips",)), pair, name)
            elif name == "sifid":
                saved = {key: result.saved for key, result in results.items()}
                found["sifid"] = measure_sifid(source, saved, weights=opt.inception_weights)
            else:
                found |= layout(own, results, renderer, classes, notes)
        except UserError as error:
            if required:
                raise
            notes.append(f"{name} left out: {error}")
    return found, notes


def reconstruction(metric: Any, pair: Pictures, name: str) -> dict[str, MetricValue]:
    """Return `<name>_rec`: of the source rendered for its own layout, against the source, whole picture."""
    metric.update(pair)
    value = metric.compute()[f"{name}_whole"]
    protocol = f"the source rendered for its own layout, against the source: {value.protocol}"
    return {f"{name}_rec": MetricValue(value.value, value.unit, protocol, value.count, value.extra)}


def layout(
    own: Rendered, results: dict[str, Rendered], renderer: Renderer, classes: int, notes: list[str]
) -> dict[str, MetricValue]:
    """Return accuracy and mean IoU of the target layouts, by colour and by the run's segmentation network."""
    picture, label = as_saved(own.batch["image"][0]), own.batch["label"][0]
    pairs = {name: (found.saved, found.batch["target_label"][0]) for name, found in results.items()}
    settings: dict[str, Any] = {"source": (picture, label), "results": pairs, "classes": classes}
    colours = mean_colours(picture, label, classes)
    found = measure_layout("colour", lambda x: nearest_colour(x, colours), **settings)
    netS: Any = renderer.model.networks().get("netS")
    if netS is None:
        notes.append("layout by the segmentation network left out: converted weights have none")
        return found
    centres = class_inputs(own.batch, classes)

    @torch.no_grad()
    def read(saved: Tensor) -> Tensor:
        x = (saved.float() / 127.5 - 1)[None].to(renderer.device)
        return nearest_colour(netS.judge(x)[0].cpu(), centres)

    return found | measure_layout("segnet", read, **settings)


def class_inputs(batch: AnalogyBatch, classes: int) -> Tensor:
    """Return what each class looks like as a network's input (N, C): its mean over the source's layout."""
    return mean_colours(batch["seg"][0], batch["label"][0], classes)


def describe(opt: Any, source: SingleImageDataset) -> dict[str, Any]:
    """Return what the numbers depend on beside the metrics themselves."""
    return {
        "run": opt.name, "model": opt.model, "dataset_mode": opt.dataset_mode, "picture": source.image_path.name,
        "size": list(source.image.shape[:2]), "resize": opt.resize, "label_kind": opt.label_kind,
        "align_labels": opt.align_labels, "cond": str(opt.cond or COND), "classes": source.class_names,
        "reference": "the source picture as scaled and cropped, 8 bit", "split": "targets", "seed": opt.seed,
        "weights": "last" if opt.raw_weights else "averaged where the run has them", "precision": opt.precision,
        "commit": current_commit(), "versions": library_versions(),
    }  # fmt: skip
