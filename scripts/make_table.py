"""Print an experiment's tables: published value, ours, difference, count, protocol.

    python scripts/make_table.py experiments/divsem_ablation.yaml [--format markdown|latex|csv] [--curves FILE.png]
    python scripts/make_table.py experiments/streets_tasks.yaml --ledger streets

Reads the last line of each row and task in the runs' metrics.jsonl. One table per group and task; rows of one table
that were not measured under one protocol are refused with the fields that differ. What is certainly the best of a
column is bold, where the tests' folders are still there (docs/protocols.md, "Differences"). --curves draws what the
rows' validations in training measured (`train.py --eval_every`), against steps. --ledger enters the numbers that the
documents have a place for into docs/results.csv, as the table NAME, or NAME_<group>_<task> where the file has several,
and writes the documents (scripts/ledger.py).
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from metrics.registry import METRICS
from metrics.reporting.ledger import Number, numbers_of
from metrics.reporting.protocol import OF_THE_TEST
from metrics.reporting.result import LINES_FILE, RESULT_FILE
from metrics.reporting.summary import mean_line, read_lines
from metrics.reporting.table import FORMATS, Entry, Table
from options.base_options import OPTIONS_FILE, saved_options
from options.experiment import Experiment, Row, read_experiment
from options.parser import script_parser
from scripts import ledger
from testing.ways import WAYS
from trainers.logger import read_validations
from util.errors import EXIT_OK, UserError, run_main
from util.line_plots import Panel, draw_panels, require_plot
from util.text_files import parse_json
from util.versions import this_machine

OTHERWISE_MADE = ("tested", "trained")  # begin notes on runs that are not the row's


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("experiment", type=Path, metavar="FILE.yaml", help="an experiment that was run")
    parser.add_argument("--format", choices=FORMATS, default="markdown", help="form of the tables")
    parser.add_argument("--checkpoints_dir", type=Path, default="checkpoints", help="folder of all runs")
    more = "lines of evaluate.py --as_run or import_results.py, each a row of the table of its run or pictures"
    parser.add_argument("--outside", metavar="FILE.json", nargs="+", default=[], help=more)
    parser.add_argument("--each_seed", action="store_true", help="rows of single seeds too, not their mean alone")
    parser.add_argument("--curves", type=Path, metavar="FILE.png", help="draw the rows' validations in training")
    parser.add_argument("--ledger", metavar="NAME", help="enter the numbers into the documents' ledger, as this table")
    parser.add_argument("--command", help="for --ledger: what made the runs; default: run_experiment.py with the file")
    args = parser.parse_args(argv)
    if args.command and not args.ledger:
        raise UserError("--command goes with --ledger")
    experiment = read_experiment(args.experiment, metrics=METRICS.names())
    if args.curves:
        require_plot(args.curves, "--curves")
        draw_panels(validations(experiment, args.checkpoints_dir), args.curves)
    tables = build_tables(experiment, args.checkpoints_dir, [(file, line) for file in args.outside for line in
                                                             read_lines([file], "--outside")],
                          each_seed=args.each_seed)  # fmt: skip
    if args.ledger:
        new, outdated = ledger_numbers(experiment, tables, args.checkpoints_dir, args.ledger, args.command)
        print(ledger.add(ledger.DOCS, new, outdated))
        return EXIT_OK
    print(FORMATS[args.format](tables, title=experiment.title, paper=experiment.paper), end="")
    return EXIT_OK


def build_tables(
    experiment: Experiment,
    checkpoints_dir: Path,
    outside: Sequence[tuple[str, dict[str, Any]]] = (),
    *,
    each_seed: bool = True,
) -> list[Table]:
    """Return a table per group and task, with lines of --outside by file.

    Without `each_seed`, the seeds of a row stand there only until all are tested; then their mean does.

    Raises:
        UserError: a table would mix protocols, or an outside line has none.
    """
    tables, placed = [], set()
    named = {row.name: row for row in experiment.rows}
    for key, label in experiment.groups.items():
        rows = [row for row in experiment.rows if row.group == key]
        for task in dict.fromkeys(task for row in rows for task in row.tasks):
            entries = [
                mean_entry(
                    row,
                    task,
                    [make_entry(named[part], task, checkpoints_dir) for part in row.mean_of],
                    with_spread=named[row.mean_of[0]].seed_of == row.name,
                )
                if row.mean_of
                else make_entry(row, task, checkpoints_dir)
                for row in rows
                if task in row.tasks
            ]
            means = {entry.name for entry in entries if entry.with_spread and entry.line}
            if not each_seed:
                entries = [entry for entry in entries if named[entry.name].seed_of not in means]
            own = [entry.line["protocol"] for entry in entries if entry.line]
            for file, line in outside:
                if line["task"] == task and any(same_pictures(line["protocol"], protocol) for protocol in own):
                    placed.add(file)
                    name = str(line["protocol"].get("run"))
                    entries.append(Entry(name, name, line, "done", {}, notes=["pictures of another make"]))
            tables.append(Table(group=label, task=task, entries=entries))
    if lost := [file for file, _ in outside if file not in placed]:
        raise UserError(
            f"--outside {' '.join(lost)}: no table has the run and task that evaluate.py --as_run measured it as, or "
            "the pictures and masks of its pack"
        )
    return tables


def ledger_numbers(
    experiment: Experiment, tables: Sequence[Table], checkpoints_dir: Path, name: str, command: str | None
) -> tuple[list[Number], list[tuple[str, str]]]:
    """Return the numbers of all tables for the ledger, and tables and rows of single seeds that have become a mean.

    Args:
        name: of the ledger's table, or how those of several begin.
        command: what made the runs, if not `run_experiment.py` alone.

    Raises:
        UserError: there are none, or a row's run is not what `run_experiment.py` makes.
    """
    rows = {row.name: row for row in experiment.rows}
    made_by = command or f"python scripts/run_experiment.py experiments/{experiment.name}.yaml"
    found, outdated = [], []
    for table in tables:
        parts = (table.group, table.task) if len(tables) > 1 else ()
        place = "_".join([name, *(re.sub(r"\W+", "_", part) for part in parts if part)])
        for entry in table.entries:
            if entry.line is None:
                continue
            row = rows.get(entry.name)  # None: a line of --outside
            runs = [rows[part] for part in row.mean_of or [row.name]] if row else []
            notes = [note for run in runs for note in make_entry(run, table.task, checkpoints_dir).notes]
            other = [note for note in notes if note.startswith(OTHERWISE_MADE)]
            if other and not command:
                raise UserError(f"{entry.label}: {'; '.join(other)}: say by --command what made it")
            day = max((ledger.day_of(checkpoints_dir / run.run / LINES_FILE) for run in runs), default=ledger.today())
            outdated += [(place, run.label) for run in runs if entry.with_spread]
            found += numbers_of(entry.line, table=place, row=entry.label, command=made_by, date=day,
                                machine=this_machine(), seeds=len(runs) if entry.with_spread else 1)  # fmt: skip
    if not found:
        raise UserError(f"--ledger {name}: no row of {experiment.name} was tested in {checkpoints_dir}")
    return found, outdated


def same_pictures(outside: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Return whether a line of --outside belongs into the table of a run, by their protocols."""
    if "pack" in outside:
        return all(outside.get(name) == own.get(name) for name in ("dataset_mode", "split", "mask_set"))
    names = [name for name in WAYS if name in OF_THE_TEST]
    alike = all(outside.get(name) == own.get(name) for name in names)
    return outside.get("as_run") is not None and outside["as_run"] == own.get("run") and alike


