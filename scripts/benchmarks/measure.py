"""What the benchmarks share: forms timed in turn, the rate at which the machine convolves, tables and JSON."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from util.compiling import NOT, uncompiled
from util.device import resolve_device, tf32
from util.files import write_text

Figures = dict[str, Any]
OURS, PLAIN = "ours", "plain"
COMPILING = 3  # calls, in the last of which CUDA graphs are recorded


@dataclass(frozen=True)
class Form:
    """One way to do some work: a call, and the context that it needs."""

    work: Callable[[], Any]
    context: Callable[[], AbstractContextManager[Any]] = nullcontext


def in_turn(forms: Mapping[str, Form], opt: argparse.Namespace) -> tuple[dict[str, Figures], dict[str, Any]]:
    """Call the forms in turn, `--repeats` times after one call each that counts their operations.

    With `--compile`, more calls come before, which compile.

    Returns:
        Least wall and CPU seconds and GFLOP of a call by form (on a GPU the peak of its memory too), and the results.
    """
    device = resolve_device(opt.device)
    figures: dict[str, Figures] = {}
    results: dict[str, Any] = {}
    for name, form in forms.items():
        with form.context(), uncompiled(opt.compile), FlopCounterMode(display=False) as counter:
            form.work()
        for _ in range(COMPILING if opt.compile != NOT else 0):
            with form.context():
                form.work()
        figures[name] = {"wall_s": float("inf"), "cpu_s": float("inf"), "gflop": counter.get_total_flops() / 1e9}
    for _ in range(opt.repeats):
        for name, form in forms.items():
            with form.context():
                finish(device)
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                start, busy = time.perf_counter(), time.process_time()
                results[name] = form.work()
                finish(device)
                wall, cpu = time.perf_counter() - start, time.process_time() - busy
            row = figures[name]
            row["wall_s"], row["cpu_s"] = min(row["wall_s"], wall), min(row["cpu_s"], cpu)
            if device.type == "cuda":
                row["peak_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return figures, results


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def with_ratios(figures: Mapping[str, Figures]) -> Figures:
    """Return a row of the table: the forms and, where there is a plain one, how many times ours is as fast."""
    row: Figures = dict(figures)
    if PLAIN in figures:
        plain, ours = figures[PLAIN], figures[OURS]
        row["ratio"] = plain["wall_s"] / ours["wall_s"]
        row["cpu_ratio"] = plain["cpu_s"] / ours["cpu_s"]  # less moved by other programs
    return row


def convolution_rate(opt: argparse.Namespace) -> float:
    """Return the GFLOP/s of a 3x3 layer of 128 channels at `--size`, channels last."""
    device = resolve_device(opt.device)
    x, conv = torch.randn(1, 128, opt.size, opt.size, device=device), nn.Conv2d(128, 128, 3, padding=1).to(device)
    x, conv = x.to(memory_format=torch.channels_last), conv.to(memory_format=torch.channels_last)
    best = float("inf")
    with torch.no_grad(), tf32(opt.precision == "tf32"):
        for _ in range(4):
            finish(device)
            start = time.perf_counter()
            conv(x)
            finish(device)
            best = min(best, time.perf_counter() - start)
    return 2 * 9 * 128 * 128 * opt.size**2 / best / 1e9


def machine(opt: argparse.Namespace) -> Figures:
    """Return what the figures depend on beside the work."""
    device = resolve_device(opt.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"torch": torch.__version__, "device": name, "cpus": os.cpu_count(), "threads": torch.get_num_threads()}


def told(found: Figures) -> str:
    """Return `machine` in words."""
    return f"torch {found['torch']}, {found['device']}, {found['cpus']} CPUs, {found['threads']} threads"


def save(opt: argparse.Namespace, figures: Figures) -> None:
    """Write the figures where `--json` says."""
    if opt.json:
        write_text(Path(opt.json), json.dumps(figures, indent=1))
