"""Run every row of an experiment file: `python scripts/run_experiment.py experiments/demo.yaml`.

A row is a run: its train.py line and a test.py line per task. The exact lines are printed, rows that are finished with
the same options are skipped, interrupted ones continue, rows of methods that are not registered say "not built". At the
end stand the table of all rows and one picture that shows them side by side; scripts/make_table.py sets them beside
published numbers. File format: see experiments/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import numpy as np
from tqdm import tqdm

import test as test_command
import train as train_command
from data.masks import real_title
from metrics.registry import METRICS
from metrics.reporting.protocol import require_one_protocol
from metrics.reporting.result import format_table
from models import MODELS
from options.base_options import OPTIONS_FILE, Options, run_folder
from options.experiment import Experiment, Row, read_experiment, to_args
from options.parser import StrictParser, read_yaml, script_parser
from options.test_options import TestOptions
from options.train_options import TrainOptions
from testing.flow import FLOWS
from trainers.checkpoint import Checkpoints
from trainers.state import FREE_TO_CHANGE
from util.errors import EXIT_OK, UserError, run_main
from util.files import write_text
from util.images import picture_grid, read_image, save_png
from util.progress import progress
from util.registry import did_you_mean
from util.text_files import parse_json

HOW_NOT_WHAT = FREE_TO_CHANGE | {"device"}  # do not change a run's result
MARKER = "experiment.json"  # beside a result: the options of the test that made it
SIDE_BY_SIDE = 6  # pictures of the comparison


def check_inputs(rows: list[Row], checkpoints_dir: str) -> None:
    """Raise `UserError` now, not after the training, if files are missing that the tests read beside their runs."""
    checked = set()
    for row in rows:
        flow = FLOWS.get(MODELS.get(row.train.get("model", "divsem")).flow)
        flags = (*to_args(row.test), *row.more_test, "--checkpoints_dir", checkpoints_dir)
        if row.tasks and (flow, flags) not in checked:
            parser = StrictParser(add_help=False)
            flow.add_flags(parser)
            parser.add_argument("--checkpoints_dir")
            with of_row(row, "test.py"):
                flow.require_inputs(parser.parse_known_args(flags)[0])
            checked.add((flow, flags))


@dataclass(frozen=True)
class Step:
    """One command of a row: its arguments, where it writes, whether it is finished with the same options."""

    args: list[str]
    folder: Path
    finished: bool


@contextmanager
def of_row(row: Row, command: str) -> Iterator[None]:
    """Let a mistake in a row's flags say whose they are."""
    try:
        yield
    except UserError as error:
        raise UserError(f"row {row.name}, {command}: {error}") from error


def plan_training(row: Row, checkpoints_dir: str) -> Step:
    """Look at what there is of a row's run; raises `UserError` if it was begun with other options."""
    args = [*row.train_args(), "--checkpoints_dir", checkpoints_dir]
    with of_row(row, "train.py"):
        opt = TrainOptions().parse(args)
    folder = run_folder(opt)
    checkpoints = Checkpoints(folder)
    if not checkpoints.exist():
        return Step(args, folder, finished=False)
    require_same_options(opt, folder)
    if checkpoints.newest_step() == opt.max_steps:
        return Step(args, folder, finished=True)
    return Step([*args, "--continue_train"], folder, finished=False)


def train_row(row: Row, checkpoints_dir: str, *, quiet: bool) -> None:
    """Train a row unless it is finished; continue it if it was interrupted."""
    step = plan_training(row, checkpoints_dir)
    if step.finished:
        if not quiet:
            print(f"# {row.name}: already trained")
        return
    print(f"$ python train.py {shlex.join(step.args)}", flush=True)
    if train_command.main(step.args) != EXIT_OK:
        raise KeyboardInterrupt


