"""`benchmark.py infer` and `train`: SPMPGAN and DivSem at the papers' widths, beside what their release does.

Plain: `as_released`, and optimisers that are not fused. Both forms have the same random weights and see the same
pictures, in turn, in one process; inference also compares the results.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor

from data.masks import brush
from models.base_cascade_gan import CascadeGAN
from models.base_gan import GANTraining
from models.divsem_model import DivSemModel
from models.losses.perceptual import PerceptualLoss
from models.networks.blocks.discriminator import MultiScaleDiscriminator
from models.networks.blocks.init import init_normal
from models.networks.cascade.stages import CascadeGenerator
from models.networks.cascade.style_encoder import StyleEncoder
from models.spmpgan_model import SPMPGANModel
from scripts.benchmarks.as_released import as_released
from scripts.benchmarks.measure import (
    OURS,
    PLAIN,
    Figures,
    Form,
    convolution_rate,
    in_turn,
    machine,
    save,
    told,
    with_ratios,
)
from trainers.distributed import Distributed
from trainers.guard import UpdateGuard
from trainers.settings import TrainerSettings
from trainers.step import Step
from util.batch import Batch, to_device
from util.compiling import NOT
from util.device import autocast, resolve_device
from util.errors import UserError
from util.seeds import random_pair, torch_generator

INSTANCES, CLASSES = 36, 34
WEIGHTS = {"G/gan": 1.0, "G/l1": 1.0, "G/vgg": 10.0, "G/feat": 0.0}
ROWS = {  # method, classes, whether an instance is wholly erased
    "infer": (("divsem", 151, False), ("divsem", 34, False), ("spmpgan", 34, False)),
    "train": (("divsem", 34, False), ("divsem", 34, True), ("spmpgan", 34, False)),
}


class VGGOfCost(PerceptualLoss):
    """The perceptual loss with random weights."""

    def __init__(self) -> None:
        with patch("models.losses.perceptual.load_features"):
            super().__init__()


def main(opt: argparse.Namespace) -> None:
    """Print the table and write the JSON."""
    require_sizes(opt)
    rate, found = convolution_rate(opt), machine(opt)
    print(f"{opt.size}x{opt.size}, batch {opt.batch_size}, {opt.precision}, {told(found)}; a 3x3 convolution of 128 "
          f"channels: {rate:.0f} GFLOP/s")  # fmt: skip
    heads = f"{'images/s':>10}{'ratio':>8}{'CPU':>8}{'GFLOP plain':>13}{'ours':>7}{'of rate':>9}"
    print(f"{'':32}{'plain s':>9}{'ours s':>9}{heads}{'difference':>12}")
    figures: Figures = {**found, "size": opt.size, "batch": opt.batch_size, "precision": opt.precision,
                        "conv_gflops": rate, "rows": {}}  # fmt: skip
    for method, classes, erased in ROWS[opt.what]:
        row = measure(opt, opt.what, method, classes, erased=erased)
        row["share"] = opt.batch_size * row[OURS]["gflop"] / row[OURS]["wall_s"] / rate
        name = f"{method}, {classes} classes" + ", one erased" * erased
        figures["rows"][name] = row
        show(name, row)
    save(opt, figures)


def require_sizes(opt: argparse.Namespace) -> None:
    """Raise `UserError` for what the networks, or fills, do not take."""
    if opt.what == "infer" and (opt.compile != NOT or opt.channels_last is not None):
        raise UserError("--compile and --channels_last are for steps of training, as train.py's")
    if opt.size < 64 or opt.size % 64 or opt.ngf < 2 or opt.ngf % 2:
        raise UserError(f"--size {opt.size} --ngf {opt.ngf}: a multiple of 64, and an even width")


def show(name: str, row: Figures) -> None:
    """Print a row; what it does not have is left blank."""
    ours, plain = row[OURS], row.get(PLAIN)
    cells = [f"{plain['wall_s']:.2f}" if plain else "", f"{ours['wall_s']:.2f}", f"{ours['images_per_s']:.2f}",
             f"{row['ratio']:.2f}x" if plain else "", f"{row['cpu_ratio']:.2f}x" if plain else "",
             f"{plain['gflop']:.0f}" if plain else "", f"{ours['gflop']:.0f}", f"{row['share']:.0%}",
             f"{row['difference']:.1e}" if "difference" in row else ""]  # fmt: skip
    widths = (9, 9, 10, 8, 8, 13, 7, 9, 12)
    print(f"{name:32}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))


def measure(
    opt: argparse.Namespace, what: str, method: str, classes: int, *, instances: int = INSTANCES, erased: bool = False
) -> Figures:
    """Time one method, against its plain form unless `--against none`; GFLOP and images/s are of pictures."""
    forms = {
        name: form_of(opt, what, method, classes, name=name, instances=instances, erased=erased)
        for name in (PLAIN, OURS)
        if name == OURS or opt.against == PLAIN
    }
    figures, results = in_turn(forms, opt)
    for each in figures.values():
        each["gflop"] /= opt.batch_size
        each["images_per_s"] = opt.batch_size / each["wall_s"]
    row = with_ratios(figures)
    if what == "infer" and PLAIN in results:
        row["difference"] = float((results[PLAIN] - results[OURS]).abs().max())
    return row


def form_of(
    opt: argparse.Namespace, what: str, method: str, classes: int, *, name: str, instances: int = INSTANCES,
    erased: bool = False, world: Distributed | None = None,
) -> Form:  # fmt: skip
    """Return a method's work, "infer" or "train", in its plain form or ours; `world`: shared with other processes."""
    world = world or Distributed(device=resolve_device(opt.device))
    device = world.device
    model = build(opt, method, classes, is_train=what == "train")
    made = scene(opt.size, classes, instances=instances, batch=opt.batch_size, erased=erased)
    batch = to_device(made, device)
    work: Callable[[], Tensor | None]
    if what == "infer":
        model.to(device)
        work = inference(model, batch, opt.precision)
    else:
        chosen = {"compile": opt.compile, "channels_last": opt.channels_last} if name == OURS else {}
        settings = TrainerSettings(max_steps=1, precision=opt.precision, **chosen)
        work = training(model, batch, settings, world, fused=name == OURS)
    return Form(work, partial(as_released if name == PLAIN else as_in_runs, model))


