"""`benchmark.py grid`: pictures a second and memory of DivSem's training step, by settings and batch size.

Each cell is measured in a process of its own. Where the memory of a GPU runs out, larger batches are not tried.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from scripts.benchmarks.cascade import CLASSES, form_of, require_sizes
from scripts.benchmarks.measure import OURS, Figures, in_turn, machine, save, told
from util.apart import apart
from util.compiling import GRAPHS

SETTINGS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "tf32": {"precision": "tf32"},
    "bf16": {"precision": "bf16"},
    "bf16, channels last": {"precision": "bf16", "channels_last": True},
    "bf16, compiled": {"precision": "bf16", "compile": "default"},
    "bf16, CUDA graphs": {"precision": "bf16", "compile": GRAPHS},
    "bf16, channels last, compiled": {"precision": "bf16", "channels_last": True, "compile": "default"},
}
BATCHES = (1, 2, 4, 8, 16, 32, 64)


def main(opt: argparse.Namespace) -> None:
    """Print the table and write the JSON."""
    require_sizes(opt)
    found = machine(opt)
    figures: Figures = {**found, "size": opt.size, "rows": {}}
    print(f"DivSem's training step, {opt.size}x{opt.size}, {CLASSES} classes; {told(found)}")
    print(f"{'':32}{'batch':>6}{'images/s':>10}{'MB':>9}")
    for name, chosen in SETTINGS.items():
        for batch in BATCHES:
            row = apart(cell, argparse.Namespace(**{**vars(opt), **chosen, "batch_size": batch}))
            if row is None:
                print(f"{name:32}{batch:6}  out of memory")
                break
            figures["rows"][f"{name}, batch {batch}"] = row
            peak = f"{row['peak_mb']:9.0f}" if "peak_mb" in row else ""
            print(f"{name:32}{batch:6}{row['images_per_s']:10.2f}{peak}", flush=True)
    save(opt, figures)


def cell(opt: argparse.Namespace) -> Figures | None:
    """Return the figures of a step; None if it does not fit into the memory."""
    try:
        (row,) = in_turn({OURS: form_of(opt, "train", "divsem", CLASSES, name=OURS)}, opt)[0].values()
    except torch.OutOfMemoryError:
        return None
    return {**row, "images_per_s": opt.batch_size / row["wall_s"]}