def require_same_options(opt: Options, folder: Path) -> None:
    """Raise `UserError` if the run in `folder` was begun with other options, or went on beyond those asked for."""
    saved = read_yaml(folder / OPTIONS_FILE, "options of the run")
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
    """Look at what there is of a test of a trained row; also return the text that marks it as finished."""
    args = test_line(row, task, checkpoints_dir)
    with of_row(row, "test.py"):
        opt = TestOptions().parse(args)
    folder = FLOWS.get(MODELS.get(opt.model).flow).results_folder(opt)
    how = HOW_NOT_WHAT - {"dataroot"}  # other pictures are another test
    key = json.dumps({k: v for k, v in opt.values().items() if k not in how}, sort_keys=True)
    result, marker = folder / "result.json", folder / MARKER
    newest = Checkpoints(run_folder(opt)).step_files()[:1]
    before = [path.stat().st_mtime for path in (*newest, result) if path.is_file()]
    finished = len(before) == 2 and marker.is_file() and marker.stat().st_mtime >= max(before)
    return Step(args, folder, finished and marker.read_text() == key), key


def test_row(row: Row, task: str, checkpoints_dir: str, *, quiet: bool) -> tuple[dict[str, Any], Path]:
    """Test a row, or reuse the line of the same test; return its line and its pictures' folder."""
    step, key = plan_test(row, task, checkpoints_dir)
    if step.finished:
        if not quiet:
            print(f"# {row.name}, {task}: already tested")
    else:
        print(f"$ python test.py {shlex.join(step.args)}", flush=True)
        test_command.main(step.args)
        write_text(step.folder / MARKER, key)
    result = step.folder / "result.json"
    try:
        return dict(parse_json(result.read_bytes())), step.folder
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{result} is damaged ({error}); remove {step.folder} to test again") from error


def print_lines(row: Row, checkpoints_dir: str) -> None:
    """Print the exact lines of a row that would run, and those that are finished as comments."""
    try:
        training = plan_training(row, checkpoints_dir)
    except UserError as error:
        print(f"# cannot be checked yet: {error}")
        training = Step([*row.train_args(), "--checkpoints_dir", checkpoints_dir], Path(), finished=False)
    print(f"{'# finished: ' if training.finished else ''}python train.py {shlex.join(training.args)}")
    for task in row.tasks:
        args = test_line(row, task, checkpoints_dir)
        finished = training.finished and plan_test(row, task, checkpoints_dir)[0].finished
        print(f"{'# finished: ' if finished else ''}python test.py {shlex.join(args)}")


