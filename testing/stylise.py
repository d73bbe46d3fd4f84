"""Stylise pictures with one or several trained styles, save results and edge maps, and measure them.

Leaves `<results_dir>/<run>/wt_<strength>/` with stylized/, canny/, grid.png, report.html and result.json, and a line in
the run's metrics.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.masks import MaskSetHash
from metrics.base import Pictures
from metrics.evaluator import Evaluator, format_table, result_line
from metrics.report import write_report
from metrics.stylise_evaluator import build_stylise_evaluator, parse_stylise_metrics
from models import MODELS
from models.s2prest_flags import coefficients
from models.s2prest_model import STYLE_FILE, S2PreSTModel
from options.base_options import OPTIONS_FILE, run_folder
from options.parser import read_yaml
from trainers.failures import out_of_memory_hint
from trainers.restore import Loaded, load_run
from util.device import autocast, resolve_device
from util.edge_maps import edge_picture
from util.errors import DataError, UserError
from util.images import picture_grid, read_image, read_map, save_png
from util.pictures import canvas_size, find_pictures, resized
from util.registry import did_you_mean
from util.versions import current_commit, library_versions

GRID_ROWS = 8
SMALLEST = 32  # pixels a side of a content
STYLE_OF_THE_RUN = ("clip_input",)  # options that all styles of a call share, beside the networks


@dataclass(frozen=True)
class Content:
    """A picture to stylise: its name, pixels, edge map (H, W, 3) uint8, and where it may change, (H, W) booleans."""

    name: str
    picture: np.ndarray
    edges: np.ndarray
    mask: np.ndarray | None

    @property
    def size(self) -> tuple[int, int]:
        return self.picture.shape[1], self.picture.shape[0]


def run(opt: Any) -> int:
    """Stylise `--content` with the run that `opt` (of `TestOptions`) names, and with `--styles`; returns 0."""
    parse_stylise_metrics(opt.metrics)
    device, names = resolve_device(opt.device), style_names(opt)
    folders = {name: check_style_run(opt, name) for name in names}
    contents = read_contents(opt)
    model: Any = MODELS.get(opt.model).from_options(opt, is_train=False)
    check_sizes(opt, model, contents)
    if opt.attention_slicing:
        model.frozen.save_memory()
    model.frozen.to(device, offload=opt.offload)
    model.netE.to(device).eval()
    rows = []
    for name, run_dir in folders.items():
        loaded = load_run(model, run_dir, step=opt.step, averaged=not opt.raw_weights)
        model.prepare_inference(run_dir, lambda limit: [], weights=loaded.name)
        folder = results_folder(opt, name)
        with out_of_memory_hint():
            results = stylise_all(opt, model, contents, folder, name)
        line, evaluator = measure(opt, model, contents, results, loaded, name)
        finish(line, evaluator, contents, results, folder, run_dir, model.style)
        rows.append((name, line["metrics"], evaluator.notes))
        print(f"{name}: {len(contents)} pictures, {loaded.name}: {folder}")
    if any(values for _, values, _ in rows):
        print(format_table([(name, values) for name, values, _ in rows]))
    for note in dict.fromkeys(note for _, _, notes in rows for note in notes):
        print(f"note: {note}")
    return 0


def results_folder(opt: Any, name: str | None = None) -> Path:
    """Return where the results of a style's run go."""
    return Path(opt.results_dir) / (name or opt.name) / f"wt_{opt.style_guidance:g}"


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


# --- contents --------------------------------------------------------------------------------------------------------
def read_contents(opt: Any) -> list[Content]:
    """Read the contents with their masks, and draw their edge maps at their own size."""
    files = find_pictures(opt.content, "--content")
    masks = mask_files(opt, files)
    contents = []
    for name, path in tqdm(files.items(), desc="edges", unit="picture", disable=None if len(files) > 1 else True):
        picture = read_image(path)
        height, width = picture.shape[:2]
        if min(height, width) < SMALLEST:
            raise DataError(f"{path}: {width}x{height}; a content needs at least {SMALLEST} pixels a side")
        mask = read_region(masks[name], opt.mask_classes, (height, width)) if masks else None
        contents.append(Content(name, picture, edge_picture(picture, opt.edge), mask))
    return contents


def mask_files(opt: Any, contents: dict[str, Path]) -> dict[str, Path]:
    """Pair the files of --masks with the contents: a file with the only content, a folder's files by base name."""
    if not opt.masks:
        return {}
    masks = find_pictures(opt.masks, "--masks")
    if Path(opt.masks).is_file():
        if len(contents) > 1:
            raise UserError(f"--masks {opt.masks} is one file for {len(contents)} contents; give a folder of masks")
        return dict.fromkeys(contents, Path(opt.masks))
    if missing := [name for name in contents if name not in masks]:
        raise UserError(f"--masks {opt.masks}: no mask for {', '.join(missing[:5])} ({len(missing)} in all)")
    return masks


