"""Stylise pictures with one or several trained styles, save results and edge maps, and measure them.

Leaves `<results_dir>/<run>/wt_<strength>/` with stylized/, canny/, grid.png, report.html and result.json, and a line in
the run's metrics.jsonl.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.masks import MaskSetHash
from metrics.base import Pictures
from metrics.evaluator import Evaluator, format_table, result_line
from metrics.report import write_report
from metrics.stylise_evaluator import build_stylise_evaluator, parse_stylise_metrics, require_weights
from models import MODELS
from models.s2prest_flags import add_test_flags, check_test_flags, coefficients
from models.s2prest_model import STYLE_FILE, S2PreSTModel
from options.base_options import OPTIONS_FILE, run_folder
from options.metric_flags import add_stylise_metric_flags
from options.parser import read_yaml
from testing.contents import Content, mask_files, read_contents
from trainers.restore import Loaded, load_run
from util.device import autocast, resolve_device
from util.errors import UserError
from util.files import append_line, require_writable, results_in, write_text
from util.images import picture_grid, read_image, save_png
from util.pictures import canvas_size, find_pictures, resized
from util.progress import progress
from util.registry import did_you_mean
from util.versions import current_commit, library_versions

GRID_ROWS, GRID_SIDE = 8, 256  # pixels, at most
STYLE_OF_THE_RUN = ("clip_input",)  # options that all styles of a call share, beside the networks


def run(opt: Any) -> int:
    """Stylise `--content` with the run that `opt` (of `TestOptions`) names, and with `--styles`; returns 0."""
    parse_stylise_metrics(opt.metrics)
    device, names = resolve_device(opt.device), style_names(opt)
    folders = {name: check_style_run(opt, name) for name in names}
    contents = read_contents(opt)
    model: Any = MODELS.get(opt.model).from_options(opt, is_train=False)
    check_sizes(opt, model, contents)
    for run_dir in folders.values():  # all of them now: the faults of the last are not to wait for the first
        take_style(opt, model, run_dir)
        require_writable(run_dir, "the run's folder")  # takes a line of numbers
    if opt.attention_slicing:
        model.frozen.save_memory()
    model.frozen.to(device, offload=opt.offload)
    model.netE.to(device).eval()
    rows = []
    for name, run_dir in folders.items():
        loaded, folder = take_style(opt, model, run_dir), results_folder(opt, name)
        evaluator = new_evaluator(opt, model)
        with results_in(folder, "--results_dir"):
            stylise_all(opt, model, contents, folder, name)
            line = measure(opt, evaluator, contents, folder, loaded, name)
            finish(line, evaluator, contents, folder, run_dir, model.style)
        rows.append((name, line["metrics"], evaluator.notes))
        print(f"{name}: {len(contents)} pictures, {loaded.name}: {folder}")
    if any(values for _, values, _ in rows):
        print(format_table([(name, values) for name, values, _ in rows]))
    for note in dict.fromkeys(note for _, _, notes in rows for note in notes):
        print(f"note: {note}")
    return 0


def require_inputs(flags: list[str]) -> None:
    """Raise `UserError` if what a call with these flags reads beside its run is missing: contents, masks, weights."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_test_flags(parser)
    add_stylise_metric_flags(parser, default="none")
    opt, _ = parser.parse_known_args(flags)
    check_test_flags(opt)
    mask_files(opt, find_pictures(opt.content, "--content"))
    require_weights(opt)


def results_folder(opt: Any, name: str | None = None) -> Path:
    """Return where the results of a style's run go."""
    return Path(opt.results_dir) / (name or opt.name) / f"wt_{opt.style_guidance:g}"


def take_style(opt: Any, model: Any, run_dir: Path) -> Loaded:
    """Give the model a run's style and say which weights they are; raises `UserError` where they do not fit."""
    loaded = load_run(model, run_dir, step=opt.step, averaged=not opt.raw_weights)
    model.prepare_inference(run_dir, lambda limit: [], weights=loaded.name)
    return loaded


# --- runs ------------------------------------------------------------------------------------------------------------
def style_names(opt: Any) -> list[str]:
    """Return the names of the runs to stylise with, --name first."""
    further = [name.strip() for name in (opt.styles or "").split(",") if name.strip()]
    return list(dict.fromkeys([opt.name, *further]))


def check_style_run(opt: Any, name: str) -> Path:
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
                f"it was learnt; leave --{flag} out, or give the run a call of its own"
            )
    if not (folder / STYLE_FILE).is_file():
        raise UserError(f"{folder / STYLE_FILE} is missing: copy the whole folder of the run, or train it again")
    return folder


def check_sizes(opt: Any, model: S2PreSTModel, contents: list[Content]) -> None:
    """Raise `UserError` if --size is too small for the UNet."""
    least = model.frozen.smallest_side
    for content in contents:
        if min(canvas(opt, model, content)) < least:
            raise UserError(f"--size {opt.size}: this base model needs at least {least} pixels a side")


def canvas(opt: Any, model: S2PreSTModel, content: Content) -> tuple[int, int]:
    """Return (width, height) that a content is computed at."""
    return canvas_size(*content.size, side=opt.size, multiple=model.frozen.factor, keep_aspect=opt.keep_aspect)


