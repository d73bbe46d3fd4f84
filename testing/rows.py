"""Rows of an experiment: what of each is finished, which commands are left, in which order they can run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.masks import real_title
from metrics.reporting.result import RESULT_FILE
from models import MODELS
from options.base_options import OPTIONS_FILE, Options, run_folder, saved_options
from options.experiment import Row
from options.test_options import TestOptions
from options.train_options import TrainOptions
from testing.flow import FLOWS
from trainers.checkpoint import Checkpoints
from trainers.run_dir import require_no_weights
from trainers.state import FREE_TO_CHANGE
from util.errors import UserError
from util.images import picture_grid, read_image, read_labels_coloured

HOW_NOT_WHAT = FREE_TO_CHANGE | {"device"}  # do not change a run's result
SIDE_BY_SIDE = 6  # pictures of the comparison
MARKER = "experiment.json"  # beside a result: the options of the test that made it


@dataclass(frozen=True)
class Step:
    """One command of a row: its arguments, where it writes, whether it is finished with the same options."""

    args: list[str]
    folder: Path
    finished: bool


@contextmanager
def of_row(row: Row, command: str) -> Iterator[None]:
    """Name the row in errors about its flags."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"row {row.name}, {command}: {error}") from error


def needs(row: Row, rows: Sequence[Row]) -> list[str]:
    """Return the names of the rows whose runs a row builds on or tests."""
    runs = {*row.built_on(), row.run}
    return [other.name for other in rows if other.name != row.name and other.run == other.name and other.run in runs]


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Return the rows as they stand, but each after those that it needs; raises `UserError` for a circle."""
    waiting, ordered = list(rows), list[Row]()
    while waiting:
        done = {row.name for row in ordered}
        ready = next((row for row in waiting if set(needs(row, rows)) <= done), None)
        if ready is None:
            raise UserError(f"rows {', '.join(row.name for row in waiting)} are built on each other in a circle")
        waiting.remove(ready)
        ordered.append(ready)
    return ordered


def plan_training(row: Row, checkpoints_dir: str) -> Step:
    """Inspect what exists of a row's run; raises `UserError` if it was begun with other options."""
    args = [*row.train_args(), "--checkpoints_dir", checkpoints_dir]
    with of_row(row, "train.py"):
        opt = TrainOptions().parse(args)
    folder = run_folder(opt)
    checkpoints = Checkpoints(folder)
    if not checkpoints.exist():
        require_no_weights(folder)
        return Step(args, folder, finished=False)
    require_same_options(opt, folder)
    if checkpoints.newest_step() == opt.max_steps:
        return Step(args, folder, finished=True)
    return Step([*args, "--continue_train"], folder, finished=False)


def require_same_options(opt: Options, folder: Path) -> None:
    """Raise `UserError` if the run in `folder` was begun with other options, or went on beyond those asked for."""
    saved = saved_options(folder / OPTIONS_FILE)
    other = [k for k, v in opt.values().items() if k not in HOW_NOT_WHAT and saved.get(k) != v]
    if Checkpoints(folder).newest_step() > opt.max_steps:
        other.append("max_steps")
    if other:
        changed = ", ".join(f"{k} {saved.get(k)} -> {getattr(opt, k)}" for k in other[:5])
        raise UserError(f"{folder} was trained with other options ({changed}). Remove the folder or rename the row.")


def test_line(row: Row, task: str, checkpoints_dir: str) -> list[str]:
    """Return the arguments of a test; rows that test one run in different ways leave their pictures apart."""
    args = [*row.test_args(task), "--checkpoints_dir", checkpoints_dir]
    if row.run == row.name or "--results_dir" in args:
        return args
    return [*args, "--results_dir", str(Path(checkpoints_dir) / row.run / "results" / f"{row.name}_{task}")]


def plan_test(row: Row, task: str, checkpoints_dir: str) -> tuple[Step, str]:
    """Inspect what exists of a test of a trained row; also return the text that marks it as finished."""
    args = test_line(row, task, checkpoints_dir)
    with of_row(row, "test.py"):
        opt = TestOptions().parse(args)
    folder = FLOWS.get(MODELS.get(opt.model).flow).results_folder(opt)
    how = HOW_NOT_WHAT - {"dataroot"}  # other pictures are another test
    key = json.dumps({k: v for k, v in opt.values().items() if k not in how}, sort_keys=True)
    newest = Checkpoints(run_folder(opt)).step_files()[:1]
    found = finished_test(folder, key, after=newest[0]) if newest else None
    return Step(args, found or folder, found is not None), key


def finished_test(folder: Path, key: str, *, after: Path | None = None) -> Path | None:
    """Return the folder of the finished test that the text `key` marks: this one, or one beside it.

    Earlier versions had one folder for all ways to test a task.

    Args:
        after: a file that is older than such a test.
    """
    for place in (folder, *sorted(path.parent for path in folder.parent.glob(f"*/{MARKER}"))):
        result, marker = place / RESULT_FILE, place / MARKER
        if result.is_file() and marker.is_file() and marker.read_text(encoding="utf-8") == key:
            times = [path.stat().st_mtime for path in (after, result, marker) if path is not None]
            if times[-1] >= max(times):
                return place
    return None


def side_by_side(rows: Sequence[Row], folders: Sequence[Path], task: str) -> np.ndarray:
    """Return a grid: input, labels, a column per row of the experiment, the real pictures."""
    names = sorted(p.name for p in (folders[0] / "real").glob("*.png"))[:SIDE_BY_SIDE]
    table = []
    for name in names:
        truth, mask = read_image(folders[0] / "real" / name), read_image(folders[0] / "mask" / name)
        erased = np.where(mask > 0, 128, truth).astype(np.uint8)
        results = [read_image(folder / "fake" / name) for folder in folders]
        table.append([erased, read_labels_coloured(folders[0] / "label" / name), *results, truth])
    return picture_grid(table, titles=["input", "labels", *(row.label for row in rows), real_title(task)])
