"""`benchmark.py style`: means of maps over instances, and their inverse, against a loop over instances.

Plain: each instance of each picture in turn, its pixels found by comparison, as in DivSem's release. The scene is that
of `infer`; maps have the width of a style code.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from models.networks.blocks.segments import Segments
from scripts.benchmarks.as_released import plain_means, plain_paint
from scripts.benchmarks.cascade import CLASSES, INSTANCES, scene
from scripts.benchmarks.measure import OURS, PLAIN, Figures, Form, in_turn, machine, save, told, with_ratios
from util.batch import to_device
from util.device import resolve_device
from util.seeds import torch_generator

CHANNELS = 128  # of a style code


def main(opt: argparse.Namespace) -> None:
    """Print the table and write the JSON."""
    found = machine(opt)
    figures: Figures = {**found, "size": opt.size, "batch": opt.batch_size, "rows": {}}
    print(f"{opt.size}x{opt.size}, batch {opt.batch_size}, {CHANNELS} channels, {INSTANCES} instances, {told(found)}")
    print(f"{'':24}{'plain ms':>10}{'ours ms':>10}{'ratio':>8}{'CPU':>8}{'difference':>12}")
    for name, backward in (("forward", False), ("forward and backward", True)):
        row = measure(opt, backward=backward)
        figures["rows"][name] = row
        plain = f"{1e3 * row[PLAIN]['wall_s']:.1f}" if PLAIN in row else ""
        ratios = f"{row['ratio']:7.1f}x{row['cpu_ratio']:7.1f}x{row['difference']:12.1e}" if PLAIN in row else ""
        print(f"{name:24}{plain:>10}{1e3 * row[OURS]['wall_s']:10.1f}{ratios}")
    save(opt, figures)


def measure(opt: argparse.Namespace, *, backward: bool) -> Figures:
    """Time means over the visible pixels and painting; the difference is that of the painted maps, or the gradients."""
    batch = to_device(scene(opt.size, CLASSES, batch=opt.batch_size), resolve_device(opt.device))
    shape = (opt.batch_size, CHANNELS, opt.size, opt.size)
    x = torch.rand(shape, generator=torch_generator("benchmark", "codes")).to(batch["image"].device)
    valid, inst = 1 - batch["mask"], batch["inst"]

    def plain(x: Tensor) -> Tensor:
        return plain_paint(plain_means(x, inst, INSTANCES, valid), inst)

    def ours(x: Tensor) -> Tensor:
        segments = Segments(inst, INSTANCES)
        return segments.paint(segments.mean(x, valid))

    def work(painted: Callable[[Tensor], Tensor]) -> Tensor:
        if not backward:
            with torch.no_grad():
                return painted(x)
        leaf = x.clone().requires_grad_()
        out = painted(leaf)
        return torch.autograd.grad((out * x).sum(), leaf)[0]

    chosen = {PLAIN: plain, OURS: ours} if opt.against == PLAIN else {OURS: ours}
    figures, results = in_turn({name: Form(partial(work, each)) for name, each in chosen.items()}, opt)
    row = with_ratios(figures)
    if PLAIN in results:
        row["difference"] = float((results[PLAIN] - results[OURS]).abs().max())
    return row
