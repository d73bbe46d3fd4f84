"""What convert_weights.py does with SPMPGAN's and DivSem's checkpoints: a run folder, which train.py continues."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data import DATASETS
from data.ade20k_classes import NAMES
from data.prepare.writing import write_class_table
from models import MODELS
from models.base_bank import BANK_FILE
from models.base_cascade_gan import CascadeGAN
from models.released_weights.conversion import adam_state, parameter_names, released_parameters, renamed
from models.released_weights.divsem import (
    read_architecture,
    released_discriminator_key,
    released_generator_key,
    to_rgb,
)
from models.style_bank import StyleBank
from options.base_options import OPTIONS_FILE, Options
from options.train_options import TrainOptions
from scripts.conversion_run import check_label_nc, network_of, new_folder, read_source, run_options, scene_mode
from trainers.checkpoint import Checkpoints
from trainers.state import pack
from trainers.weights import WEIGHTS_FILE, save_weights
from util.class_table import ClassTable
from util.errors import UserError
from util.images import default_palette

DISCRIMINATORS = ("netD_1", "netD_2", "netD_3")
OPTIMIZERS_D = ("optimizer_D_1", "optimizer_D_2", "optimizer_D_3")


def convert_cascade(args: argparse.Namespace) -> Path:
    """Convert and return the run folder."""
    source = read_source(args.source)
    arch = read_architecture(network_of(source, "netG", args.source))
    check_label_nc(args, arch.label_nc)
    if bool(arch.nef) != (args.model == "divsem"):
        method = "divsem" if arch.nef else "spmpgan"
        raise UserError(f"--model {args.model}: {args.source} holds a {method} generator")
    flags = run_options(args, arch.label_nc) + architecture_flags(args.model, arch, source)
    if (args.model, scene_mode(args, arch.label_nc)) == ("spmpgan", "ade20k_room"):
        flags += ["--stuff_instances", "released"]  # DivSem's rule for rooms is not known
    opt = TrainOptions().parse(flags)
    folder = new_folder(opt)
    with torch.device("meta"):
        model: Any = MODELS.get(args.model).from_options(opt, is_train=False)
    netG = renamed(model.netG.state_dict(), source["netG"], released_generator_key, to_rgb)
    bank = read_bank(args.style_codes, arch.style_dim) if args.style_codes else None
    folder.mkdir(parents=True, exist_ok=True)
    if all(key in source for key in ("optimizer_G", *DISCRIMINATORS, *OPTIMIZERS_D)):
        # The perceptual network is not part of a checkpoint, and its weights may be missing.
        save_training_state(TrainOptions().parse([*flags, "--lambda_vgg", "0"]), source, netG, folder)
    save_weights({"netG": netG}, folder / WEIGHTS_FILE, step=0, source=args.source.name)
    if bank is not None:
        bank.save(folder / BANK_FILE)
    save_class_names(opt, folder)
    opt.save(folder / OPTIONS_FILE)  # last: a folder with it is a whole run
    return folder


def save_class_names(opt: Options, folder: Path) -> None:
    """Write the classes of the release's labels, if the mode or --dataroot has them."""
    table = DATASETS.get(opt.dataset_mode).class_table(opt.dataroot)
    if (opt.model, opt.dataset_mode) == ("divsem", "ade20k_landscape"):  # its labels count from 0: no "other"
        table = ClassTable(NAMES[1:], default_palette(len(NAMES))[1:])
    if table.names:
        write_class_table(folder, table.resized(opt.label_nc))


def architecture_flags(model: str, arch: Any, source: Mapping[str, Any]) -> list[str]:
    """Return the flags that describe the released networks and their rules."""
    flags = ["--crop_size", "256", "--ngf", str(arch.ngf), "--spm_hidden", str(arch.hidden)]
    flags += ["--mask_schedule", "index", "--perceptual_order", "bgr"]  # as the release trains
    if "netD_1" in source:
        flags += ["--ndf", str(source["netD_1"]["dis_model.0.conv.weight_orig"].shape[0])]
    if model == "divsem":  # the release's own rules: pooling over all pixels, the class in the instance's id
        flags += ["--style_dim", str(arch.style_dim), "--nef", str(arch.nef)]
        flags += ["--style_pool", "all", "--inst_class_rule", "mod120"]
    return flags


def save_training_state(opt: Options, source: Mapping[str, Any], netG: dict[str, Tensor], folder: Path) -> None:
    """Write a checkpoint of step 0 with networks and Adam's moments; the released file does not say its step."""
    model: Any = MODELS.get(opt.model).from_options(opt, is_train=True)
    assert isinstance(model, CascadeGAN) and model.netD is not None
    model.netG.load_state_dict(netG)
    netD: dict[str, Tensor] = {}
    for entry in DISCRIMINATORS:
        ours_of_entry = {k: v for k, v in model.netD.state_dict().items() if released_discriminator_key(k)[0] == entry}
        netD |= renamed(ours_of_entry, source[entry], lambda key: released_discriminator_key(key)[1], to_rgb)
    model.netD.load_state_dict(netD)
    state_G, state_D = model.optimizer_G.state_dict(), model.optimizer_D.state_dict()
    names_G = parameter_names(model.netG, released_generator_key)
    adam_state(source["optimizer_G"], released_parameters(source["netG"]), names_G.index, state_G, to_rgb)
    names_D = parameter_names(model.netD, lambda key: ":".join(released_discriminator_key(key)))
    for number, entry in enumerate(DISCRIMINATORS, start=1):
        keys = released_parameters(source[entry])
        moments = source[OPTIMIZERS_D[number - 1]]
        prefix = f"{entry}:"
        places = {name.removeprefix(prefix): place for place, name in enumerate(names_D) if name.startswith(prefix)}
        adam_state(moments, keys, places.__getitem__, state_D, to_rgb)
    model.optimizer_G.load_state_dict(state_G)
    model.optimizer_D.load_state_dict(state_D)
    Checkpoints(folder).save(pack(step=0, nimg=0, model=model, ema=None, options=opt.values()), 0)


def read_bank(path: Path, style_dim: int) -> StyleBank:
    """Read the authors' `style_codes.pt`: per class (dict keyed by int, or list) a sequence of codes."""
    cached = read_source(path)
    pairs = cached.items() if isinstance(cached, Mapping) else enumerate(cached)
    codes = {}
    for label, rows in pairs:
        tensors = [row.float().reshape(-1) for row in rows] if isinstance(rows, Sequence | Tensor) else []
        if any(len(row) != style_dim for row in tensors):
            raise UserError(
                f"{path}: class {label} has codes of width {len(tensors[0])}, the generator takes {style_dim}"
            )
        if tensors:
            codes[int(label)] = torch.stack(tensors)
    return StyleBank(codes, rule=f"the authors' {path.name}", weights=WEIGHTS_FILE)