# --- work ------------------------------------------------------------------------------------------------------------
def stylise_all(opt: Any, model: S2PreSTModel, contents: list[Content], folder: Path, name: str) -> None:
    """Stylise all contents, and save results and edge maps at the contents' own sizes."""
    with progress(total=len(contents), desc=name, unit="picture") as bar:
        for size, group in batches(opt, model, contents):
            pictures, edges = [content.picture() for content in group], [content.edges() for content in group]
            scaled, lines = ([resized(each, size) for each in whole] for whole in (pictures, edges))
            with autocast(model.frozen.device, opt.precision):
                found = model.stylise(scaled, lines, [opt.seed] * len(group), coefficients(opt))
            for content, picture, drawn, result in zip(group, pictures, edges, found, strict=True):
                whole = composite(picture, resized(result, content.size), content.mask())
                save_png(whole, folder / "stylized" / f"{content.name}.png")
                save_png(drawn, folder / "canny" / f"{content.name}.png")
            bar.update(len(group))


def batches(opt: Any, model: S2PreSTModel, contents: list[Content]) -> Iterator[tuple[tuple[int, int], list[Content]]]:
    """Yield at most --batch_size contents that are computed at one size, with that size."""
    groups: dict[tuple[int, int], list[Content]] = {}
    for content in contents:
        groups.setdefault(canvas(opt, model, content), []).append(content)
    for size, group in groups.items():
        for i in range(0, len(group), opt.batch_size):
            yield size, group[i : i + opt.batch_size]


def composite(picture: np.ndarray, result: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return the result where the mask allows it, the content's own pixels elsewhere."""
    return result if mask is None else np.where(mask[..., None], result, picture)


def new_evaluator(opt: Any, model: S2PreSTModel) -> Evaluator:
    """Return the metrics of the style that the model has; raises `UserError` if what they need is missing."""
    assert model.style is not None
    style = to_chw(model.style)
    styles = [style]
    if opt.style_set:
        styles = [to_chw(read_image(path)) for path in find_pictures(opt.style_set, "--style_set").values()]
    return build_stylise_evaluator(
        opt, style=style, styles=styles, embed=lambda pictures: model.frozen.embed(pictures, "rgb").float().cpu(),
        device=model.frozen.device,
    )  # fmt: skip


def measure(
    opt: Any, evaluator: Evaluator, contents: list[Content], folder: Path, loaded: Loaded, name: str
) -> dict[str, Any]:
    """Measure the saved pictures and return the result line."""
    masks = MaskSetHash()
    for content in contents:
        mask = content.mask()
        mask = np.ones(content.size[::-1], bool) if mask is None else mask
        masks.update(content.name, mask)
        fake, real = (to_chw(picture)[None] for picture in (read_result(folder, content), content.picture()))
        evaluator.update(Pictures(fake, real, torch.from_numpy(mask)[None, None], None, [content.name]))
    values = evaluator.compute()
    if not opt.masks:  # every pixel is stylised: the masked values are the whole ones again
        values = {key: value for key, value in values.items() if not key.endswith("_masked")}
        for value in values.values():
            value.extra.pop("bins", None)
    protocol = describe(opt, contents, masks.hexdigest(), name)
    return result_line(values, step=loaded.step, task=opt.task, num_images=len(contents), protocol=protocol)


def describe(opt: Any, contents: list[Content], mask_set: str, name: str) -> dict[str, Any]:
    """Return what the numbers depend on beside the metrics themselves."""
    return {
        "run": name, "model": opt.model, "dataset_mode": opt.dataset_mode, "split": "content",
        "split_size": len(contents), "mask_set": mask_set, "seed": opt.seed, "draw": "the same seed for each picture",
        "crop_size": opt.size, "keep_aspect": opt.keep_aspect, "reference": "the contents at their own size, 8 bit",
        "coefficients": vars(coefficients(opt)), "edge": opt.edge, "clip_input": opt.clip_input,
        "base_model": opt.base_model, "clip_model": opt.clip_model,
        "weights": "last" if opt.raw_weights else "averaged where the run has them", "precision": opt.precision,
        "commit": current_commit(), "versions": library_versions(),
    }  # fmt: skip


def finish(
    line: dict[str, Any], evaluator: Evaluator, contents: list[Content], folder: Path, run_dir: Path,
    style: np.ndarray | None,
) -> None:  # fmt: skip
    """Write grid, report and numbers."""
    assert style is not None
    own, known = style, {content.name: content for content in contents}

    def load(name: str) -> dict[str, np.ndarray]:
        edges = read_image(folder / "canny" / f"{name}.png")
        return {"real": known[name].picture(), "edges": edges, "style": own, "result": read_result(folder, known[name])}

    shown = np.linspace(0, len(contents) - 1, min(len(contents), GRID_ROWS)).round().astype(int)
    rows = [fit_row(list(load(contents[i].name).values())) for i in shown]
    save_png(picture_grid(rows, titles=["content", "edges", "style", "stylised"]), folder / "grid.png")
    write_report(line, evaluator, folder, title=f"{line['protocol']['run']}, stylised", load=load)
    write_text(folder / "result.json", json.dumps(line, indent=1) + "\n")
    append_line(run_dir / "metrics.jsonl", json.dumps(line))


def read_result(folder: Path, content: Content) -> np.ndarray:
    """Return a stylised picture as it was saved."""
    return read_image(folder / "stylized" / f"{content.name}.png")


def fit_row(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Scale the pictures of a row to the height of the first, at most `GRID_SIDE`, so that none fills the grid."""
    height = min(pictures[0].shape[0], GRID_SIDE)
    return [resized(p, (max(1, round(p.shape[1] * height / p.shape[0])), height)) for p in pictures]


def to_chw(picture: np.ndarray) -> Tensor:
    """Return (3, H, W) uint8."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
