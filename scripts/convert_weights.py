"""Make a run of an authors' checkpoint: `python scripts/convert_weights.py --model divsem --source best.pth
--style_codes style_codes.pt --label_nc 151 --name divsem_flickr`.

The run folder holds opt.yaml, the weights in RGB as safetensors, and the style bank; test.py and edit.py use it like
any other. A whole SPMPGAN or SIEDOB checkpoint (discriminators, optimisers) also becomes one that train.py continues.
SemIA's generator needs its picture: --dataroot DIR (img.*, label.*) and --resize.
SIEDOB is converted in four steps; siedob_fusion takes the runs of the other three, siedob_style's with a style bank.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import torch
from torch import Tensor

from data import DATASETS
from data.ade20k_classes import NAMES
from data.prepare.writing import write_class_table
from data.records import ClassTable
from models import MODELS
from models.base_bank import BANK_FILE
from models.base_cascade_gan import CascadeGAN
from models.released_weights import siedob
from models.released_weights.conversion import adam_state, parameter_names, released_parameters, renamed
from models.released_weights.divsem import (
    read_architecture,
    released_discriminator_key,
    released_generator_key,
    to_rgb,
)
from models.style_bank import StyleBank
from options.base_options import OPTIONS_FILE, Options, add_run_folder_flags, input_folder, run_folder
from options.parser import StrictParser
from options.train_options import TrainOptions
from scripts.convert_s2prest import add_s2prest_flags, convert_s2prest
from scripts.convert_semia import convert_semia
from trainers.checkpoint import Checkpoints
from trainers.restore import load_inputs
from trainers.state import pack
from trainers.weights import WEIGHTS_FILE, save_weights
from util.errors import EXIT_OK, UserError, run_main
from util.files import cause
from util.flags import positive
from util.images import default_palette

DISCRIMINATORS = ("netD_1", "netD_2", "netD_3")
OPTIMIZERS_D = ("optimizer_D_1", "optimizer_D_2", "optimizer_D_3")
CITYSCAPES_NC = 34
INPUT_RUNS = ("background_run", "inpaint_run", "style_run")  # of siedob_fusion
RELEASED_OBJECTS = ClassTable(("car", "person"), default_palette(2), scene_ids=(26, 24))  # of SIEDOB, in Cityscapes


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


def convert(args: argparse.Namespace) -> Path:
    """Convert SPMPGAN's or DivSem's checkpoint and return the run folder."""
    source = read_source(args.source)
    arch = read_architecture(network_of(source, "netG", args.source))
    check_label_nc(args, arch.label_nc)
    if bool(arch.nef) != (args.model == "divsem"):
        found = "divsem" if arch.nef else "spmpgan"
        raise UserError(f"--model {args.model}: {args.source} holds a {found} generator")
    flags = run_options(args, arch.label_nc) + architecture_flags(args.model, arch, source)
    opt = TrainOptions().parse(flags)
    folder = new_folder(opt)
    with torch.device("meta"):
        model: Any = MODELS.get(args.model).from_options(opt, is_train=False)
    netG = renamed(model.netG.state_dict(), source["netG"], released_generator_key, to_rgb)
    bank = read_bank(args.style_codes, arch.style_dim) if args.style_codes else None
    folder.mkdir(parents=True, exist_ok=True)
    if all(key in source for key in ("optimizer_G", *DISCRIMINATORS, *OPTIMIZERS_D)):
        # The perceptual network has no part in a checkpoint, and its weights need not be at hand.
        save_training_state(TrainOptions().parse([*flags, "--lambda_vgg", "0"]), source, netG, folder)
    save_weights({"netG": netG}, folder / WEIGHTS_FILE, step=0, source=args.source.name)
    if bank is not None:
        bank.save(folder / BANK_FILE)
    save_class_names(opt, folder)
    opt.save(folder / OPTIONS_FILE)  # last: a folder with it is a whole run
    return folder


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


def save_class_names(opt: Options, folder: Path) -> None:
    """Write the classes of the release's labels; nothing where neither the mode nor --dataroot knows them."""
    table = DATASETS.get(opt.dataset_mode).class_table(opt.dataroot)
    if (opt.model, opt.dataset_mode) == ("divsem", "ade20k_landscape"):  # its labels count from 0: no "other"
        table = ClassTable(NAMES[1:], default_palette(len(NAMES))[1:])
    if table.names:
        write_class_table(folder, table.resized(opt.label_nc))


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