def mean_entry(row: Row, task: str, parts: Sequence[Entry], *, with_spread: bool) -> Entry:
    """Return the part of a row that is the mean of others, which has numbers when all of these have."""
    lines = {part.name: part.line for part in parts if part.line is not None}
    complete = len(lines) == len(parts)
    line = mean_line(lines) if complete else None
    status = "done" if complete else f"{len(lines)} of {len(parts)} rows tested"
    kind = "mean +- standard deviation" if with_spread else "mean"
    published, notes = row.published.get(task, {}), [f"{kind} of the rows {', '.join(row.mean_of)}"] if complete else []
    return Entry(row.name, row.label, line, status, published, row.provenance, notes, row.published_as, with_spread)


def make_entry(row: Row, task: str, checkpoints_dir: Path) -> Entry:
    """Return a row's part of a table."""
    flags = {**row.train, **row.test}
    elsewhere = row.baseline or row.not_built()
    if elsewhere:  # neither draws styles nor reads instances
        flags = {name: value for name, value in flags.items() if name in OF_THE_TEST}
    line = last_line(checkpoints_dir / row.run / LINES_FILE, task, flags)
    notes, status = [], "not built" if row.not_built() else "not run"
    if line is not None:
        status = "done"
        line = with_influence(line, checkpoints_dir / row.run)
        planned = None if elsewhere else row.train.get("max_steps")
        notes += ["pictures of another make"] if row.not_built() else []
        if planned is not None and line["step"] != int(planned) and not is_best(row.test):
            status = "unfinished"
            notes.append(f"{OTHERWISE_MADE[0]} at step {line['step']}, the experiment asks for {planned}")
        notes += other_options(row, checkpoints_dir / row.run / OPTIONS_FILE)
    published = row.published.get(task, {})
    return Entry(row.name, row.label, line, status, published, row.provenance, notes, row.published_as)


