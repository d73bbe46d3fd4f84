"""Tests of runs that hold a style (S2PreST): contents are stylised, saved with their edge maps, and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.masks import MaskSetHash
from metrics.declaration import Clip, Setup
from metrics.evaluator import Evaluator, build_evaluator
from metrics.folders import scaled
from metrics.pictures import Pictures
from metrics.registry import STYLISING
from metrics.reporting.page.gallery import Result
from metrics.reporting.report import write_report
from metrics.reporting.result import describe_run
from models import MODELS
from models.diffusion_files import load_clip, load_controlnet
from models.networks.s2prest.clip_input import tower_size
from models.s2prest_model import STYLE_FILE, S2PreSTModel
from options.base_options import OPTIONS_FILE, run_folder
from options.parser import read_yaml
from testing.contents import Content, mask_files, read_contents
from testing.flow import FLOWS, Flow, Measured, Test
from testing.stylising import check_sizes, read_result, stylise_all
from testing.stylising_flags import add_stylising_flags, check_stylising_flags, coefficients, folder_of_style
from trainers.distributed import Distributed
from trainers.restore import Loaded, load_run
from util.device import resolve_device
from util.errors import UserError
from util.images import picture_grid, read_image, save_png
from util.opt import Opt
from util.pictures import find_pictures, read_photo, resized
from util.registry import did_you_mean

GRID_ROWS, GRID_SIDE = 8, 256  # pixels, at most
SHOWN_DRAWS = 3  # of a content, in grid and report
STYLE_OF_THE_RUN = ("clip_input",)  # options that all styles of a call share, beside the networks


@FLOWS.register("stylising")
class StylisingFlow(Flow):
    """Pictures rendered in the learnt styles of one or several runs."""

    kind = STYLISING
    first = ("psnr", "ssim", "ms_ssim", "edge_f1", "colour", "lpips", "fid", "kid")
    default_metrics = "psnr,ssim,ms_ssim,edge_f1,colour"

    @classmethod
    def add_own_flags(cls, group: Any) -> None:
        add_stylising_flags(group)

    @classmethod
    def validate(cls, opt: Opt) -> None:
        super().validate(opt)
        check_stylising_flags(opt)

    @classmethod
    def require_inputs(cls, opt: Opt) -> None:
        check_stylising_flags(opt)
        mask_files(opt, find_pictures(opt.content, "--content"))
        super().require_inputs(opt)

    @classmethod
    def results_folder(cls, opt: Opt) -> Path:
        return folder_of_style(opt, opt.name)

    @classmethod
    def tests(cls, opt: Opt, world: Distributed) -> list[Test]:
        cls.require_inputs(opt)
        names = style_names(opt)
        folders = {name: check_style_run(opt, name) for name in names}
        contents = read_contents(opt)
        model: Any = MODELS.get(opt.model).from_options(opt, is_train=False)
        check_sizes(opt, model, contents)
        make_ready(opt, model, list(folders.values()))
        return [StylisingTest(opt, model, contents, name, run_dir) for name, run_dir in folders.items()]


class StylisingTest(Test):
    """All contents in the style of one run; leaves a folder per draw, canny/, grid.png and report.html.

    Args:
        opt: of `TestOptions`.
        model: shared by all tests; `measure` gives it the run's style.
        contents: to be stylised.
        name, run_dir: of the run.
    """

    def __init__(self, opt: Opt, model: S2PreSTModel, contents: list[Content], name: str, run_dir: Path) -> None:
        self.opt, self.model, self.contents, self.name, self.run_dir = opt, model, contents, name, run_dir
        self.task, self.folder = opt.task, folder_of_style(opt, name)

    def measure(self) -> Measured:
        opt, contents, masks = self.opt, self.contents, MaskSetHash()
        self.loaded = take_style(opt, self.model, self.run_dir)
        self.evaluator = self.new_evaluator()
        stylise_all(opt, self.model, contents, self.folder, self.name)
        for content in contents:
            mask = content.mask()
            everywhere = np.ones(content.size[::-1], bool)
            masks.update(content.name, everywhere if mask is None else mask)
            pictures = (*(read_result(self.folder, content, k) for k in range(opt.num_samples)), content.picture())
            *draws, real = (to_chw(scaled(picture, opt.metric_side))[None] for picture in pictures)
            region = scaled((everywhere if mask is None else mask).astype(np.uint8), opt.metric_side)
            erased = torch.from_numpy(region > 0)[None, None] if opt.masks else None
            drawn = torch.stack(draws, 1)
            self.evaluator.update(Pictures(draws[0], real, erased, None, [content.name], draws=drawn))
        values, protocol, kept = self.evaluator.compute(), self.protocol(masks.hexdigest()), self.evaluator.kept()
        return Measured(values, self.evaluator.notes, self.loaded.step, len(contents), protocol, kept)

    def new_evaluator(self) -> Evaluator:
        """Return the metrics of the style that the model has; raises `UserError` if what they need is missing."""
        opt, model = self.opt, self.model

        setup = Setup(
            opt=opt,
            device=model.frozen.device,
            whole=True,
            masks=bool(opt.masks),
            style=None if model.style is None else to_chw(model.style),
            clips=clips(opt, model),
        )
        names, required = StylisingFlow.metrics(opt.metrics), opt.metrics != "all"
        return build_evaluator(names, setup, required=required)

    def protocol(self, mask_set: str) -> dict[str, Any]:
        """Return what the numbers depend on apart from the metrics."""
        opt = self.opt
        at = f"{opt.metric_side} pixels short side (bicubic)" if opt.metric_side else "their own size"
        described = describe_run(
            opt, split="content", split_size=len(self.contents), mask_set=mask_set, seed=opt.seed,
            draw="the same seed for each picture", crop_size=opt.size, keep_aspect=opt.keep_aspect,
            reference=f"the contents at {at}, 8 bit", coefficients=coefficients(opt).described(),
            edge=opt.edge, edge_side=opt.edge_side, clip_input=opt.clip_input, base_model=opt.base_model,
            clip_model=opt.clip_model,
        )  # fmt: skip
        control = {"controlnet": opt.controlnet} if opt.controlnet else {}
        return {**described, "run": self.name, **control}

    def write(self, line: Mapping[str, Any]) -> str:
        shown = np.linspace(0, len(self.contents) - 1, min(len(self.contents), GRID_ROWS)).round().astype(int)
        rows = [fit_row(list(self.load(self.contents[i].name).values())) for i in shown]
        titles = ["content", "edges", "style", *["stylised"] * (len(rows[0]) - 3)]
        save_png(picture_grid(rows, titles=titles), self.folder / "grid.png")
        result = Result(self.name, line, self.load, self.evaluator.notes)
        write_report([result], self.folder, title=f"{self.name}, stylised")
        return f"{self.name}: {len(self.contents)} pictures, {self.loaded.name}: {self.folder}"

    def load(self, name: str) -> dict[str, np.ndarray]:
        """Return the pictures of a content by title."""
        assert self.model.style is not None
        content = next(content for content in self.contents if content.name == name)
        edges = read_image(self.folder / "canny" / f"{name}.png")
        shown = range(min(self.opt.num_samples, SHOWN_DRAWS))
        results = {f"result {k + 1}".removesuffix(" 1"): read_result(self.folder, content, k) for k in shown}
        return {"real": content.picture(), "edges": edges, "style": self.model.style, **results}


def clips(opt: Opt, model: S2PreSTModel) -> list[Clip]:
    """Return the networks of --clip_loss_model; the run's own is not loaded again."""

    def own(pictures: Sequence[np.ndarray]) -> Tensor:
        return model.frozen.embed(pictures, "rgb").float().cpu()

    return [
        Clip(name, tower_size(model.frozen.vision), own)
        if name == opt.clip_model
        else Clip(name, *load_clip(name, model.frozen.device))
        for name in opt.clip_loss_model or [opt.clip_model]
    ]