# --- SIEDOB ---
def convert_siedob(args: argparse.Namespace) -> Path:
    """Convert a checkpoint, or a generator's file, of one of SIEDOB's steps and return the run folder."""
    source, networks = read_source(args.source), siedob.CHECKPOINTS[args.model]
    released = networks["netG"][0]
    state = released.unprefixed(network_of(source, released.entry, args.source))
    opt, table = siedob_options(args, siedob.read_architecture(args.model, state), source)
    folder = new_folder(opt)
    model = siedob_model(opt, is_train=False)
    netG = renamed(model.netG.state_dict(), state, released.name, released.to_rgb)
    model.netG.load_state_dict(netG)
    trained = None
    if all(name in source for found in networks.values() for name in (found[0].entry, found[1])):
        trained = siedob_training_state(opt, source)
    folder.mkdir(parents=True, exist_ok=True)
    if trained is not None:
        Checkpoints(folder).save(trained, 0)
    save_weights(model.state(), folder / WEIGHTS_FILE, step=0, source=args.source.name)
    write_class_table(folder, table)
    opt.save(folder / OPTIONS_FILE)
    return folder


def siedob_model(opt: Options, *, is_train: bool) -> Any:
    """Build a step, with the networks of the runs that it builds on; without its perceptual network."""
    if is_train:
        opt = Options({**opt.values(), "lambda_vgg": 0.0}, {})
    model: Any = MODELS.get(opt.model).from_options(opt, is_train=is_train)
    load_inputs(model, {flag: input_folder(opt, getattr(opt, flag)) for flag in model.input_runs})
    return model


def siedob_options(
    args: argparse.Namespace, arch: siedob.Architecture, source: Mapping[str, Any]
) -> tuple[Options, ClassTable]:
    """Return the run's options, by the release's own rules, and its classes."""
    label_nc = arch.label_nc or args.label_nc or CITYSCAPES_NC  # the fusion network sees no labels
    check_label_nc(args, label_nc)
    flags = ["--ngf", str(arch.ngf), "--mask_schedule", "index", "--perceptual_order", "bgr"]
    judge = siedob.CHECKPOINTS[args.model]["netD"][0].entry
    if judge in source:
        flags += ["--ndf", str(source[judge]["dis_model.0.conv.weight_orig"].shape[0])]
    if args.model in ("siedob_inpaint", "siedob_style"):
        flags += ["--style_dim", str(arch.style_dim)] if arch.style_dim else []
        return object_options(args, flags, label_nc)
    if args.model == "siedob_background":
        flags += ["--saspm" if arch.saspm else "--no-saspm"]
    else:
        flags += ["--object_overlap", "sum", "--frozen_train"]
        flags += [arg for flag in INPUT_RUNS if (run := getattr(args, flag)) for arg in (f"--{flag}", run)]
    if scene_mode(args, label_nc) == "cityscapes":
        flags += ["--label_map", "0:33"]  # the release's label 0 is its last class
    opt = TrainOptions().parse([*run_options(args, label_nc), *flags, "--crop_size", "256"])
    return opt, DATASETS.get(opt.dataset_mode).class_table(opt.dataroot).resized(label_nc)


def object_options(args: argparse.Namespace, flags: list[str], label_nc: int) -> tuple[Options, ClassTable]:
    """Return the options and classes of an object network; without --dataroot its classes are the released ones."""
    if not args.dataroot and label_nc != len(RELEASED_OBJECTS.names) + 1:
        raise UserError(f"--dataroot is missing: which are the {label_nc - 1} classes? (a folder of their crops)")
    flags = [*folder_flags(args), *flags, "--dataset_mode", args.dataset_mode or "objects", "--crop_size", "64"]
    with tempfile.TemporaryDirectory() as stage:
        write_class_table(Path(stage), RELEASED_OBJECTS)
        opt = TrainOptions().parse([*flags, "--label_nc", str(label_nc), "--dataroot", args.dataroot or stage])
        table = DATASETS.get("objects").class_table(opt.dataroot)
    return Options({**opt.values(), "dataroot": args.dataroot}, vars(opt)["_set_by"]), table


