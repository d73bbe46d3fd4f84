"""Run every row of an experiment file: `python scripts/run_experiment.py experiments/demo.yaml`.

A row is a run: its train.py line and a test.py line per task. The exact lines are printed, rows that are finished with
the same options are skipped, interrupted ones continue. At the end stand the table of all rows and one picture that
shows them side by side. File format: see experiments/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
from tqdm import tqdm

import test as test_command
import train as train_command
from metrics.evaluator import format_table
from options.base_options import OPTIONS_FILE, Options, run_folder
from options.parser import read_yaml
from options.test_options import TestOptions
from options.train_options import TrainOptions
from util.errors import EXIT_OK, UserError, run_main
from util.images import picture_grid, read_image, save_png
from util.registry import did_you_mean

HOW_NOT_WHAT = {"continue_train", "device", "num_workers", "config", "checkpoints_dir"}  # do not change a run's result
SIDE_BY_SIDE = 6  # pictures of the comparison


@dataclass
class Row:
    """One run of an experiment: flags for train.py and test.py, without --name."""

    name: str
    label: str
    train: dict[str, Any]
    test: dict[str, Any]
    tasks: list[str]

    def train_args(self) -> list[str]:
        return ["--name", self.name, *to_args(self.train)]

    def test_args(self, task: str) -> list[str]:
        return ["--name", self.name, "--task", task, *to_args(self.test)]


def to_args(flags: dict[str, Any]) -> list[str]:
    """Turn a mapping into command line arguments."""
    args: list[str] = []
    for key, value in flags.items():
        if isinstance(value, bool):
            args.append(f"--{key}" if value else f"--no-{key}")
        elif value is not None:
            args += [f"--{key}", str(value)]
    return args


def read_experiment(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Return the file's head and its rows; raises `UserError`."""
    spec = read_yaml(path, "experiment")
    known = ("title", "train", "test", "tasks", "rows", "next")
    for key in spec:
        if key not in known:
            raise UserError(f"{path}: '{key}' is no part of an experiment.{did_you_mean(key, known)}")
    if not isinstance(spec.get("rows"), dict):
        raise UserError(f"{path}: 'rows' is missing: a mapping from run names to their flags")
    rows = []
    for name, row in spec["rows"].items():
        own = ("label", "train", "test", "tasks")
        for key in row:
            if key not in own:
                raise UserError(f"{path}: row {name}: '{key}' is unknown.{did_you_mean(key, own)}")
        train = {**spec.get("train", {}), **row.get("train", {})}
        test = {**spec.get("test", {}), **row.get("test", {})}
        tasks = row.get("tasks", spec.get("tasks", ["free_form"]))
        rows.append(Row(name, row.get("label", name), train, test, tasks))
    return spec, rows


def train_row(row: Row, checkpoints_dir: str, *, quiet: bool) -> None:
    """Train a row unless it is finished; continue it if it was interrupted."""
    args = [*row.train_args(), "--checkpoints_dir", checkpoints_dir]
    opt = TrainOptions().parse(args)
    folder = run_folder(opt)
    if (folder / "latest.pt").exists():
        require_same_options(opt, folder)
        if (folder / f"step_{opt.max_steps}.pt").exists():
            if not quiet:
                print(f"# {row.name}: already trained")
            return
        args.append("--continue_train")
    print(f"$ python train.py {shlex.join(args)}", flush=True)
    if train_command.main(args) != EXIT_OK:
        raise KeyboardInterrupt


def require_same_options(opt: Options, folder: Path) -> None:
    """Raise `UserError` if the run in `folder` was begun with other options."""
    saved = read_yaml(folder / OPTIONS_FILE, "options of the run")
    other = [k for k, v in opt.values().items() if k not in HOW_NOT_WHAT and saved.get(k) != v]
    if other:
        changed = ", ".join(f"{k} {saved.get(k)} -> {getattr(opt, k)}" for k in other[:5])
        raise UserError(f"{folder} was trained with other options ({changed}). Remove the folder or rename the row.")


