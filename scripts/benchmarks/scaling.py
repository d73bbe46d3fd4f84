"""`benchmark.py scaling`: what a picture costs DivSem against instances, classes, size, batch and processes.

One is varied at a time; the others are as in `infer` and `train`: 36 instances, 34 classes, `--size`, `--batch_size`,
one process. A row's ratio is its cost by that of the scene with all of them so; costs are CPU seconds of a picture,
which other programs move least, and seconds on a GPU. Processes train together, each with its own pictures and its
share of the threads: those of the first are told, with what the processes exchange. `--plot FILE` draws them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from scripts.benchmarks.cascade import CLASSES, INSTANCES, form_of, measure, require_sizes
from scripts.benchmarks.measure import OURS, Figures, in_turn, machine, save, told
from trainers.distributed import Distributed
from util.errors import UserError
from util.line_plots import Panel, draw_panels, require_plot

NAMES = {"infer": "fill", "train": "step of training"}
SHARED = "shared_step"  # how this command starts the processes of a shared training
SCRIPT = Path(__file__).resolve().parents[1] / "benchmark.py"


def main(opt: argparse.Namespace) -> None:
    """Print the table, write the JSON and draw the plot."""
    if opt.what == SHARED:
        shared_step(opt)
        return
    require_sizes(opt)
    if opt.plot:
        require_plot(Path(opt.plot), "--plot")
    found = machine(opt)
    own = {"instances": INSTANCES, "classes": CLASSES, "size": opt.size, "batch": opt.batch_size,
           "processes": 1}  # fmt: skip
    figures: Figures = {**found, **own, "rows": {}}
    scene = ", ".join(f"{value} {name}" for name, value in own.items() if name != "processes")
    print(f"a picture of {scene}; {told(found)}")
    print(f"{'':32}{'seconds':>9}{'CPU s':>9}{'GFLOP':>8}{'ratio':>8}")
    unit = "seconds a picture" if opt.device == "cuda" else "CPU seconds a picture"
    panels = {name: Panel(f"{unit} against {name}", values) for name, values in sweeps(opt).items()}
    for what in NAMES:
        base = cost(opt, what, own)
        for name, panel in panels.items():
            if name == "processes" and what != "train":
                continue  # each fills on its own
            for value in panel.x:
                row = base if value == own[name] else cost(opt, what, {**own, name: int(value)})
                key = "wall_s" if opt.device == "cuda" else "cpu_s"
                ratio = row[key] / base[key]
                title = f"{NAMES[what]}, {name} {value:g}"
                figures["rows"][title] = {**row, "ratio": ratio}
                panel.lines.setdefault(NAMES[what], []).append(row[key])
                print(f"{title:32}{row['wall_s']:9.3f}{row['cpu_s']:9.3f}{row['gflop']:8.0f}{ratio:7.2f}x")
    save(opt, figures)
    if opt.plot:
        draw_panels(list(panels.values()), Path(opt.plot))


def sweeps(opt: argparse.Namespace) -> dict[str, list[int]]:
    """Return the values of each quantity, the scene's own among them."""
    values = {
        "instances": (9, INSTANCES, 144, 576),
        "classes": (8, CLASSES, 151),
        "size": (opt.size // 4, opt.size // 2, opt.size, 2 * opt.size),
        "batch": (1, 2, 4, 8, opt.batch_size),
        "processes": (1, 2, 4) if opt.device == "cpu" else (1, *range(2, torch.cuda.device_count() + 1, 2)),
    }
    least = {"size": 64}
    return {name: sorted({v for v in each if v >= least.get(name, 1)}) for name, each in values.items()}


def cost(opt: argparse.Namespace, what: str, scene: dict[str, int]) -> Figures:
    """Return the seconds and GFLOP of a picture of such a scene."""
    if scene["processes"] > 1:
        return cost_together(opt, scene["processes"])
    there = argparse.Namespace(**{**vars(opt), "size": scene["size"], "batch_size": scene["batch"], "against": "none"})
    row = measure(there, what, "divsem", scene["classes"], instances=scene["instances"])[OURS]
    return {**row, "wall_s": row["wall_s"] / scene["batch"], "cpu_s": row["cpu_s"] / scene["batch"]}


def cost_together(opt: argparse.Namespace, processes: int) -> Figures:
    """Return what a picture costs one of several processes that train together."""
    together = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", str(SCRIPT), SHARED]
    flags = ("size", "ngf", "batch_size", "repeats", "precision", "device")
    env = {**os.environ, "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // processes))}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "step.json"
        line = [sys.executable, *together, *(f"--{flag}={getattr(opt, flag)}" for flag in flags), f"--json={file}"]
        if code := subprocess.run(line, env=env).returncode:
            raise UserError(f"{processes} processes together ended with code {code}; what they said is above")
        return dict(json.loads(file.read_text(encoding="utf-8")))


def shared_step(opt: argparse.Namespace) -> None:
    """Time the training step of this process among others; the first writes the seconds and GFLOP of a picture."""
    with Distributed.start(opt.device) as world:
        figures, _ = in_turn({OURS: form_of(opt, "train", "divsem", CLASSES, name=OURS, world=world)}, opt)
        if world.is_main:
            step = figures[OURS]
            save(opt, step | {key: step[key] / opt.batch_size for key in ("wall_s", "cpu_s", "gflop")})
