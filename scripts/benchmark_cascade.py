"""`benchmark.py infer` and `train`: SPMPGAN and DivSem at the papers' widths, against the plain forms of their layers.

Plain: the context as maps at every layer, maps enlarged before they are convolved, channels first. Both forms have the
same random weights and see the same picture, in turn, in one process; inference also compares the pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from data.masks import brush
from models.base_cascade_gan import CascadeGAN
from models.base_gan import GANTraining
from models.divsem_model import DivSemModel
from models.losses.perceptual import PerceptualLoss
from models.networks.blocks import enlarge
from models.networks.blocks.discriminator import MultiScaleDiscriminator
from models.networks.blocks.init import init_normal
from models.networks.cascade import stages
from models.networks.cascade.context import dense_context
from models.networks.cascade.stages import CascadeGenerator
from models.networks.cascade.style_encoder import StyleEncoder
from models.spmpgan_model import SPMPGANModel
from trainers.guard import fuse
from trainers.step import frozen
from util.device import keep_freed_memory
from util.files import write_text
from util.seeds import random_pair, torch_generator

INSTANCES = 36
WEIGHTS = {"G/gan": 1.0, "G/l1": 1.0, "G/vgg": 10.0, "G/feat": 0.0}
ROWS = {"infer": (("divsem", 151), ("divsem", 34), ("spmpgan", 34)), "train": (("divsem", 34), ("spmpgan", 34))}


class VGGOfCost(PerceptualLoss):
    """The perceptual loss with random weights."""

    def __init__(self) -> None:
        with patch("models.losses.perceptual.load_features"):
            super().__init__()


def main(opt: argparse.Namespace) -> None:
    """Print the table and write the JSON."""
    keep_freed_memory()
    rate = convolution_rate(opt)
    print(f"{opt.size}x{opt.size}, batch 1, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads, float32; a 3x3 "
          f"convolution of 128 channels: {rate:.0f} GFLOP/s")  # fmt: skip
    heads = f"{'plain GFLOP':>13}{'ours GFLOP':>12}{'of rate':>9}"
    print(f"{'':22}{'plain s':>9}{'ours s':>9}{'ratio':>7}{'CPU':>7}{heads}")
    figures: dict[str, Any] = {"size": opt.size, "threads": torch.get_num_threads(), "conv_gflops": rate, "rows": {}}
    for method, classes in ROWS[opt.what]:
        row = compare(opt, method, classes)
        row["share"] = row["ours"]["gflop"] / row["ours"]["wall_s"] / rate
        figures["rows"][f"{method}, {classes} classes"] = row
        plain, ours = row["plain"], row["ours"]
        print(f"{f'{method}, {classes} classes':22}{plain['wall_s']:9.2f}{ours['wall_s']:9.2f}{row['ratio']:6.2f}x"
              f"{row['cpu_ratio']:6.2f}x{plain['gflop']:13.0f}{ours['gflop']:12.0f}{row['share']:8.0%}"
              + (f"  largest difference {row['difference']:.1e}" if "difference" in row else ""))  # fmt: skip
    figures["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if opt.json:
        write_text(Path(opt.json), json.dumps(figures, indent=1))


def compare(opt: argparse.Namespace, method: str, classes: int) -> dict[str, Any]:
    """Time one method in both forms, in turn; the least wall seconds of the repeats."""
    batch, forms = scene(opt.size, classes), {}
    for name, form in (("plain", plain_forms), ("ours", fast_forms)):
        model = build(opt, method, classes)
        work = inference(model, batch) if opt.what == "infer" else training(model, batch)
        with form(model):
            with FlopCounterMode(display=False) as counter:
                work()
            forms[name] = (model, form, work, {"gflop": counter.get_total_flops() / 1e9,
                                               "wall_s": float("inf"), "cpu_s": float("inf")})  # fmt: skip
    results: dict[str, Any] = {}
    for _ in range(max(1, opt.repeats)):
        for name, (model, form, work, figures) in forms.items():
            with form(model):
                start, busy = time.perf_counter(), time.process_time()
                results[name] = work()
                figures["wall_s"] = min(figures["wall_s"], time.perf_counter() - start)
                figures["cpu_s"] = min(figures["cpu_s"], time.process_time() - busy)
    row: dict[str, Any] = {name: figures for name, (_, _, _, figures) in forms.items()}
    row["ratio"] = row["plain"]["wall_s"] / row["ours"]["wall_s"]
    row["cpu_ratio"] = row["plain"]["cpu_s"] / row["ours"]["cpu_s"]  # less moved by other programs
    if opt.what == "infer":
        row["difference"] = float((results["plain"] - results["ours"]).abs().max())
    return row


@contextmanager
def plain_forms(model: CascadeGAN) -> Iterator[None]:
    """Context in which the layers compute in their plain forms."""
    for net in networks(model):
        net.to(memory_format=torch.contiguous_format)
    with patch.object(stages, "build_context", dense_context), patch.object(enlarge, "LEAST", float("inf")):
        yield


@contextmanager
def fast_forms(model: CascadeGAN) -> Iterator[None]:
    """Context in which they compute as in any run."""
    model.to(torch.device("cpu"))
    yield


def networks(model: CascadeGAN) -> list[nn.Module]:
    return [*model.networks().values(), *([] if model.perceptual is None else [model.perceptual])]


def build(opt: argparse.Namespace, method: str, classes: int) -> CascadeGAN:
    """Return a model with seeded weights."""
    torch.manual_seed(0)
    encoder = StyleEncoder(nef=opt.ngf // 2) if method == "divsem" else None
    netG = CascadeGenerator(label_nc=classes, crop_size=opt.size, ngf=opt.ngf, style_encoder=encoder)
    init_normal(netG)
    settings = None
    if opt.what == "train":
        netD = MultiScaleDiscriminator(label_nc=classes, crop_size=opt.size, ndf=2 * opt.ngf)
        init_normal(netD)
        settings = GANTraining(netD, WEIGHTS, VGGOfCost())
    kind = DivSemModel if method == "divsem" else SPMPGANModel
    return kind(netG=netG, label_nc=classes, training=settings)


def scene(size: int, classes: int) -> Any:
    """Return a batch of one picture of `INSTANCES` cells around random points, a brush stroke of it erased."""
    image = torch.rand(1, 3, size, size, generator=torch_generator("benchmark", "image")) * 2 - 1
    pixel = torch.cartesian_prod(torch.arange(size), torch.arange(size)).float()
    points = torch.rand(INSTANCES, 2, generator=torch_generator("benchmark", "points")) * size
    inst = torch.cdist(pixel, points).argmin(1).view(1, size, size)
    mask = torch.from_numpy(brush(*random_pair("benchmark", "mask"), size)).float()[None, None]
    edge = torch.zeros_like(mask)
    edge[..., 1:, 1:] = ((inst[:, 1:, 1:] != inst[:, :-1, 1:]) | (inst[:, 1:, 1:] != inst[:, 1:, :-1])).float()
    return {"image": image, "label": inst % classes, "inst": inst, "mask": mask, "edge": edge, "name": ["benchmark"],
            "inst_id": torch.arange(INSTANCES)[None], "inst_class": (torch.arange(INSTANCES) % classes)[None],
            "hidden": torch.zeros(1, dtype=torch.bool)}  # fmt: skip


def inference(model: CascadeGAN, batch: Any) -> Callable[[], Any]:
    """Return a call that fills the picture."""
    model.eval()
    return torch.no_grad()(lambda: model.netG(*model.generator_inputs(batch)).composite[-1])


def training(model: CascadeGAN, batch: Any) -> Callable[[], Any]:
    """Return a call that makes a step, as the trainer does."""
    model.train()
    for phase in model.phases():
        fuse(phase.optimizer)

    def step() -> None:
        shared = model.begin_step(batch)
        for phase in model.phases():
            with frozen(model, keep=phase.networks):
                losses = phase.losses(shared)
                total = torch.stack([model.loss_weights[name] * value for name, value in losses.items()]).sum()
                phase.optimizer.zero_grad(set_to_none=True)
                total.backward()
                phase.optimizer.step()

    return step


def convolution_rate(opt: argparse.Namespace) -> float:
    """Return the GFLOP/s of a plain layer of this size, channels last."""
    x, conv = torch.randn(1, 128, opt.size, opt.size), nn.Conv2d(128, 128, 3, padding=1)
    x, conv = x.to(memory_format=torch.channels_last), conv.to(memory_format=torch.channels_last)
    best = float("inf")
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            conv(x)
            best = min(best, time.perf_counter() - start)
    return 2 * 9 * 128 * 128 * opt.size**2 / best / 1e9