def siedob_training_state(opt: Options, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint of step 0 with networks and Adam's moments; the released file does not know its step."""
    model = siedob_model(opt, is_train=True)
    for name, (released, optimizer) in siedob.CHECKPOINTS[opt.model].items():
        net, state = model.networks()[name], released.unprefixed(source[released.entry])
        net.load_state_dict(renamed(net.state_dict(), state, released.name, released.to_rgb))
        ours = getattr(model, f"optimizer_{name[-1]}")
        moments, place = ours.state_dict(), parameter_names(net, released.name).index
        adam_state(source[optimizer], released_parameters(state), place, moments, released.to_rgb)
        ours.load_state_dict(moments)
    return pack(step=0, nimg=0, model=model, ema=None, options=opt.values())


# --- SPMPGAN and DivSem ---
def save_training_state(opt: Options, source: Mapping[str, Any], netG: dict[str, Tensor], folder: Path) -> None:
    """Write a checkpoint of step 0 with networks and Adam's moments; the released file does not know its step."""
    model: Any = MODELS.get(opt.model).from_options(opt, is_train=True)
    assert isinstance(model, CascadeGAN) and model.netD is not None
    model.netG.load_state_dict(netG)
    netD: dict[str, Tensor] = {}
    for entry in DISCRIMINATORS:
        own = {k: v for k, v in model.netD.state_dict().items() if released_discriminator_key(k)[0] == entry}
        netD |= renamed(own, source[entry], lambda key: released_discriminator_key(key)[1], to_rgb)
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


def main(argv: list[str] | None = None) -> int:
    parser = StrictParser(description=__doc__.split(":")[0] if __doc__ else None)
    add_run_folder_flags(parser)
    choices = ("divsem", "spmpgan", "semia", "s2prest", *siedob.CHECKPOINTS)
    parser.add_argument("--model", choices=choices, required=True, help="what --source holds")
    parser.add_argument("--source", type=Path, metavar="FILE", required=True, help="the authors' checkpoint")
    parser.add_argument("--style_codes", type=Path, metavar="FILE", help="the authors' style_codes.pt (divsem)")
    parser.add_argument("--label_nc", type=int, help="number of classes; read from the file, checked if given")
    parser.add_argument("--dataset_mode", help="layout of the data to test on; default: the release's")
    parser.add_argument("--dataroot", help="its folder; may be given to test.py instead (semia needs it here)")
    parser.add_argument("--resize", type=positive, default=1.0, help="factor that semia's weights were trained with")
    for flag in INPUT_RUNS:
        parser.add_argument(f"--{flag}", metavar="RUN", help="converted run, by name or folder (siedob_fusion)")
    add_s2prest_flags(parser)
    args = parser.parse_args(argv)
    if not args.name:
        raise UserError("--name is missing: give the run a name")
    test = shlex.join(["python", "test.py", "--name", args.name, "--checkpoints_dir", str(args.checkpoints_dir)])
    if args.model == "s2prest":
        print(f"{args.source} -> {convert_s2prest(args)}")
        print(f"{test} --content FILE_OR_DIR")
        return EXIT_OK
    if args.style_codes and args.model != "divsem":
        raise UserError(f"--style_codes: --model {args.model} has no style codes")
    for flag in INPUT_RUNS:
        if getattr(args, flag) and args.model != "siedob_fusion":
            raise UserError(f"--{flag}: only --model siedob_fusion builds on other runs")
    not_for = ("label_nc", "dataset_mode") if args.model == "semia" else ("resize",)
    for flag in not_for:
        if getattr(args, flag) != parser.get_default(flag):
            raise UserError(f"--{flag}: --model {args.model} does not take it; leave it out")
    if args.model == "semia":
        folder = convert_semia(args, read_source(args.source))
    else:
        folder = convert_siedob(args) if args.model in siedob.CHECKPOINTS else convert(args)
    print(f"{args.source} -> {folder}")
    print(f"{test} --dataroot DIR")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
