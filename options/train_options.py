"""Flags of train.py."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from data import DATASETS
from data.masks import MASK_TYPES, parse_mask_types
from models import MODELS
from options.base_options import OPTIONS_FILE, BaseOptions, Options, add_deterministic_flag, saved_options
from options.parser import PROVENANCE, StrictParser
from util.compiling import MODES, NOT
from util.errors import UserError
from util.flags import positive_int
from util.opt import Opt
from util.shared_flags import add_shared

OF_THE_START = (
    "name",
    "checkpoints_dir",
    "config",
    "continue_train",
    "estimate",
    PROVENANCE,
)  # not properties of the run


class TrainOptions(BaseOptions):
    """Options of train.py."""

    is_train = True
    description = "Train a method. Flags of the chosen --model and --dataset_mode are listed last."

    def add_flags(self, parser: StrictParser) -> None:
        super().add_flags(parser)
        add_deterministic_flag(parser)
        group = parser.add_argument_group("training")
        group.add_argument("--max_steps", type=int, default=100_000, help="optimiser steps; 0: save initial weights")
        add_shared(group, "continue_train")
        group.add_argument("--estimate", action=argparse.BooleanOptionalAction, default=False,
                           help="print what a step and the whole training cost, and leave no run")  # fmt: skip
        group.add_argument("--save_every", type=int, default=5000, help="steps between checkpoints")
        group.add_argument("--keep", type=int, default=2, help="step files kept, the newest (never fewer than two)")
        group.add_argument("--log_every", type=int, default=50, help="steps between lines of stats.jsonl")
        group.add_argument(
            "--image_every", type=int, default=1000, help="steps between preview pictures, with one at the end; 0: none"
        )
        group.add_argument("--eval_every", type=int, default=0, metavar="N",
                           help="steps between validations: the averaged weights are tested as --eval_args says, the "
                           "best are kept for test.py --step best; 0 for none")  # fmt: skip
        group.add_argument("--eval_args", default="--split val --metrics fid", metavar="'FLAGS'",
                           help="flags of test.py; the first metric chooses the best weights")  # fmt: skip
        group.add_argument("--accumulate", type=positive_int, default=1, metavar="N",
                           help="take a step's gradient from N batches in turn, as from one of N times the size, in "
                           "the memory of one")  # fmt: skip
        group.add_argument("--checkpoint_activations", action=argparse.BooleanOptionalAction, default=False,
                           help="keep little of the generators' forward passes, and compute it again for the "
                           "gradient, which is the same")  # fmt: skip
        group.add_argument("--compile", choices=MODES, default=NOT,
                           help="torch.compile's mode for the networks in training; reduce-overhead: CUDA graphs "
                           "where shapes are fixed")  # fmt: skip
        group.add_argument("--channels_last", action=argparse.BooleanOptionalAction,
                           help="maps lie channels last in memory; default: on a CPU, if the method does")  # fmt: skip
        group.add_argument("--ema", type=float, default=0.0, help="decay of averaged weights, e.g. 0.999; 0 for none")
        group.add_argument("--tensorboard", action=argparse.BooleanOptionalAction, default=True,
                           help="also write TensorBoard events")  # fmt: skip
        group.add_argument("--dist_timeout", type=float, default=1.0, metavar="MINUTES",
                           help="when a process of a distributed run that does not answer counts as lost")  # fmt: skip
        group.add_argument("--mask_schedule", choices=("random", "index"), default="random",
                           help="mask type of a picture: drawn anew, or tied to its index as released")  # fmt: skip
        group.add_argument("--mask_types", metavar="TYPE,...",
                           help=f"masks to train with, of {', '.join(MASK_TYPES)}; default: by data set")  # fmt: skip
        group.add_argument("--mask_boxes", type=float, default=0.0, metavar="P",
                           help="probability that a mask also erases the boxes of the larger things")  # fmt: skip

    def parse(self, argv: list[str] | None = None) -> Options:
        """Parse the command line; started again by `torchrun --max-restarts`, a run goes on."""
        argv = sys.argv[1:] if argv is None else argv
        probe = self._probe(argv)
        again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
        if again and any((Path(probe.checkpoints_dir) / str(probe.name)).glob("*.pt")):
            argv = [*argv, "--continue_train"]
        return super().parse(argv)

    def run_layer(self, probe: argparse.Namespace) -> dict[str, Any]:
        """Return the run's own options if it is to be continued, or to be shown by --help."""
        path = Path(probe.checkpoints_dir) / str(probe.name) / OPTIONS_FILE
        if not ((probe.continue_train or probe.help) and path.is_file()):
            return {}
        return {name: value for name, value in saved_options(path).items() if name not in OF_THE_START}

    def validate(self, opt: Opt) -> None:
        super().validate(opt)
        for name in ("max_steps", "save_every", "keep", "log_every", "image_every", "eval_every"):
            least = 1 if name in ("save_every", "log_every") else 0
            if getattr(opt, name) < least:
                raise UserError(f"--{name} {getattr(opt, name)} is less than {least}")
        if opt.mask_types is not None:
            parse_mask_types(opt.mask_types, DATASETS.get(opt.dataset_mode).known_masks)
        if not 0 <= opt.mask_boxes <= 1:
            raise UserError(f"--mask_boxes {opt.mask_boxes} is not in [0, 1]")
        if not opt.dist_timeout > 0:
            raise UserError(f"--dist_timeout {opt.dist_timeout} is not above 0")
        if opt.compile != NOT and opt.checkpoint_activations:
            raise UserError("--compile and --checkpoint_activations do not go together: leave one of them out")
        if opt.channels_last and not self.model.channels_last:
            able = ", ".join(known for known in MODELS.names() if MODELS.get(known).channels_last)
            raise UserError(f"--channels_last: {opt.model} does not take it; methods that do: {able}")
        if not 0 <= opt.ema < 1:
            raise UserError(f"--ema {opt.ema} is not in [0, 1)")
