"""Train tiny runs of every method, stop them at random moments, go on, compare: `make soak` (SOAK_MINUTES, 20).

A run is started again and again and hit by kill -9, SIGTERM, SIGUSR1 or Ctrl-C at a random moment until it has all its
steps; then its checkpoint, stats.jsonl and TensorBoard events must equal those of a run that was never stopped, bit for
bit. Beside them one process trains all the time, and its memory and open files are watched.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

import torch._dynamo  # which torch.optim imports when first used
import torch.utils.tensorboard  # noqa: F401
from soak_watch import Steady, left_behind, living
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainer_toys import assert_same, stats

import train
from data import DATASETS
from models import MODELS
from trainers.checkpoint import Checkpoints, load_checkpoint
from util.errors import EXIT_ABORTED, EXIT_INTERRUPTED, EXIT_OK, UserError, run_main

PAGE, BEGIN, END = ROOT / "docs" / "reliability.md", "<!-- result: make soak -->", "<!-- end of result -->"
STEPS = 12  # of a run
MOST_FAULTS = 10
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
FORK = multiprocessing.get_context("fork")  # this process has no threads, and a start costs no import of torch


@dataclass(frozen=True)
class Case:
    """What is trained, and how."""

    model: str
    workers: int
    processes: int
    root: Path  # of the method's runs

    def line(self, name: str, *more: str) -> list[str]:
        often = ["--log_every", "1", "--save_every", "2", "--image_every", "5", "--ema", "0.9", "--device", "cpu"]
        where = ["--checkpoints_dir", str(self.root), "--name", name, "--num_workers", str(self.workers)]
        return [*MODELS.get(self.model).tiny(self.root), "--max_steps", str(STEPS), *often, *where, *more]


@dataclass
class Tally:
    """What happened. `stopped` counts starts by the signal that ended them; `faults` is what must be empty."""

    starts: int = 0
    runs: int = 0
    stopped: Counter[str] = field(default_factory=Counter)
    cases: set[Case] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    sessions: set[int] = field(default_factory=set)
    steady: str = ""

    def told(self, minutes: float) -> str:
        hits = ", ".join(f"{count} by {name}" for name, count in sorted(self.stopped.items()))
        methods = len({case.model for case in self.cases})
        workers = sum(case.workers > 0 for case in self.cases)
        pairs = sum(case.processes > 1 for case in self.cases)
        lines = [
            f"{minutes:.0f} minutes, {self.starts} starts, {sum(self.stopped.values())} of them stopped: {hits}.",
            f"{self.runs} runs of {STEPS} steps ({methods} methods; {len(self.cases)} ways to start, {workers} with a",
            f"data worker, {pairs} by two processes) reached their last step and were compared with runs that were",
            "never stopped: weights, optimisers, averages, stats.jsonl, TensorBoard. Differences, lost or unreadable",
            f"checkpoints, wrong exit codes, tracebacks and processes left behind: {len(self.faults)}.",
            self.steady,
        ]
        return "\n".join(line for line in lines if line)


def launch(line: list[str], log: Path, rank: int = 0, world: dict[str, str] | None = None) -> Any:
    """Start train.py in a process and a session of its own."""

    def child() -> None:
        os.setsid()
        os.environ.update(world or {}, **({"RANK": str(rank), "LOCAL_RANK": str(rank)} if world else {}))
        with open(log, "ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        run_main(lambda: train.main(line))

    process = FORK.Process(target=child)
    process.start()
    return process


def start(case: Case, line: list[str], log: Path) -> list[Any]:
    if case.processes == 1:
        return [launch(line, log)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(case.processes)}
    return [launch(line, log, rank, world) for rank in range(case.processes)]


def hit(processes: list[Any], stats_file: Path, rng: random.Random) -> tuple[signal.Signals, bool] | None:
    """Wait for a random moment and stop the run; return how and whether it was at work, None if it had ended itself."""
    size = stats_file.stat().st_size if stats_file.exists() else 0
    under_way = rng.random() < 0.8
    if under_way:  # most hits shall come while it trains and saves, however busy the machine is
        lines = rng.randrange(1, 6)
        while processes[0].is_alive() and _lines_after(stats_file, size) < lines:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.1)
    else:
        processes[0].join(rng.random() * 1.5)
    if not processes[0].is_alive():
        return None
    number = rng.choice(SIGNALS)
    if number == signal.SIGKILL:
        for process in processes:  # with its data workers, or without: they must notice
            (os.killpg if rng.random() < 0.5 else os.kill)(process.pid, number)
    else:
        os.kill(rng.choice(processes).pid, number)
    return number, under_way


def _lines_after(path: Path, size: int) -> int:
    if not path.exists():
        return 0
    with open(path, "rb") as file:
        file.seek(size)
        return file.read().count(b"\n")


def attempt(case: Case, run: Path, rng: random.Random, tally: Tally) -> None:
    """One start of a run, hit or not, and what must hold after it."""
    checkpoints, log = Checkpoints(run), run.with_suffix(".log")
    before = checkpoints.newest_step()
    more = ["--continue_train"] if checkpoints.exist() else []
    log.unlink(missing_ok=True)
    processes = start(case, case.line(run.name, *more), log)
    how = hit(processes, run / "stats.jsonl", rng)
    for process in processes:
        process.join(120)
        if process.is_alive():
            tally.faults.append(f"{run}: hangs after {how}")
            process.kill()
            process.join()
    tally.starts += 1
    tally.sessions |= {process.pid for process in processes}
    codes = {process.exitcode for process in processes}
    allowed = {EXIT_OK}
    if how:
        number, under_way = how
        tally.stopped[number.name] += 1
        allowed |= {-signal.SIGKILL} if number == signal.SIGKILL else {EXIT_INTERRUPTED}
        if number != signal.SIGKILL and (not under_way or checkpoints.newest_step() == STEPS):
            allowed |= {-number, EXIT_ABORTED}  # before the first step, or after the last: nothing to save
            codes -= {code for code in codes if case.processes > 1 and code not in allowed}  # its peer is left alone
    text = log.read_text()
    killed = bool(how) and how[0] == signal.SIGKILL  # its data workers may complain of it, and nobody is there to tell
    if codes - allowed or (case.processes == 1 and not killed and "Traceback" in text):
        tally.faults.append(f"{run}: {how}, codes {codes}: {text[-1500:]}")
    if checkpoints.newest_step() < before:
        tally.faults.append(f"{run}: step {before} is lost after {how}")
    try:
        for path in (*checkpoints.step_files(), *([checkpoints.latest] if checkpoints.latest.exists() else [])):
            load_checkpoint(path)
    except UserError as error:
        tally.faults.append(str(error))


def compare(unbroken: Path, run: Path, tally: Tally) -> None:
    """The run that was stopped and the one that was not are the same, in all that they left."""
    try:
        states = [load_checkpoint(folder / f"step_{STEPS}.pt") for folder in (unbroken, run)]
        for key in ("step", "nimg", "model", "optimizers", "ema"):
            assert_same(states[0][key], states[1][key], key)
        assert stats(unbroken) == stats(run), "stats.jsonl"
        assert events(unbroken) == events(run), "TensorBoard"
        assert (run / "latest.pt").samefile(run / f"step_{STEPS}.pt"), "latest.pt"
        assert not list(run.glob(".*.tmp")), "temporary files"
    except (AssertionError, UserError) as error:
        tally.faults.append(f"{run}: differs from {unbroken}: {error}")
    tally.runs += 1


def events(run: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def prepare(case: Case) -> Path:
    """Return the case's unbroken run, trained unless it is there, and the runs that it builds on."""
    lines = [*MODELS.get(case.model).tiny_inputs(case.root), case.line(f"unbroken_{case.workers}_{case.processes}")]
    for line in lines:
        folder = case.root / line[line.index("--name") + 1]
        last = line is lines[-1]
        if not (folder / "latest.pt").exists():
            extra = [] if last else ["--num_workers", "0", "--device", "cpu"]
            processes = start(case, [*line, *extra], case.root / "prepare.log") if last else [
                launch([*line, *extra], case.root / "prepare.log")
            ]  # fmt: skip
            for process in processes:
                process.join()
            if any(process.exitcode for process in processes):
                raise UserError(f"{line} failed: {(case.root / 'prepare.log').read_text()[-2000:]}")
    return folder


