"""What a training will cost, from a few of its own steps (`train.py --estimate`)."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from trainers.feed import Feed, arrived
from trainers.trainer import Trainer
from util.compiling import uncompiled
from util.text_table import aligned

STEPS = 5  # that are timed
SHARE = 0.25  # of a GPU's peak
# bf16 with sums in fp32, dense, by the maker's data sheets
PEAKS = {"H200": 989e12, "A100": 312e12, "RTX 4090": 165e12}
ASSUMED = f"if a GPU reached {SHARE:.0%} of its bf16 peak (assumed, not measured)"


@dataclass(frozen=True)
class Cost:
    """The cost of one optimiser step.

    Args:
        parameters: of all networks of the method.
        seconds: on this machine, of which `waiting` for batches.
        flop: floating-point operations, a multiplication and an addition being two, in the form that GPUs compute: on
            a CPU look-ups replace a part of them.
        peak_bytes: the most memory: of the process on a CPU, of tensors on a GPU.
    """

    parameters: int
    seconds: float
    waiting: float
    flop: int
    peak_bytes: int

    def lines(self, steps: int) -> Iterator[str]:
        """Yield what a user wants to know of a training of so many steps."""
        yield (f"a step: {self.seconds:.3g} s ({self.waiting:.2g} s of it for data), {self.flop / 1e9:.0f} GFLOP, "
               f"at most {self.peak_bytes / 2**30:.1f} GiB")  # fmt: skip
        yield f"{steps} steps: {span(self.seconds * steps)} on this machine"
        yield f"{ASSUMED}: {', '.join(f'{time} on a {gpu}' for gpu, time in self.on_gpus(steps).items())}"

    def on_gpus(self, steps: int) -> dict[str, str]:
        """Return how long so many steps would take on each GPU of `PEAKS`."""
        return {gpu: span(self.flop * steps / (peak * SHARE)) for gpu, peak in PEAKS.items()}


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
        with uncompiled(settings.compile), FlopCounterMode(display=False) as counter:
            trainer.steps.make(upcoming, STEPS + 1)
    finally:
        trainer.steps.settings = settings
    parameters = sum(p.numel() for net in trainer.model.networks().values() for p in net.parameters())
    return Cost(parameters, statistics.median(times[1:]), statistics.median(waits[1:]), counter.get_total_flops(), peak)


def span(seconds: float) -> str:
    """Return a time as people say it."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def cost_table(costs: Sequence[tuple[str, int, Cost]]) -> str:
    """Return a text table of trainings: their labels, steps and costs."""
    lines = [["", "parameters", "a step", "operations", "memory", "steps", "here", *PEAKS]]
    for label, steps, cost in costs:
        step = [f"{cost.parameters / 1e6:.1f} M", f"{cost.seconds:.3g} s", f"{cost.flop / 1e9:.0f} GFLOP"]
        memory = f"{cost.peak_bytes / 2**30:.1f} GiB"
        training = [str(steps), span(cost.seconds * steps), *cost.on_gpus(steps).values()]
        lines.append([label, *step, memory, *training])
    return aligned(lines)
