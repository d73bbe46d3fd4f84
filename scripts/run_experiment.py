"""Run every row of an experiment file: `python scripts/run_experiment.py experiments/demo.yaml`.

A row is a run: its train.py line and a test.py line per task. The exact lines are printed, rows that are finished with
the same options are skipped, interrupted ones continue, rows of methods that are not registered say "not built". All
rows and tasks are checked before the first step; a row that fails later stops only those that are built on it. At the
end come the table of all rows and one picture that shows them side by side; scripts/make_table.py compares them with
published numbers. File format: see experiments/README.md.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import test as test_command
import train as train_command
from metrics.registry import METRICS
from metrics.reporting.protocol import require_one_protocol
from metrics.reporting.result import format_table
from options.experiment import Experiment, Row, read_experiment
from options.parser import script_parser
from scripts import baselines
from testing.parallel import Problems, run_parallel
from testing.preflight import preflight
from testing.rows import MARKER, Step, in_order, plan_test, plan_training, side_by_side, test_line
from trainers.estimate import ASSUMED, Cost, cost_table
from util.apart import apart
from util.errors import EXIT_OK, UserError, disk_problem, run_main
from util.files import cause, write_text
from util.images import save_png
from util.registry import did_you_mean
from util.text_files import parse_json


def train_row(row: Row, checkpoints_dir: str, *, quiet: bool) -> None:
    """Train a row unless it is finished or a baseline; continue it if it was interrupted."""
    if row.baseline:
        return
    step = plan_training(row, checkpoints_dir)
    if step.finished:
        if not quiet:
            print(f"# {row.name}: already trained")
        return
    print(f"$ python train.py {shlex.join(step.args)}", flush=True)
    if train_command.main(step.args) != EXIT_OK:
        raise KeyboardInterrupt


def test_row(row: Row, task: str, checkpoints_dir: str, *, quiet: bool) -> tuple[dict[str, Any], Path]:
    """Test a row, or reuse the line of the same test; return its line and its pictures' folder."""
    step, key = baselines.plan(row, task, checkpoints_dir) if row.baseline else plan_test(row, task, checkpoints_dir)
    if step.finished:
        if not quiet:
            print(f"# {row.name}, {task}: already tested")
    elif row.baseline:
        baselines.run_step(row, task, checkpoints_dir)
        write_text(step.folder / MARKER, key)
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
    if row.baseline:
        print("\n".join(line for task in row.tasks for line in baselines.lines(row, task, checkpoints_dir)))
        return
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


Tested = tuple[Row, str, dict[str, Any], Path]  # a row, a task, their result line, the folder of the pictures


def run_here(rows: list[Row], checkpoints_dir: str, problems: Problems, *, quiet: bool) -> list[Tested]:
    """Run rows one after the other, or pick up what others did; return what was tested."""
    tested: list[Tested] = []
    for row in rows:
        if row.name in problems or problems.stops(row, rows):
            continue
        try:
            train_row(row, checkpoints_dir, quiet=quiet)
            for task in row.tasks:
                tested.append((row, task, *test_row(row, task, checkpoints_dir, quiet=quiet)))
        except UserError as error:
            problems.add(row, str(error))
        except Exception as error:  # the other rows do not need it
            message = disk_problem(error) if isinstance(error, OSError) else ""
            if not message:
                traceback.print_exc()
            problems.add(row, message or f"{type(error).__name__}: {cause(error)}")
    return tested


def obey_stop_signals() -> None:
    """Let SIGTERM and a closed terminal act like Ctrl-C, so that no process started here is left behind."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)


def prepare(lines: list[str], *, dry_run: bool) -> None:
    """Run the scripts that make an experiment's data; raises `UserError` where one fails."""
    for line in lines:
        print(f"{'' if dry_run else '$ '}python {line}", flush=True)
        script, *arguments = shlex.split(line)
        if not dry_run and subprocess.run([sys.executable, str(ROOT / script), *arguments]).returncode != EXIT_OK:
            raise UserError(f"preparation failed: python {line}")


def show(experiment: Experiment, tested: list[Tested], checkpoints_dir: Path) -> list[str]:
    """Print a table and save a picture per group and task; return why some could not be made."""
    cells: dict[tuple[str, str], list[Tested]] = {}
    for each in tested:
        cells.setdefault((each[0].group, each[1]), []).append(each)
    problems = []
    for (group, task), found in cells.items():
        label = f"{experiment.groups[group]}, {task}" if group else task
        try:
            require_one_protocol({row.name: line for row, _, line, _ in found}, label)
        except UserError as error:  # of one table: the others are shown
            problems.append(str(error))
            continue
        print(f"\n{experiment.title}: {label}, {found[0][2]['num_images']} pictures")
        print(format_table([(row.label, line["metrics"]) for row, _, line, _ in found]))
        if not (found[0][3] / "real").is_dir():
            continue  # another kind of result, which has its own grid
        picture = checkpoints_dir / f"{'_'.join(filter(None, (experiment.name, group, task)))}.png"
        save_png(side_by_side([row for row, *_ in found], [folder for *_, folder in found], task), picture)
        print(f"Side by side: {picture}")
    return problems


