"""`benchmark.py memory`: the peak memory of SPMPGAN and DivSem, filling and in a step of training.

Each row and form is measured in a process of its own, which does the work twice: on a CPU the most memory that it had,
on a GPU the most that PyTorch's tensors had. What the process has before the model is built is not counted.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch

from scripts.benchmarks.cascade import CLASSES, form_of, require_sizes
from scripts.benchmarks.measure import OURS, PLAIN, Figures, machine, save, told
from util.apart import apart
from util.device import resolve_device

ROWS = [(what, method) for what in ("infer", "train") for method in ("spmpgan", "divsem")]


def main(opt: argparse.Namespace) -> None:
    """Print the table and write the JSON."""
    require_sizes(opt)
    found = machine(opt)
    figures: Figures = {**found, "size": opt.size, "batch": opt.batch_size, "precision": opt.precision, "rows": {}}
    print(f"{opt.size}x{opt.size}, {CLASSES} classes, batch {opt.batch_size}, {opt.precision}, {told(found)}")
    print(f"{'':22}{'plain MB':>10}{'ours MB':>10}{'ratio':>8}")
    for what, method in ROWS:
        forms = (PLAIN, OURS) if opt.against == PLAIN else (OURS,)
        row: Figures = {name: {"peak_mb": apart(peak, opt, what, method, name)} for name in forms}
        if PLAIN in row:
            row["ratio"] = row[PLAIN]["peak_mb"] / row[OURS]["peak_mb"]
        figures["rows"][f"{method}, {what}"] = row
        cells = f"{row[PLAIN]['peak_mb']:10.0f}" if PLAIN in row else f"{'':10}"
        ratio = f"{row['ratio']:7.2f}x" if PLAIN in row else ""
        print(f"{f'{method}, {what}':22}{cells}{row[OURS]['peak_mb']:10.0f}{ratio}")
    save(opt, figures)


def peak(opt: argparse.Namespace, what: str, method: str, name: str) -> float:
    """Return the peak memory, in MiB, of building a model and working with it."""
    device = resolve_device(opt.device)
    before = resident("VmRSS")
    form = form_of(opt, what, method, CLASSES, name=name)
    for _ in range(2):  # optimisers allocate in the first step
        with form.context():
            form.work()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resident("VmHWM") - before


def resident(which: str) -> float:
    """Return the MiB that this process has in memory ("VmRSS"), or had at most ("VmHWM").

    Not `getrusage`, whose maximum is also that of the process which started this one.
    """
    found = re.search(rf"{which}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
