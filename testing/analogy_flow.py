"""Tests of runs of one picture (SemIA): the source is rendered for every target layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data import DATASETS
from data.single_image_dataset import COND, SingleImageDataset, single_batch
from metrics.declaration import Setup, Source
from metrics.evaluator import Evaluator, build_evaluator
from metrics.metric import MetricValue
from metrics.pictures import Pictures
from metrics.registry import ANALOGY, METRICS
from metrics.reporting.page.gallery import Result
from metrics.reporting.report import write_report
from metrics.reporting.result import describe_run
from metrics.segments.layout import mean_colours, nearest_colour
from models import MODELS
from models.base_model import BaseModel
from options.base_options import run_folder
from testing.flow import FLOWS, Flow, Measured, Test
from trainers.distributed import Distributed
from trainers.restore import Loaded, load_run
from util.batch import to_device
from util.device import autocast, resolve_device
from util.errors import DataError, UserError
from util.files import write_text
from util.images import save_png, to_uint8
from util.listing import is_file_name
from util.opt import Opt
from util.progress import progress
from util.shared_flags import add_shared
from util.single_image import TITLES, SingleImageBatch, picture_row, picture_strip

MARKER = ".pictures"  # lists the pictures of a test, for the next one to remove


@dataclass(frozen=True)
class Rendered:
    """A result: its batch, picture (3, H, W) in [-1, 1] and, as saved, (3, H, W) uint8."""

    batch: SingleImageBatch
    image: Tensor
    saved: Tensor


class Renderer:
    """A run with its picture, ready to render; `opt` is of `TestOptions` or `EditOptions`."""

    def __init__(self, opt: Opt) -> None:
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

    def render(self, batch: SingleImageBatch) -> Rendered:
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


@FLOWS.register("analogy")
class AnalogyFlow(Flow):
    """One picture, rendered for other layouts."""

    kind = ANALOGY
    default_metrics = "l1,psnr,ssim,layout"

    @classmethod
    def add_own_flags(cls, group: Any) -> None:
        add_shared(group, "task", choices=("analogy",), default="analogy", help="what a result line calls this")
        group.add_argument("--cond", metavar="DIR", help="target layouts; default: <dataroot>/cond")
        add_shared(group, "results_dir", help="default: <run>/results/analogy")

    @classmethod
    def results_folder(cls, opt: Opt) -> Path:
        return Path(opt.results_dir or run_folder(opt) / "results" / "analogy")

    @classmethod
    def tests(cls, opt: Opt, world: Distributed) -> list[Test]:
        return [AnalogyTest(opt)]


class AnalogyTest(Test):
    """The source rendered for every target layout, and for its own.

    Leaves a picture per target, a strip (source, its layout, target layout, result) beside each and of all, and a
    report. Rendering is deterministic: there is no diversity.
    """

    task = "analogy"

    def __init__(self, opt: Opt) -> None:
        self.opt, self.name = opt, opt.name
        self.renderer = Renderer(opt)
        self.run_dir, self.folder = self.renderer.run_dir, AnalogyFlow.results_folder(opt)
        self.dataset, self.targets = self.renderer.dataset("train"), self.renderer.dataset("test")
        self.files = file_names(self.targets.names)

    def measure(self) -> Measured:
        source = self.renderer.render(single_batch(self.dataset, 0))
        names = self.targets.names
        shown = enumerate(progress(names, desc=f"{self.name}: {self.task}", unit="layout"))
        results = {name: self.renderer.render(single_batch(self.targets, k)) for k, name in shown}
        self.rows = {name: picture_row(result.batch, result.image[None]) for name, result in results.items()}
        self.reconstruction, self.evaluator = self.evaluators(source)
        picture = as_saved(source.batch["image"][0])[None]
        self.reconstruction.update(Pictures(source.saved[None], picture, None, None, source.batch["name"]))
        for name, result in results.items():
            saved, label = result.saved[None], result.batch["target_label"]
            # A target layout has no picture: results are compared with the source in `Setup`.
            self.evaluator.update(Pictures(saved, saved, None, label, [name], has_truth=False))
        values = {**of_reconstruction(self.reconstruction.compute()), **self.evaluator.compute()}
        notes = ["rendering is deterministic: no diversity", *self.reconstruction.notes, *self.evaluator.notes]
        return Measured(values, notes, self.renderer.loaded.step, len(results), self.protocol(), self.evaluator.kept())

    def evaluators(self, source_rendering: Rendered) -> tuple[Evaluator, Evaluator]:
        """Return the evaluators of the source's own rendering and of the targets'."""
        names, required = AnalogyFlow.metrics(self.opt.metrics), self.opt.metrics != "all"
        of_targets = [name for metric, asked in METRICS.members(names) if metric.of_source for name in asked]
        source = source_of(source_rendering, self.renderer, self.dataset.label_nc)
        setup = Setup(opt=self.opt, device=self.renderer.device, whole=True, masks=False, source=source)
        parts = ([name for name in names if name not in of_targets], of_targets)
        first, second = (build_evaluator(part, setup, required=required) for part in parts)
        return first, second

    def protocol(self) -> dict[str, Any]:
        """Return what the numbers depend on apart from the metrics."""
        opt, source = self.opt, self.dataset
        return describe_run(
            opt, picture=source.image_path.name, size=list(source.image.shape[:2]), resize=opt.resize,
            label_kind=opt.label_kind, align_labels=opt.align_labels, cond=str(opt.cond or COND),
            classes=source.class_names, reference="the source picture as scaled and cropped, 8 bit", split="targets",
            seed=opt.seed,
        )  # fmt: skip

    def write(self, line: Mapping[str, Any]) -> str:
        folder = self.folder
        clear_earlier(folder)
        for name, row in self.rows.items():
            save_png(row[-1], folder / f"{name}.png")
            save_png(picture_strip([row]), folder / f"{name}_strip.png")
        save_png(picture_strip(list(self.rows.values())), folder / "grid.png")
        write_text(folder / MARKER, "\n".join(self.files) + "\n")
        result = Result(
            self.name, line, lambda name: dict(zip(TITLES, self.rows[name], strict=True)), self.evaluator.notes
        )
        report = write_report([result], folder, title=f"{self.name}, analogies")
        return f"{len(self.rows)} targets, {self.renderer.loaded.name}: {folder / 'grid.png'}, {report}"


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
            if is_file_name(name):  # a file of somebody else's run may name any path
                (folder / name).unlink(missing_ok=True)


# --- numbers ----------------------------------------------------------------------------------------------------------
def of_reconstruction(values: Mapping[str, MetricValue]) -> dict[str, MetricValue]:
    """Return values of the source rendered for its own layout, against the source, as `<metric>_rec`."""
    what = "the source rendered for its own layout, against the source"
    return {
        f"{name.removesuffix('_whole')}_rec": replace(value, protocol=f"{what}: {value.protocol}")
        for name, value in values.items()
        if name.endswith("_whole")
    }


def source_of(rendered: Rendered, renderer: Renderer, classes: int) -> Source:
    """Return the source as metrics take it, with the run's segmentation network as a reader of layouts."""
    picture, label = as_saved(rendered.batch["image"][0]), rendered.batch["label"][0]
    netS: Any = renderer.model.networks().get("netS")
    if netS is None:
        return Source(picture, label, classes)
    centres = mean_colours(rendered.batch["seg"][0], label, classes)  # what each class looks like as a network's input

    @torch.no_grad()
    def read(saved: Tensor) -> Tensor:
        x = (saved.float() / 127.5 - 1)[None].to(renderer.device)
        return nearest_colour(netS.judge(x)[0].cpu(), centres)

    return Source(picture, label, classes, read)
