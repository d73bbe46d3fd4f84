"""What a training will cost, from a few of its own steps (`train.py --estimate`)."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from trainers.feed import Feed, arrived
from trainers.trainer import Trainer

STEPS = 5  # that are timed
SHARE = 0.25  # of a GPU's peak
# bf16 with sums in fp32, dense, by the maker's data sheets
PEAKS = {"H200": 989e12, "A100": 312e12, "RTX 4090": 165e12}


@dataclass(frozen=True)
class Cost:
    """The cost of one optimiser step.

    Args:
        seconds: on this machine, of which `waiting` for batches.
        flop: floating-point operations, a multiplication and an addition being two, in the form that GPUs compute: on
            a CPU look-ups replace a part of them.
        peak_bytes: the most memory: of the process on a CPU, of tensors on a GPU.
    """

    seconds: float
    waiting: float
    flop: int
    peak_bytes: int

    def lines(self, steps: int) -> Iterator[str]:
        """Yield what a user wants to know of a training of so many steps."""
        yield (f"a step: {self.seconds:.3g} s ({self.waiting:.2g} s of it for data), {self.flop / 1e9:.0f} GFLOP, "
               f"at most {self.peak_bytes / 2**30:.1f} GiB")  # fmt: skip
        yield f"{steps} steps: {span(self.seconds * steps)} on this machine"
        hours = ", ".join(f"{span(self.flop * steps / (peak * SHARE))} on a {gpu}" for gpu, peak in PEAKS.items())
        yield f"if a GPU reached {SHARE:.0%} of its bf16 peak (assumed, not measured): {hours}"


def estimate(trainer: Trainer) -> Cost:
    """Make a few steps and throw them away; the trainer's model is changed, nothing is written."""
    device, settings = trainer.world.device, trainer.settings
    batches = Feed(trainer.make_loader(0), device)
    times, waits = [], []
    for number in range(STEPS + 1):  # the first allocates, and finds the fastest convolutions
        start = time.perf_counter()
        upcoming = [arrived(next(batches)) for _ in range(settings.accumulate)]
        waits.append(time.perf_counter() - start)
        trainer.steps.make(upcoming, number)
        if trainer.ema:
            trainer.ema.update()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    trainer.steps.settings = replace(settings, precision="bf16")  # without a CPU's look-ups
    try:
        with FlopCounterMode(display=False) as counter:
            trainer.steps.make(upcoming, STEPS + 1)
    finally:
        trainer.steps.settings = settings
    return Cost(statistics.median(times[1:]), statistics.median(waits[1:]), counter.get_total_flops(), peak)


def span(seconds: float) -> str:
    """Return a time as people say it."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
