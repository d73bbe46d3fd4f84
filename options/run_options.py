"""Options of commands that use a trained run: architecture and data rules come from the run's opt.yaml."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from options.base_options import OPTIONS_FILE, PRECISIONS, BaseOptions, Options, saved_options
from options.parser import PROVENANCE, StrictParser
from options.train_options import TrainOptions
from util.errors import UserError
from util.flags import natural
from util.opt import Opt
from util.registry import did_you_mean

# How a command runs, as opposed to what the run is; never taken from the run.
NOT_CARRIED = frozenset(
    "name checkpoints_dir device deterministic seed num_workers batch_size precision config cache".split()
)


def step_or_best(text: str) -> int | str:
    """Return the number of a step, or "best"."""
    return text if text == "best" else natural(text)


class RunOptions(BaseOptions):
    """What test.py and edit.py share."""

    is_train = False
    precisions = (*PRECISIONS, "fp16")
    takes_styles = False  # runs that hold a style, not edits

    def parse(self, argv: list[str] | None = None) -> Options:
        """Parse the command line; --name may also be a run's folder, given with a slash."""
        argv = sys.argv[1:] if argv is None else argv
        if "/" in (name := self._probe(argv).name or ""):
            folder = Path(name)
            argv = [*argv, f"--name={folder.name}", f"--checkpoints_dir={folder.parent}"]
        return super().parse(argv)

    def validate(self, opt: Opt) -> None:
        super().validate(opt)
        if self.model.flow == "stylising" and not self.takes_styles:
            raise UserError(f"a run of {opt.model} has a style, no edits: stylise pictures with test.py --content")

    def add_flags(self, parser: StrictParser) -> None:
        super().add_flags(parser)
        group = parser.add_argument_group("weights")
        group.add_argument("--step", type=step_or_best, metavar="N",
                           help="which checkpoint: step_<N>.pt or best (by validation); default: latest")  # fmt: skip
        group.add_argument("--raw_weights", action=argparse.BooleanOptionalAction, default=False,
                           help="the last weights even where the run has averaged ones")  # fmt: skip

    def build_parser(self, mode: str) -> StrictParser:
        parser = super().build_parser(mode)
        parser.epilog = (
            f"The flags depend on the run; these are for a method of the kind {self.model.flow}. "
            "--name RUN --help shows those of RUN; without --name, those of --model are shown."
        )
        return parser

    def run_layer(self, probe: argparse.Namespace) -> dict[str, Any]:
        """Return the run's options except those of how it was executed; none for --help without a run."""
        if probe.help and not probe.name:
            return {}
        if not probe.name:
            raise UserError("--name is missing: which run? (a folder in --checkpoints_dir)")
        folder = Path(probe.checkpoints_dir) / probe.name
        if not (folder / OPTIONS_FILE).is_file():
            runs = [p.parent.name for p in Path(probe.checkpoints_dir).glob(f"*/{OPTIONS_FILE}")]
            hint = did_you_mean(probe.name, runs) or (" `train.py --name` makes one." if not runs else "")
            raise UserError(f"--name {probe.name}: no run at {folder}.{hint}")
        values = saved_options(folder / OPTIONS_FILE)
        return {k: v for k, v in values.items() if k not in NOT_CARRIED | {PROVENANCE}}

    def carried(self, run: dict[str, Any], parser: StrictParser) -> dict[str, Any]:
        """Return what training has set, and note what else the file sets for this command.

        A run may come from somebody else: only the user decides where this command writes and what it loads apart from
        the run.
        """
        trainer = TrainOptions()
        trainer.model = self.model
        of_training = trainer.build_parser(parser.get_default("dataset_mode")).actions_by_name()
        shared = super().carried(run, parser)
        if strange := sorted(name for name, value in shared.items() if name not in of_training and value is not None):
            print(f"note: {OPTIONS_FILE} names {', '.join(strange)}, not set by training and not taken over: "
                  "give flags if they are meant")  # fmt: skip
        return {name: value for name, value in shared.items() if name in of_training}
