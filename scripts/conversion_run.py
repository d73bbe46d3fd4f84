"""What the conversions of released weights share: reading a file, and the options and folder of the new run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from options.base_options import OPTIONS_FILE, Options, run_folder
from util.errors import UserError
from util.files import cause

CITYSCAPES_NC = 34


def read_source(path: Path) -> Any:
    """Read a PyTorch file; only tensors and plain values are unpickled."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path}: not read ({cause(error)}). Only tensors and plain values are accepted; a file that "
            "holds whole Python objects could run any code."
        ) from error


def network_of(source: Any, name: str, path: Path) -> Mapping[str, Tensor]:
    """Return a network of an authors' checkpoint; raises `UserError`."""
    if not isinstance(source, Mapping) or not isinstance(source.get(name), Mapping):
        raise UserError(f"{path}: no entry '{name}'; expected the authors' checkpoint")
    return source[name]


def check_label_nc(args: argparse.Namespace, found: int) -> None:
    if args.label_nc is not None and args.label_nc != found:
        raise UserError(f"--label_nc {args.label_nc}: {args.source} was trained with {found} classes")


def new_folder(opt: Options) -> Path:
    """Return the run's folder; raises `UserError` if there is a run."""
    folder = run_folder(opt)
    if (folder / OPTIONS_FILE).exists():
        raise UserError(f"{folder} exists already: give another --name")
    return folder


def run_options(args: argparse.Namespace, label_nc: int) -> list[str]:
    """Return the flags of the run that do not follow from the tensors."""
    flags = ["--dataset_mode", scene_mode(args, label_nc), "--label_nc", str(label_nc), "--load_size", "0"]
    return [*folder_flags(args), *flags, *(["--dataroot", args.dataroot] if args.dataroot else [])]


def scene_mode(args: argparse.Namespace, label_nc: int) -> str:
    """Return the layout of the data: as asked for, else that of the release."""
    default = "cityscapes" if label_nc == CITYSCAPES_NC else "ade20k_room"
    return args.dataset_mode or ("ade20k_landscape" if args.model == "divsem" else default)


def folder_flags(args: argparse.Namespace) -> list[str]:
    return ["--name", args.name, "--checkpoints_dir", args.checkpoints_dir, "--model", args.model]
