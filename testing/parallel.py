"""Rows of an experiment at the same time, each in a process of its own."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from options.base_options import run_folder
from options.experiment import Row
from options.train_options import TrainOptions
from testing.rows import needs
from trainers.checkpoint import Checkpoints
from trainers.logger import last_step
from util.device import visible_gpus
from util.errors import UserError
from util.progress import progress

POLL = 0.1  # seconds between checks of rows in separate processes
LOOK = 1.0  # seconds between looks at how far they are


class Problems(dict[str, str]):
    """What went wrong, by row."""

    def add(self, row: Row, what: str) -> None:
        """Add and report a row that has failed."""
        self[row.name] = what
        print(f"row {row.name} failed: {what}", file=sys.stderr, flush=True)

    def stops(self, row: Row, rows: list[Row]) -> bool:
        """Add and report a row that cannot run because one that it needs has failed."""
        missing = [name for name in needs(row, rows) if name in self]
        if missing:
            self.add(row, f"it needs {', '.join(missing)}")
        return bool(missing)


class StepCount:
    """The training steps of rows, as their runs' folders tell them; a run that several rows test counts once.

    Args:
        rows: of the experiment. The options of one that is built on others may be known only when these exist: `look`
            adds it then.
    """

    def __init__(self, rows: Sequence[Row], checkpoints_dir: str) -> None:
        self.checkpoints_dir, self._unknown = checkpoints_dir, [row for row in rows if not row.baseline]
        self._goals: dict[Path, int] = {}
        self.look()

    def look(self) -> tuple[int, int]:
        """Return how many steps are made, and how many there are."""
        for row in list(self._unknown):
            try:
                opt = TrainOptions().parse([*row.train_args(), "--checkpoints_dir", self.checkpoints_dir])
            except UserError:
                continue  # the row itself says what is wrong with it
            self._goals[run_folder(opt)] = opt.max_steps
            self._unknown.remove(row)
        made = {folder: max(last_step(folder), Checkpoints(folder).newest_step()) for folder in self._goals}
        return sum(min(made[folder], goal) for folder, goal in self._goals.items()), sum(self._goals.values())


def run_parallel(rows: list[Row], args: argparse.Namespace, problems: Problems, script: str) -> None:
    """Run rows as separate processes, `--jobs` at a time, each with its share of the cores, a GPU and its own log.

    The bar counts the training steps of all of them.

    Args:
        rows: in their order.
        args: of the command line.
        problems: filled with the rows that fail.
        script: the command that runs a row.
    """
    Path(args.checkpoints_dir).mkdir(parents=True, exist_ok=True)
    waiting, running = list(rows), dict[str, Job]()
    gpus = visible_gpus()
    if gpus:
        print(f"a GPU for each row, the freest of {', '.join(gpus)}", flush=True)
    try:
        count = StepCount(rows, args.checkpoints_dir)
        (done, total), looked = count.look(), time.monotonic()
        with progress(total=total, initial=done, desc=args.experiment.stem, unit="step") as bar:
            while waiting or running:
                busy = {*running, *(row.name for row in waiting)}
                # Small networks gain little from a second thread: two rows at once finish sooner than in turn
                ready = [row for row in waiting if not busy & set(needs(row, rows))]
                for row in ready[: args.jobs - len(running)]:
                    waiting.remove(row)
                    if not problems.stops(row, rows):
                        taken = [job.gpu for job in running.values()]
                        running[row.name] = Job(row, args, min(gpus, key=taken.count, default=None), script)
                for name, job in list(running.items()):
                    if job.process.poll() is not None:
                        job.finish(problems)
                        del running[name]
                if not running or time.monotonic() - looked > LOOK:
                    looked = time.monotonic()
                    done, bar.total = count.look()
                    left = len(waiting) + len(running)
                    bar.set_postfix({"rows": f"{len(rows) - left}/{len(rows)}"}, refresh=False)
                    bar.update(max(0, done - bar.n))
                time.sleep(POLL)
    finally:
        for job in running.values():  # Ctrl-C or SIGTERM
            job.process.terminate()
        for job in running.values():  # they finish their steps and save
            job.process.wait()


class Job:
    """A row in a separate process and session: a terminal's Ctrl-C reaches it only once, through us."""

    def __init__(self, row: Row, args: argparse.Namespace, gpu: str | None, script: str) -> None:
        self.row, self.gpu, self.began = row, gpu, time.perf_counter()
        self.log = Path(args.checkpoints_dir) / f"{args.experiment.stem}_{row.name}.log"
        line = [str(args.experiment), "--only", row.name, "--checkpoints_dir", args.checkpoints_dir, "--no-prepare"]
        line += ["--no-preflight", *(f"--{name}={getattr(args, name)}" for name in ("train_args", "test_args"))]
        threads = str(max(1, (os.cpu_count() or 1) // args.jobs))
        own_gpu = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, script, *line], stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1", **own_gpu},
            )  # fmt: skip

    def finish(self, problems: Problems) -> None:
        """Report how it ended."""
        if code := self.process.returncode:
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
            problems.add(self.row, f"ended with code {code}: {last[0]} (whole log: {self.log})")
        else:
            tqdm.write(f"{self.row.name}: {time.perf_counter() - self.began:.0f} s, log {self.log}")
