"""Tests of runs that edit scenes: a split is generated under fixed masks and evaluated in the same pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data import DATASETS
from data.base_dataset import BaseDataset
from data.loader import make_loader, plain_pictures
from data.masks import FOLDER, OBJECT_TASKS, TASKS, MaskSetHash, has_truth, inverted_note, read_mask, real_title
from metrics.declaration import Setup
from metrics.evaluator import Evaluator, build_evaluator
from metrics.pictures import Pictures
from metrics.registry import EDITING, METRICS
from metrics.reporting.page.gallery import Result
from metrics.reporting.report import load_results, write_report
from metrics.reporting.result import describe_run
from models import MODELS
from models.base_model import BaseModel
from options.base_options import run_folder
from testing.flow import FLOWS, Flow, Measured, Test
from testing.packs.pack import DRAW, REFERENCE
from testing.ways import WAYS, folder_of_test
from trainers.distributed import Distributed
from trainers.restore import load_run
from util.batch import Batch, on_host, to_device
from util.device import autocast
from util.errors import DataError, UserError
from util.flags import positive_int
from util.images import to_uint8
from util.opt import Opt
from util.progress import progress
from util.results import ResultFolder
from util.seeds import derive_seed
from util.shared_flags import add_shared

ALONE = Distributed()
NO_DRAWS = "the method draws nothing, or no picture needs a draw; leave --num_samples out"


@FLOWS.register("editing")
class EditingFlow(Flow):
    """Scenes whose masked pixels are filled."""

    kind = EDITING
    shared = True
    default_metrics = "fid,fid_region,miou,acc,miou_masked,acc_masked,l1,psnr,ssim,seam"

    @classmethod
    def add_own_flags(cls, group: Any) -> None:
        group.add_argument("--split", default="test", help="split to generate")
        add_shared(group, "task", choices=(*TASKS, FOLDER), default="free_form")
        group.add_argument("--mask_dir", metavar="DIR", help="mask PNGs (white: generate) for --task folder")
        add_shared(group, "test_cuts", "object_classes")
        group.add_argument(
            "--removal", choices=("thing", "released"), default="thing",
            help="object_removal: the erased thing leaves the instance map, or all things do, and edges, as SIEDOB's "
            "release has it: its background network then fills the mask alone",
        )  # fmt: skip
        first = "only the first so many pictures that the task can use; default: all"
        group.add_argument("--num_images", type=positive_int, help=first)
        add_shared(group, "num_samples", help="draws per picture; div_* reads all, other metrics the first")
        add_shared(group, "style_source", "results_dir")

    @classmethod
    def validate(cls, opt: Opt) -> None:
        super().validate(opt)
        if (opt.task == "folder") != (opt.mask_dir is not None):
            raise UserError("--task folder and --mask_dir DIR belong together")
        if opt.object_classes is not None and opt.task not in OBJECT_TASKS:
            raise UserError(f"--object_classes {opt.object_classes}: --task {opt.task} chooses no object")
        if opt.removal != "thing" and has_truth(opt.task):
            raise UserError(f"--removal {opt.removal}: --task {opt.task} removes nothing")
        needing = METRICS.needing("truth")
        names = cls.metrics(opt.metrics)
        if names and not has_truth(opt.task) and set(names) <= set(needing):
            others = ", ".join(name for name in METRICS.names(EDITING) if name not in needing)
            raise UserError(
                f"--metrics {opt.metrics}: --task {opt.task} has no truth to compare with, as its pictures still show "
                f"what is removed; ask for some of {others}, or none"
            )

    @classmethod
    def require_data(cls, opt: Opt) -> None:
        dataset = DATASETS.get(opt.dataset_mode).from_options(opt, split=opt.split, augment=False, task=opt.task)
        dataset.select(1)
        new_evaluator(opt, dataset, torch.device("cpu"))

    @classmethod
    def results_folder(cls, opt: Opt) -> Path:
        if opt.results_dir:
            return Path(opt.results_dir)
        ways = {name: getattr(opt, name) for name in WAYS}
        return folder_of_test(run_folder(opt) / "results", opt.split, opt.task, ways, best=opt.step == "best")

    @classmethod
    def tests(cls, opt: Opt, world: Distributed) -> list[Test]:
        return [EditingTest(opt, world)]


class EditingTest(Test):
    """A split under fixed masks, generated and evaluated in one pass."""

    def __init__(self, opt: Opt, world: Distributed) -> None:
        self.opt, self.name, self.task, self.world = opt, opt.name, opt.task, world
        self.device, self.run_dir = world.device, run_folder(opt)
        self.folder = EditingFlow.results_folder(opt)
        dataset = DATASETS.get(opt.dataset_mode).from_options(opt, split=opt.split, augment=False, task=opt.task)
        self.dataset, self.selection = dataset, dataset.select(opt.num_images)
        if opt.task == FOLDER:
            files = [dataset.mask_paths[index] for index in self.selection.indices]
            shares = [read_mask(file, dataset.crop_size).mean() for file in files]
            note = inverted_note(sum(shares) / len(shares), f"--mask_dir {opt.mask_dir}")
            if note and world.is_main:
                print(f"note: {note}")
        self.model = MODELS.get(opt.model).from_options(opt, is_train=False)
        self.loaded = load_run(self.model, self.run_dir, step=opt.step, averaged=not opt.raw_weights)
        self.model.to(self.device).eval()
        self.evaluator = new_evaluator(opt, dataset, self.device)

    def pictures(self) -> Iterator[tuple[Batch, list[Tensor]]]:
        """Yield what is generated, in the first process; see `generated`."""
        opt, model, world = self.opt, self.model, self.world
        training = partial(plain_pictures, opt, "train")
        for first in (True, False):  # which may have to make what the others then read
            with world.together():
                if world.is_main == first:
                    model.prepare_inference(self.run_dir, training, weights=self.loaded.name)
        model.choose_styles(opt.style_source)
        indices, title = self.selection.indices, f"{opt.name}: {opt.task}"
        yield from generated(model, self.dataset, indices, opt, self.device, desc=title, world=world)
        counters = world.gather(dict(model.counters))
        model.counters.clear()
        for counted in counters:
            model.counters.update(counted)

    def assist(self) -> None:
        for _ in self.pictures():
            raise AssertionError("only the first process measures")

    def measure(self) -> Measured:
        opt, model, indices = self.opt, self.model, self.selection.indices
        self.masks, palette, title = MaskSetHash(), self.dataset.palette, real_title(opt.task)
        self.results = ResultFolder(self.folder, count=len(indices), palette=palette, real_title=title)
        alike = opt.num_samples > 1
        for batch, draws in self.pictures():
            alike = alike and all(torch.equal(draw, draws[0]) for draw in draws[1:])
            self.evaluator.update(as_saved(batch, draws, opt.task))
            self.results.add(batch, draws)
            for name, mask in zip(batch["name"], batch["mask"].numpy(), strict=True):
                self.masks.update(name, mask)
        values = self.evaluator.compute()
        counted = [f"{n} {what}" for what, n in model.counters.items() if n]
        same = [f"all draws of each picture are equal: {NO_DRAWS}"] if alike else []
        notes = [*self.selection.notes, *self.evaluator.notes, *counted, *same]
        return Measured(values, notes, self.loaded.step, len(indices), self.protocol(), self.evaluator.kept())

    def protocol(self) -> dict[str, Any]:
        """Return what the numbers depend on apart from the metrics."""
        opt = self.opt
        removal = opt.removal if opt.removal != "thing" else None
        cuts = opt.test_cuts if opt.test_cuts != "centre" else None
        chosen = {"test_cuts": cuts, "object_classes": opt.object_classes, "removal": removal,
                  "chosen": self.loaded.chosen}  # fmt: skip
        common = describe_run(
            opt, split=opt.split, split_size=len(self.dataset), left_out=self.selection.left_out,
            notes=self.selection.notes, mask_set=self.masks.hexdigest(), seed=opt.seed, draw=DRAW,
            style_source=opt.style_source, crop_size=opt.crop_size, load_size=opt.load_size,
            reference=REFERENCE, **{name: value for name, value in chosen.items() if value is not None},
        )  # fmt: skip
        return {**common, "counters": dict(self.model.counters)}

    def write(self, line: Mapping[str, Any]) -> str:
        self.results.finish()
        result = Result(self.name, line, partial(load_results, self.folder), self.evaluator.notes)
        report = write_report([result], self.folder, title=f"{self.name}, {self.task}")
        count, masks = line["num_images"], self.masks.hexdigest()
        return f"{count} pictures, {self.loaded.name}, masks {masks}: {self.folder / 'grid.png'}, {report}"


def new_evaluator(opt: Opt, dataset: BaseDataset, device: torch.device, *, keep_generated: bool = True) -> Evaluator:
    """Load what the metrics need, see `Setup`; raises `UserError` for what is missing or does not fit the data."""
    setup = Setup(
        opt=opt,
        device=device,
        label_nc=dataset.label_nc,
        ignore_label=dataset.ignore_label,
        class_names=dataset.class_names,
        keep_generated=keep_generated,
    )
    names = EditingFlow.metrics(opt.metrics)
    return build_evaluator(names, setup, required=opt.metrics != "all")


def generated(
    model: BaseModel, dataset: BaseDataset, indices: Sequence[int], opt: Opt, device: torch.device, *, desc: str,
    world: Distributed = ALONE,
) -> Iterator[tuple[Batch, list[Tensor]]]:  # fmt: skip
    """Yield batches of the pictures of `indices` with what `generate_draws` returns of each.

    Of several processes each generates every so-manieth batch, and the first one alone yields all of them: in their
    order, and made as one process would have made them.
    """
    keys = [indices[i : i + opt.batch_size] for i in range(0, len(indices), opt.batch_size)]
    own = keys[world.rank :: world.world_size]
    loader = iter(make_loader(dataset, batch_size=opt.batch_size, num_workers=opt.num_workers, keys=own))
    with progress(desc=desc, total=len(keys), unit="batch", shown=world.is_main) as bar:
        for _ in range(0, len(keys), world.world_size):
            batch = next(loader, None)
            made = None if batch is None else (batch, generate_draws(model, to_device(batch, device), opt))
            for each in world.gather(made):
                if each is not None:
                    yield on_host(each[0]), each[1]
                    bar.update()


def generate_draws(model: Any, batch: Batch, opt: Opt) -> list[Tensor]:
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
