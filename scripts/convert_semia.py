"""What convert_weights.py does with SemIA's generator: a run folder for its picture, to be tested and edited."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from data import DATASETS
from data.prepare.writing import save_classes
from models import MODELS
from models.released_weights.semia import converted, read_ngf
from options.base_options import OPTIONS_FILE
from options.train_options import TrainOptions
from scripts.conversion_run import folder_flags, new_folder
from trainers.weights import WEIGHTS_FILE, save_weights
from util.errors import UserError


def convert_semia(args: argparse.Namespace, source: Any) -> Path:
    """Convert and return the run folder.

    Args:
        args: of convert_weights.py; `dataroot` is the folder of the picture that the weights belong to, `resize` the
            factor that they were trained with.
        source: what the authors' file holds.
    """
    if not isinstance(source, Mapping):
        raise UserError(f"{args.source}: no state dict; expected the authors' <step>_net_G.pth")
    if args.dataroot is None:
        raise UserError("--dataroot is missing: the folder (img.*, label.*, cond/*) that the weights were trained on")
    flags = [*folder_flags(args), "--dataroot", args.dataroot]
    flags += ["--dataset_mode", "single_image", "--resize", str(args.resize)]
    flags += ["--ngf", str(read_ngf(source, str(args.source))), "--ratio_limit", "0"]  # the release's own rules
    opt = TrainOptions().parse([*flags, "--patch_loss", "released", "--semantic_alignment", "released"])
    folder = new_folder(opt)
    dataset: Any = DATASETS.get(opt.dataset_mode).from_options(opt, split="train", augment=False, task="none")
    with torch.device("meta"):
        model: Any = MODELS.get(opt.model).from_options(opt, is_train=False)
    netG = converted(model.netG.state_dict(), source, str(args.source))
    folder.mkdir(parents=True, exist_ok=True)
    save_weights({"netG": netG}, folder / WEIGHTS_FILE, step=0, source=args.source.name)
    save_classes(dataset, folder)
    opt.save(folder / OPTIONS_FILE)  # last: a folder with it is a whole run
    return folder