def read_region(path: Path, classes: str | None, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W) booleans: white pixels of a mask, or the ids `classes` of a label map."""
    ids = read_map(path, "label map" if classes else "mask")
    if ids.shape != size:
        raise DataError(f"{path} is {ids.shape[1]}x{ids.shape[0]}, its content {size[1]}x{size[0]}")
    if classes:
        try:
            wanted = [int(number) for number in classes.split(",")]
        except ValueError as error:
            raise UserError(f"--mask_classes {classes}: write ids, as in 8,11") from error
        return np.isin(ids, wanted)
    if odd := set(np.unique(ids).tolist()) - {0, 1, 255}:
        raise DataError(f"{path}: a mask holds 0 and 255, found {sorted(odd)[:5]}; label maps need --mask_classes")
    return ids > 0


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
def stylise_all(opt: Any, model: S2PreSTModel, contents: list[Content], folder: Path, name: str) -> list[np.ndarray]:
    """Stylise all contents and save results and edge maps; returns the results at the contents' own sizes."""
    results: dict[str, np.ndarray] = {}
    with tqdm(total=len(contents), desc=name, unit="picture", disable=None) as bar:
        for size, group in batches(opt, model, contents):
            pictures, edges = ([resized(getattr(c, key), size) for c in group] for key in ("picture", "edges"))
            with autocast(model.frozen.device, opt.precision):
                found = model.stylise(pictures, edges, [opt.seed] * len(group), coefficients(opt))
            for content, result in zip(group, found, strict=True):
                results[content.name] = composite(content, resized(result, content.size))
                save_png(results[content.name], folder / "stylized" / f"{content.name}.png")
                save_png(content.edges, folder / "canny" / f"{content.name}.png")
            bar.update(len(group))
    return [results[content.name] for content in contents]


def batches(opt: Any, model: S2PreSTModel, contents: list[Content]) -> Iterator[tuple[tuple[int, int], list[Content]]]:
    """Yield at most --batch_size contents that are computed at one size, with that size."""
    groups: dict[tuple[int, int], list[Content]] = {}
    for content in contents:
        groups.setdefault(canvas(opt, model, content), []).append(content)
    for size, group in groups.items():
        for i in range(0, len(group), opt.batch_size):
            yield size, group[i : i + opt.batch_size]


def composite(content: Content, result: np.ndarray) -> np.ndarray:
    """Return the result where the mask allows it, the content's own pixels elsewhere."""
    if content.mask is None:
        return result
    return np.where(content.mask[..., None], result, content.picture)


def measure(
    opt: Any, model: S2PreSTModel, contents: list[Content], results: list[np.ndarray], loaded: Loaded, name: str
) -> tuple[dict[str, Any], Evaluator]:
    """Return the result line and the evaluator that made it."""
    assert model.style is not None
    style = to_chw(model.style)
    styles = [style]
    if opt.style_set:
        styles = [to_chw(read_image(path)) for path in find_pictures(opt.style_set, "--style_set").values()]
    evaluator = build_stylise_evaluator(
        opt, style=style, styles=styles, embed=lambda pictures: model.frozen.embed(pictures, "rgb").float().cpu(),
        device=model.frozen.device,
    )  # fmt: skip
    masks = MaskSetHash()
    for content, result in zip(contents, results, strict=True):
        mask = np.ones(content.picture.shape[:2], bool) if content.mask is None else content.mask
        masks.update(content.name, mask)
        fake, real = to_chw(result)[None], to_chw(content.picture)[None]
        evaluator.update(Pictures(fake, real, torch.from_numpy(mask)[None, None], None, [content.name]))
    values = evaluator.compute()
    if not opt.masks:  # every pixel is stylised: the masked values are the whole ones again
        values = {key: value for key, value in values.items() if not key.endswith("_masked")}
        for value in values.values():
            value.extra.pop("bins", None)
    protocol = describe(opt, contents, masks.hexdigest(), name)
    return result_line(values, step=loaded.step, task=opt.task, num_images=len(contents), protocol=protocol), evaluator


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
    line: dict[str, Any], evaluator: Evaluator, contents: list[Content], results: list[np.ndarray], folder: Path,
    run_dir: Path, style: np.ndarray | None,
) -> None:  # fmt: skip
    """Write grid, report and numbers."""
    assert style is not None
    found = {
        content.name: {"content": content.picture, "edges": content.edges, "style": style, "result": result}
        for content, result in zip(contents, results, strict=True)
    }
    shown = np.linspace(0, len(contents) - 1, min(len(contents), GRID_ROWS)).round().astype(int)
    rows = [fit_row(list(found[contents[i].name].values())) for i in shown]
    save_png(picture_grid(rows, titles=["content", "edges", "style", "stylised"]), folder / "grid.png")
    load = {name: {**pictures, "real": pictures["content"]} for name, pictures in found.items()}
    write_report(line, evaluator, folder, title=f"{line['protocol']['run']}, stylised", load=load.__getitem__)
    (folder / "result.json").write_text(json.dumps(line, indent=1) + "\n")
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def fit_row(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Scale the pictures of a row to the height of the first, so that a large style does not fill the grid."""
    height = pictures[0].shape[0]
    return [resized(p, (max(1, round(p.shape[1] * height / p.shape[0])), height)) for p in pictures]


def to_chw(picture: np.ndarray) -> Tensor:
    """Return (3, H, W) uint8."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
