"""What convert_weights.py does with the steps of SIEDOB: a run folder for each, which train.py continues."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data import DATASETS
from data.prepare.writing import write_class_table
from models import MODELS
from models.released_weights import siedob
from models.released_weights.conversion import adam_state, parameter_names, released_parameters, renamed
from options.base_options import OPTIONS_FILE, Options, input_folder
from options.train_options import TrainOptions
from scripts.conversion_run import (
    CITYSCAPES_NC,
    check_label_nc,
    folder_flags,
    network_of,
    new_folder,
    read_source,
    run_options,
    scene_mode,
)
from trainers.checkpoint import Checkpoints
from trainers.restore import load_inputs
from trainers.state import pack
from trainers.weights import WEIGHTS_FILE, save_weights
from util.class_table import ClassTable
from util.errors import UserError
from util.images import default_palette

INPUT_RUNS = ("background_run", "inpaint_run", "style_run")  # of siedob_fusion
RELEASED_OBJECTS = ClassTable(("car", "person"), default_palette(2), scene_ids=(26, 24))  # in Cityscapes


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
    if all(name in source for entry in networks.values() for name in (entry[0].entry, entry[1])):
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
        if args.model == "siedob_style":
            flags += ["--style_dim", str(arch.style_dim), "--scc_target", "released"]
        return object_options(args, flags, label_nc)
    if args.model == "siedob_background":
        flags += ["--saspm" if arch.saspm else "--no-saspm"]
    else:
        flags += ["--object_overlap", "sum", "--object_gaps", "released", "--frozen_train"]
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
    """Return a checkpoint of step 0 with networks and Adam's moments; the released file does not say its step."""
    model = siedob_model(opt, is_train=True)
    for name, (released, optimizer) in siedob.CHECKPOINTS[opt.model].items():
        net, state = model.networks()[name], released.unprefixed(source[released.entry])
        net.load_state_dict(renamed(net.state_dict(), state, released.name, released.to_rgb))
        ours = getattr(model, f"optimizer_{name[-1]}")
        moments, place = ours.state_dict(), parameter_names(net, released.name).index
        adam_state(source[optimizer], released_parameters(state), place, moments, released.to_rgb)
        ours.load_state_dict(moments)
    return pack(step=0, nimg=0, model=model, ema=None, options=opt.values())
