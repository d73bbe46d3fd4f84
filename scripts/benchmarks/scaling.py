"""`benchmark.py scaling`: what a picture costs DivSem against instances, classes, size and batch, one at a time.

The others are as in `infer` and `train`: 36 instances, 34 classes, `--size`, `--batch_size`. A row's ratio is its cost
by that of the scene with all of them so; costs are CPU seconds of a picture, which other programs move least, and
seconds on a GPU. `--plot FILE` draws them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.benchmarks.cascade import CLASSES, INSTANCES, measure, require_sizes
from scripts.benchmarks.measure import OURS, Figures, machine, save, told
from util.line_plots import Panel, draw_panels, require_plot

NAMES = {"infer": "fill", "train": "step of training"}


def main(opt: argparse.Namespace) -> None:
    """Print the table, write the JSON and draw the plot."""
    require_sizes(opt)
    if opt.plot:
        require_plot(Path(opt.plot), "--plot")
    found = machine(opt)
    own = {"instances": INSTANCES, "classes": CLASSES, "size": opt.size, "batch": opt.batch_size}
    figures: Figures = {**found, **own, "rows": {}}
    print(f"a picture of {', '.join(f'{value} {name}' for name, value in own.items())}; {told(found)}")
    print(f"{'':32}{'seconds':>9}{'CPU s':>9}{'GFLOP':>8}{'ratio':>8}")
    unit = "seconds a picture" if opt.device == "cuda" else "CPU seconds a picture"
    panels = {name: Panel(f"{unit} against {name}", values) for name, values in sweeps(opt).items()}
    for what in NAMES:
        base = cost(opt, what, own)
        for name, panel in panels.items():
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
    }
    least = {"size": 64}
    return {name: sorted({v for v in each if v >= least.get(name, 1)}) for name, each in values.items()}


def cost(opt: argparse.Namespace, what: str, scene: dict[str, int]) -> Figures:
    """Return the seconds and GFLOP of a picture of such a scene."""
    there = argparse.Namespace(**{**vars(opt), "size": scene["size"], "batch_size": scene["batch"], "against": "none"})
    row = measure(there, what, "divsem", scene["classes"], instances=scene["instances"])[OURS]
    return {**row, "wall_s": row["wall_s"] / scene["batch"], "cpu_s": row["cpu_s"] / scene["batch"]}