def cases(root: Path, models: list[str]) -> Iterator[Case]:
    """All methods, over and over; every second run with a data worker, every third by two processes."""
    for turn in itertools.count():
        for place, model in enumerate(models):
            (root / model).mkdir(exist_ok=True)
            number = turn + place
            shared = number % 3 == 2 and MODELS.get(model).flow != "analogy"  # which trains on one picture
            yield Case(model, workers=number % 2, processes=1 + shared, root=root / model)


def soak(root: Path, args: argparse.Namespace, tally: Tally, rng: random.Random, began: float) -> None:
    steady = None
    if args.minutes:
        case = Case("spmpgan", workers=1, processes=1, root=root)
        line = case.line("steady", "--max_steps", "100000000", "--save_every", "20", "--image_every", "40")
        steady = Steady(launch(line, root / "steady.log"), root / "steady")
        tally.sessions.add(steady.process.pid)
    for number, case in enumerate(cases(root, args.models)):
        minutes = (time.monotonic() - began) / 60
        if number >= args.runs or (args.minutes and minutes >= args.minutes) or len(tally.faults) > MOST_FAULTS:
            break
        unbroken, run = prepare(case), case.root / f"run_{number}"
        tally.cases.add(case)
        while Checkpoints(run).newest_step() < STEPS and len(tally.faults) <= MOST_FAULTS:
            attempt(case, run, rng, tally)
            if steady:
                steady.sample()
        compare(unbroken, run, tally)
        shutil.rmtree(run)
        print(f"{minutes:.1f} min, {case.model} {case.workers} {case.processes}: {tally.starts} starts, "
              f"{len(tally.faults)} faults", flush=True)  # fmt: skip
    if steady:
        tally.steady, faults = steady.stop()
        tally.faults += faults
    if alive := left_behind(tally.sessions):
        tally.faults.append(f"processes {alive} are left behind")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("SOAK_MINUTES", 20)))
    parser.add_argument("--runs", type=int, default=10**9, help="stop after so many runs")
    parser.add_argument("--models", nargs="+", default=MODELS.names())
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--write", action="store_true", help="put the result into docs/reliability.md")
    args = parser.parse_args()
    tally, rng, began = Tally(), random.Random(args.seed), time.monotonic()
    print(f"seed {args.seed}", flush=True)
    for name in DATASETS.names():  # starts shall find all imported, as they are now
        DATASETS.get(name)
    try:
        with tempfile.TemporaryDirectory() as folder:
            soak(Path(folder), args, tally, rng, began)
    finally:
        for number in living(tally.sessions):  # after Ctrl-C
            os.kill(int(number), signal.SIGKILL)
    told = tally.told((time.monotonic() - began) / 60)
    print(told, *tally.faults, sep="\n")
    if args.write:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(
            re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{told}\n{END}", page, flags=re.S), encoding="utf-8"
        )
    print(json.dumps({"stopped": sum(tally.stopped.values()), "faults": len(tally.faults)}))
    return 1 if tally.faults else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