def test_row(row: Row, task: str, checkpoints_dir: str, *, quiet: bool) -> tuple[dict[str, Any], Path]:
    """Test a row, or reuse the line of the same test; return its line and its pictures' folder."""
    args = [*row.test_args(task), "--checkpoints_dir", checkpoints_dir]
    opt = TestOptions().parse(args)
    folder = Path(opt.results_dir or run_folder(opt) / "results" / f"{opt.split}_{task}")
    key = json.dumps({k: v for k, v in opt.values().items() if k not in HOW_NOT_WHAT}, sort_keys=True)
    marker = folder / "experiment.json"
    newest = (run_folder(opt) / "latest.pt").stat().st_mtime
    finished = (folder / "result.json").is_file() and marker.is_file() and marker.stat().st_mtime > newest
    if finished and marker.read_text() == key:
        if not quiet:
            print(f"# {row.name}, {task}: already tested")
        return json.loads((folder / "result.json").read_text()), folder
    print(f"$ python test.py {shlex.join(args)}", flush=True)
    test_command.main(args)
    marker.write_text(key)
    return json.loads((folder / "result.json").read_text()), folder


def run_parallel(rows: list[Row], experiment: Path, checkpoints_dir: str, jobs: int) -> None:
    """Run rows as separate processes, `jobs` at a time, each with its share of the cores and a log of its own.

    Small networks gain little from a second thread: two rows at once finish sooner than one after the other.
    """
    Path(checkpoints_dir).mkdir(parents=True, exist_ok=True)
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    env = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}

    def run(row: Row) -> None:
        log = Path(checkpoints_dir) / f"{experiment.stem}_{row.name}.log"
        own = [str(experiment), "--only", row.name, "--checkpoints_dir", checkpoints_dir]
        began = time.perf_counter()
        with log.open("w") as file:
            done = subprocess.run([sys.executable, __file__, *own], stdout=file, stderr=subprocess.STDOUT, env=env)
        if done.returncode != EXIT_OK:
            last = log.read_text().strip().splitlines()[-1:] or ["no output"]
            raise UserError(f"row {row.name} ended with code {done.returncode}: {last[0]} (whole log: {log})")
        tqdm.write(f"{row.name}: {time.perf_counter() - began:.0f} s, log {log}")

    with ThreadPoolExecutor(jobs) as pool:
        list(tqdm(pool.map(run, rows), total=len(rows), desc=experiment.stem, unit="row"))


def side_by_side(rows: list[Row], folders: list[Path]) -> np.ndarray:
    """Return a grid: input, labels, a column per row of the experiment, truth."""
    names = sorted(p.name for p in (folders[0] / "real").glob("*.png"))[:SIDE_BY_SIDE]
    table = []
    for name in names:
        truth, mask = read_image(folders[0] / "real" / name), read_image(folders[0] / "mask" / name)
        erased = np.where(mask > 0, 128, truth).astype(np.uint8)
        results = [read_image(folder / "fake" / name) for folder in folders]
        table.append([erased, read_image(folders[0] / "label" / name), *results, truth])
    return picture_grid(table, titles=["input", "labels", *(row.label for row in rows), "truth"])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, metavar="FILE.yaml")
    parser.add_argument("--checkpoints_dir", default="checkpoints", help="folder of all runs")
    parser.add_argument("--only", metavar="ROW", action="append", help="only this row (may be repeated)")
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time, each in a process of its own")
    parser.add_argument("--dry_run", action="store_true", help="print the lines, run nothing")
    args = parser.parse_args(argv)
    spec, rows = read_experiment(args.experiment)
    for name in args.only or []:
        if name not in (known := [row.name for row in rows]):
            raise UserError(f"--only {name}: no such row.{did_you_mean(name, known)} Rows: {', '.join(known)}")
    rows = [row for row in rows if not args.only or row.name in args.only]
    if args.dry_run:
        for row in rows:
            print(f"python train.py {shlex.join(row.train_args())}")
            for task in row.tasks:
                print(f"python test.py {shlex.join(row.test_args(task))}")
        return EXIT_OK
    parallel = args.jobs > 1 and len(rows) > 1
    if parallel:
        run_parallel(rows, args.experiment, args.checkpoints_dir, args.jobs)
    lines: dict[str, list[tuple[Row, dict[str, Any], Path]]] = {}
    for row in rows:
        train_row(row, args.checkpoints_dir, quiet=parallel)
        for task in row.tasks:
            lines.setdefault(task, []).append((row, *test_row(row, task, args.checkpoints_dir, quiet=parallel)))
    for task, found in lines.items():
        print(f"\n{spec.get('title', args.experiment.stem)}: {task}, {found[0][1]['num_images']} pictures")
        print(format_table([(row.label, line["metrics"]) for row, line, _ in found]))
        picture = Path(args.checkpoints_dir) / f"{args.experiment.stem}_{task}.png"
        save_png(side_by_side([row for row, _, _ in found], [folder for _, _, folder in found]), picture)
        print(f"Side by side: {picture}")
    if spec.get("next"):
        print(f"\n{spec['next'].strip()}")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