def last_line(path: Path, task: str, flags: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the last result of a task in a run's metrics.jsonl, None if there is none.

    Several rows may test one run: results of another of the `WAYS` than the row's are skipped, as are those of the best
    weights where the row is of the last ones.
    """
    asked, best = {name: str(flags.get(name, default)) for name, default in WAYS.items()}, is_best(flags)
    newest = None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for number, text in enumerate(lines, start=1):
        try:
            line = parse_json(text)
            done = {name: str(line["protocol"].get(name, default)) for name, default in WAYS.items()}
            fits = line["task"] == task and done == asked
            newest = line if fits and best == ("chosen" in line["protocol"]) else newest
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}, line {number}: not a result of test.py ({error!r}); remove the line") from error
    return newest


def is_best(flags: Mapping[str, Any]) -> bool:
    """Return whether a row's tests are of the weights that a validation chose."""
    return flags.get("step") == "best"


def with_influence(line: dict[str, Any], run: Path) -> dict[str, Any]:
    """Return a line of metrics.jsonl with what the test's folder keeps beside the same line, as of each picture."""
    for file in sorted((run / "results").glob(f"*/{RESULT_FILE}")):
        (whole,) = read_lines([str(file)], "result of a test")
        if all(whole.get(key) == value for key, value in line.items()):
            return whole
    return line


def other_options(row: Row, path: Path) -> list[str]:
    """Return a note if the run was trained with other flags than the row's."""
    saved = saved_options(path) if path.is_file() else {}
    other = [f"{k} {saved[k]} instead of {v}" for k, v in row.train.items() if k in saved and not same(saved[k], v)]
    return [f"{OTHERWISE_MADE[1]} with {', '.join(other)}"] if other else []


def validations(experiment: Experiment, checkpoints_dir: Path) -> list[Panel]:
    """Return a plot per metric that the rows' validations in training measured; raises `UserError` without any."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    runs: dict[str, Row] = {}  # several rows may test one: the first names it
    for row in experiment.rows:
        if not (row.baseline or row.mean_of or row.not_built()):
            runs.setdefault(row.run, row)
    for name, row in runs.items():
        label = ", ".join(filter(None, (experiment.groups[row.group], row.label)))
        for step, values in read_validations(checkpoints_dir / name):
            for metric, value in values.items():
                found.setdefault(metric, {}).setdefault(label, {})[step] = value
    if not found:
        raise UserError(f"--curves: no row of {experiment.name} was validated in training; give its rows eval_every: N")
    panels = []
    for metric, curves in found.items():
        steps = sorted({step for curve in curves.values() for step in curve})
        lines = {label: [curve.get(step, math.nan) for step in steps] for label, curve in curves.items()}
        panels.append(Panel(f"{metric} against steps", steps, lines))
    return panels


def same(saved: Any, given: Any) -> bool:
    """Compare a parsed value with one of a YAML file, where 1e-3 is a text."""
    if isinstance(saved, float):
        return saved == float(given)
    return str(saved) == str(given)


if __name__ == "__main__":
    run_main(main)