def make_ready(opt: Opt, model: Any, run_dirs: Sequence[Path]) -> None:
    """Prepare a model for stylising with these runs, of which it has the last one's style; raises `UserError`."""
    model.second_style = read_photo(opt.second_style).rgb if opt.second_style else None
    for run_dir in run_dirs:  # all of them, before any picture is stylised
        take_style(opt, model, run_dir)
    if opt.controlnet:
        model.frozen.guide(load_controlnet(opt.controlnet))
        model.frozen.hold(opt.precision)
    if opt.attention_slicing:
        model.frozen.save_memory()
    model.frozen.to(resolve_device(opt.device), offload=opt.offload)
    model.netE.to(resolve_device(opt.device)).eval()


def take_style(opt: Opt, model: Any, run_dir: Path) -> Loaded:
    """Give the model a run's style and say which weights they are; raises `UserError` where they do not fit."""
    loaded = load_run(model, run_dir, step=opt.step, averaged=not opt.raw_weights)
    model.prepare_inference(run_dir, lambda limit: [], weights=loaded.name)
    return loaded


# --- runs ------------------------------------------------------------------------------------------------------------
def style_names(opt: Opt) -> list[str]:
    """Return the names of the runs to stylise with, --name first."""
    further = [name.strip() for name in (opt.styles or "").split(",") if name.strip()]
    return list(dict.fromkeys([opt.name, *further]))


def check_style_run(opt: Opt, name: str) -> Path:
    """Return the folder of a style's run; raises `UserError` if it is none, or was made with other options."""
    folder = run_folder(opt).parent / name
    if not (folder / OPTIONS_FILE).is_file():
        runs = [path.parent.name for path in folder.parent.glob(f"*/{OPTIONS_FILE}")]
        raise UserError(f"--styles {name}: no run at {folder}.{did_you_mean(name, runs)}")
    saved = read_yaml(folder / OPTIONS_FILE, "options of the run")
    if saved.get("model") != opt.model:
        raise UserError(f"{folder} is a run of --model {saved.get('model')}, not of {opt.model}")
    for flag in STYLE_OF_THE_RUN:
        if saved.get(flag) != getattr(opt, flag):
            raise UserError(
                f"{folder} was trained with --{flag} {saved.get(flag)}, not {getattr(opt, flag)}: a style is used as "
                f"it was learnt; leave --{flag} out, or test the run in a separate call"
            )
    if not (folder / STYLE_FILE).is_file():
        raise UserError(f"{folder / STYLE_FILE} is missing: copy the whole folder of the run, or train it again")
    return folder


# --- pictures -------------------------------------------------------------------------------------------------------
def fit_row(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Scale the pictures of a row to the height of the first, at most `GRID_SIDE`, so that none fills the grid."""
    height = min(pictures[0].shape[0], GRID_SIDE)
    return [resized(p, (max(1, round(p.shape[1] * height / p.shape[0])), height)) for p in pictures]


def to_chw(picture: np.ndarray) -> Tensor:
    """Return (3, H, W) uint8."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