def run_parallel(rows: list[Row], args: argparse.Namespace) -> None:
    """Run rows as separate processes, `--jobs` at a time, each with its share of the cores and a log of its own.

    Small networks gain little from a second thread: two rows at once finish sooner than one after the other.
    """
    experiment, checkpoints_dir = args.experiment, args.checkpoints_dir
    Path(checkpoints_dir).mkdir(parents=True, exist_ok=True)
    threads = str(max(1, (os.cpu_count() or 1) // args.jobs))
    env = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}

    def run(row: Row) -> None:
        log = Path(checkpoints_dir) / f"{experiment.stem}_{row.name}.log"
        own = [str(experiment), "--only", row.name, "--checkpoints_dir", checkpoints_dir]
        own += ["--no-prepare", *(f"--{name}={getattr(args, name)}" for name in ("train_args", "test_args"))]
        began = time.perf_counter()
        with log.open("w") as file:
            done = subprocess.run([sys.executable, __file__, *own], stdout=file, stderr=subprocess.STDOUT, env=env)
        if done.returncode != EXIT_OK:
            last = log.read_text().strip().splitlines()[-1:] or ["no output"]
            raise UserError(f"row {row.name} ended with code {done.returncode}: {last[0]} (whole log: {log})")
        tqdm.write(f"{row.name}: {time.perf_counter() - began:.0f} s, log {log}")

    names = {row.name for row in rows}

    def batch_of(row: Row) -> int:
        """Rows that are built on others' runs come after them, rows that only test another's run last."""
        return 2 if row.run != row.name else int(bool(names & set(row.built_on())))

    with ThreadPoolExecutor(args.jobs) as pool, progress(total=len(rows), desc=experiment.stem, unit="row") as bar:
        for number in range(3):
            for _ in pool.map(run, [row for row in rows if batch_of(row) == number]):
                bar.update()


def prepare(lines: list[str], *, dry_run: bool) -> None:
    """Run the scripts that make an experiment's data; raises `UserError` where one fails."""
    for line in lines:
        print(f"{'' if dry_run else '$ '}python {line}", flush=True)
        script, *arguments = shlex.split(line)
        if not dry_run and subprocess.run([sys.executable, str(ROOT / script), *arguments]).returncode != EXIT_OK:
            raise UserError(f"preparation failed: python {line}")


def side_by_side(rows: list[Row], folders: list[Path], task: str) -> np.ndarray:
    """Return a grid: input, labels, a column per row of the experiment, the real pictures."""
    names = sorted(p.name for p in (folders[0] / "real").glob("*.png"))[:SIDE_BY_SIDE]
    table = []
    for name in names:
        truth, mask = read_image(folders[0] / "real" / name), read_image(folders[0] / "mask" / name)
        erased = np.where(mask > 0, 128, truth).astype(np.uint8)
        results = [read_image(folder / "fake" / name) for folder in folders]
        table.append([erased, read_image(folders[0] / "label" / name), *results, truth])
    return picture_grid(table, titles=["input", "labels", *(row.label for row in rows), real_title(task)])


Tested = tuple[Row, dict[str, Any], Path]  # a row, its result line, the folder of its pictures


def show(experiment: Experiment, tested: dict[tuple[str, str], list[Tested]], checkpoints_dir: Path) -> None:
    """Print a table and save a picture per group and task; raises `UserError` where one would mix protocols."""
    for (group, task), found in tested.items():
        label = f"{experiment.groups[group]}, {task}" if group else task
        require_one_protocol({row.name: line for row, line, _ in found}, label)
        print(f"\n{experiment.title}: {label}, {found[0][1]['num_images']} pictures")
        print(format_table([(row.label, line["metrics"]) for row, line, _ in found]))
        if not (found[0][2] / "real").is_dir():
            continue  # another kind of result, which has a grid of its own
        picture = checkpoints_dir / f"{'_'.join(filter(None, (experiment.name, group, task)))}.png"
        save_png(side_by_side([row for row, _, _ in found], [folder for _, _, folder in found], task), picture)
        print(f"Side by side: {picture}")


def select(experiment: Experiment, only: list[str]) -> list[Row]:
    """Return the rows that can run, of those named by --only or of all, and print the others."""
    for name in only:
        if name not in (known := [row.name for row in experiment.rows]):
            raise UserError(f"--only {name}: no such row.{did_you_mean(name, known)} Rows: {', '.join(known)}")
    rows = [row for row in experiment.rows if not only or row.name in only]
    for row in rows:
        if why := row.not_built():
            print(f"# {row.name}: {why}")
    return [row for row in rows if not row.not_built()]


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("experiment", type=Path, metavar="FILE.yaml")
    parser.add_argument("--checkpoints_dir", default="checkpoints", help="folder of all runs")
    parser.add_argument("--only", metavar="ROW", action="append", default=[], help="only this row (may be repeated)")
    for command in ("train", "test"):
        parser.add_argument(f"--{command}_args", metavar="'FLAGS'", default="",
                            help=f"more flags for each {command}.py line, stronger than the file's: "
                            f"--{command}_args='--seed 5'")  # fmt: skip
    parser.add_argument("--prepare", action=argparse.BooleanOptionalAction, default=True,
                        help="run the file's prepare lines first; off: the data are there")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time, each in a process of its own")
    parser.add_argument("--dry_run", action="store_true", help="print the lines, finished ones as comments, only")
    args = parser.parse_args(argv)
    experiment = read_experiment(args.experiment, metrics=METRICS.names())
    more_train, more_test = tuple(shlex.split(args.train_args)), tuple(shlex.split(args.test_args))
    rows = [replace(row, more_train=more_train, more_test=more_test) for row in select(experiment, args.only)]
    if args.prepare:
        prepare(experiment.prepare, dry_run=args.dry_run)
    if args.dry_run:
        for row in rows:
            print_lines(row, args.checkpoints_dir)
        return EXIT_OK
    check_inputs(rows, args.checkpoints_dir)
    parallel = args.jobs > 1 and len(rows) > 1
    if parallel:
        run_parallel(rows, args)
    tested: dict[tuple[str, str], list[Tested]] = {}
    for row in rows:
        train_row(row, args.checkpoints_dir, quiet=parallel)
        for task in row.tasks:
            done = test_row(row, task, args.checkpoints_dir, quiet=parallel)
            tested.setdefault((row.group, task), []).append((row, *done))
    show(experiment, tested, Path(args.checkpoints_dir))
    if experiment.next:
        print(f"\n{experiment.next}")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