@contextmanager
def as_in_runs(model: CascadeGAN) -> Iterator[None]:
    """Context in which the layers compute as in any run."""
    model.to(next(model.netG.parameters()).device)
    yield


def build(opt: argparse.Namespace, method: str, classes: int, *, is_train: bool) -> CascadeGAN:
    """Return a model with seeded weights."""
    torch.manual_seed(0)
    encoder = StyleEncoder(nef=opt.ngf // 2) if method == "divsem" else None
    netG = CascadeGenerator(label_nc=classes, crop_size=opt.size, ngf=opt.ngf, style_encoder=encoder)
    init_normal(netG)
    settings = None
    if is_train:
        netD = MultiScaleDiscriminator(label_nc=classes, crop_size=opt.size, ndf=2 * opt.ngf)
        init_normal(netD)
        settings = GANTraining(netD, WEIGHTS, VGGOfCost())
    kind = DivSemModel if method == "divsem" else SPMPGANModel
    return kind(netG=netG, label_nc=classes, training=settings)


def scene(size: int, classes: int, *, instances: int = INSTANCES, batch: int = 1, erased: bool = False) -> Batch:
    """Return pictures of `instances` cells around random points: a brush stroke of each is erased, or also a cell."""
    shape = (batch, 3, size, size)
    image = torch.rand(shape, generator=torch_generator("benchmark", "image")) * 2 - 1
    pixel = torch.cartesian_prod(torch.arange(size), torch.arange(size)).float()
    points = torch.rand(batch, instances, 2, generator=torch_generator("benchmark", "points")) * size
    inst = torch.stack([torch.cdist(pixel, each).argmin(1).view(size, size) for each in points])
    mask = torch.stack([torch.from_numpy(brush(*random_pair("benchmark", "mask", b), size)) for b in range(batch)])
    mask[(inst == 0) & erased] = 1
    edge = torch.zeros(batch, 1, size, size)
    ids = torch.arange(instances).repeat(batch, 1)
    edge[:, 0, 1:, 1:] = ((inst[:, 1:, 1:] != inst[:, :-1, 1:]) | (inst[:, 1:, 1:] != inst[:, 1:, :-1])).float()
    return {"image": image, "label": inst % classes, "inst": inst, "mask": mask.float()[:, None], "edge": edge,
            "name": ["benchmark"] * batch, "index": [0] * batch, "inst_id": ids, "inst_class": ids % classes,
            "hidden": [erased] * batch}  # fmt: skip


def inference(model: CascadeGAN, batch: Batch, precision: str) -> Callable[[], Tensor]:
    """Return a call that fills the pictures."""
    model.eval()

    @torch.no_grad()
    def fill() -> Tensor:
        with autocast(batch["image"].device, precision):
            return model.netG(*model.generator_inputs(batch)).composite[-1]

    return fill


def training(
    model: CascadeGAN, batch: Batch, settings: TrainerSettings, world: Distributed, *, fused: bool = True
) -> Callable[[], None]:
    """Return a call that makes a step of training, with fused optimisers or those of the release."""
    settings.set_up(model, world.device)
    if world.world_size > 1:
        model.distribute(partial(world.wrap, unused_parameters=model.unused_parameters))
    step = Step(model, world=world, guard=UpdateGuard(model, world), settings=settings)
    for phase in model.phases():
        for group in phase.optimizer.param_groups:
            group["fused"] = fused
    return lambda: step.make([batch], 0)