def estimate(rows: list[Row], problems: Problems) -> str:
    """Return a table of what each run will cost (`train.py --estimate`); those that others build on are not trained."""
    costs: list[tuple[str, int, Cost]] = []
    runs = [row for row in rows if not row.baseline and row.name == row.run]
    inputs = {name for row in runs for name in row.built_on()}
    with tempfile.TemporaryDirectory() as scratch:
        for row in runs:
            args = [*row.train_args(), "--checkpoints_dir", scratch]
            print(f"$ python train.py {shlex.join(args)} --estimate", flush=True)
            try:
                costs.append((row.label, *apart(train_command.cost_of, [*args, "--estimate"])))
                if row.name in inputs:
                    untrained = ["--max_steps", "0", "--eval_every", "0", "--image_every", "0", "--no-tensorboard"]
                    apart(train_command.main, [*args, *untrained])
            except UserError as error:
                problems.add(row, str(error))
    return f"\n{cost_table(costs)}\n\nOf GPUs: {ASSUMED}."


def select(experiment: Experiment, only: list[str]) -> list[Row]:
    """Return the rows that can run, of those named by --only or of all, and print the others."""
    for name in only:
        if name not in (known := [row.name for row in experiment.rows]):
            raise UserError(f"--only {name}: no such row.{did_you_mean(name, known)} Rows: {', '.join(known)}")
    rows = [row for row in experiment.rows if not only or {row.name, row.seed_of} & {*only}]
    with_seeds = {row.seed_of for row in rows}
    for row in rows:
        if (why := row.not_built()) and row.name not in with_seeds:
            print(f"# {row.name}: {why}")
    return [row for row in rows if not row.not_built()]


def report(problems: Problems, mixed: list[str], rows: list[Row]) -> None:
    """Raise `UserError` with all that went wrong, if anything did."""
    if problems or mixed:
        messages = [f"row {name}: {what}" for name, what in problems.items()] + mixed
        several = [f"{len(problems)} of {len(rows)} rows failed"] if len(messages) > 1 else []
        raise UserError("\n".join([*several, *messages]))


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("experiment", type=Path, metavar="FILE.yaml", help="what to run (experiments/README.md)")
    parser.add_argument("--checkpoints_dir", default="checkpoints", help="folder of all runs")
    parser.add_argument("--only", metavar="ROW", action="append", default=[],
                        help="only this row, or all its seeds (may be repeated)")  # fmt: skip
    for command in ("train", "test"):
        parser.add_argument(f"--{command}_args", metavar="'FLAGS'", default="",
                            help=f"more flags for each {command}.py line, stronger than the file's: "
                            f"--{command}_args='--seed 5'")  # fmt: skip
    parser.add_argument("--prepare", action=argparse.BooleanOptionalAction, default=True,
                        help="run the file's prepare lines first; off: the data are there")  # fmt: skip
    parser.add_argument("--preflight", action=argparse.BooleanOptionalAction, default=True,
                        help="check flags, data, weights and metrics of all rows and tasks first")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time, each in its own process and on a GPU")
    parser.add_argument("--dry_run", action="store_true", help="print the lines, finished ones as comments, only")
    parser.add_argument("--estimate", action="store_true",
                        help="print what each row's training will cost, from six of its steps, only")  # fmt: skip
    args = parser.parse_args(argv)
    experiment = read_experiment(args.experiment, metrics=METRICS.names())
    more_train, more_test = tuple(shlex.split(args.train_args)), tuple(shlex.split(args.test_args))
    chosen = select(experiment, args.only)
    rows = in_order([replace(row, more_train=more_train, more_test=more_test) for row in chosen])
    if args.prepare:
        prepare(experiment.prepare, dry_run=args.dry_run)
    if args.dry_run:
        for row in rows:
            print_lines(row, args.checkpoints_dir)
        return EXIT_OK
    problems = Problems()
    if args.estimate:
        print(estimate(rows, problems))
        report(problems, [], rows)
        return EXIT_OK
    if args.preflight:
        preflight([row for row in rows if not row.baseline], args.checkpoints_dir)
        baselines.check([row for row in rows if row.baseline], args.checkpoints_dir)
    parallel = args.jobs > 1 and len(rows) > 1
    try:
        if parallel:
            run_parallel(rows, args, problems, __file__)
        tested = run_here(rows, args.checkpoints_dir, problems, quiet=parallel)
    except KeyboardInterrupt:
        print("finished rows and steps are kept: the same command goes on from here", file=sys.stderr)
        raise
    mixed = show(experiment, tested, Path(args.checkpoints_dir))
    report(problems, mixed, rows)
    if experiment.next:
        print(f"\n{experiment.next}")
    return EXIT_OK


if __name__ == "__main__":
    obey_stop_signals()
    run_main(main)
