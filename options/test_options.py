"""Flags of test.py. The architecture and the data set come from the run's opt.yaml."""

from __future__ import annotations

import argparse

from data.masks import TASKS
from options.base_options import add_deterministic_flag
from options.metric_flags import add_metric_flags, add_stylise_metric_flags, validate_metric_flags
from options.parser import StrictParser
from options.run_options import RunOptions
from util.errors import UserError


class TestOptions(RunOptions):
    __test__ = False  # no test case, whatever its name
    description = "Generate a split with a trained run, evaluate it, and save pictures, a grid and a line of numbers."

    def add_flags(self, parser: StrictParser) -> None:
        super().add_flags(parser)
        add_deterministic_flag(parser)
        if self.model.flow == "editing":
            self.add_editing_flags(parser)
        if self.model.flow == "stylise":
            add_stylise_metric_flags(parser, default="psnr,ssim,ms_ssim,edge_f1,colour")

    @staticmethod
    def add_editing_flags(parser: StrictParser) -> None:
        group = parser.add_argument_group("testing")
        group.add_argument("--split", default="test", help="split to generate")
        group.add_argument("--task", choices=(*TASKS, "folder"), default="free_form", help="which masks")
        group.add_argument("--mask_dir", metavar="DIR", help="mask PNGs (white: generate) for --task folder")
        group.add_argument(
            "--num_images", type=int, help="only the first so many pictures that the task can use; default: all"
        )
        group.add_argument(
            "--num_samples", type=int, default=1, help="draws per picture; div_* reads all, other metrics the first"
        )
        group.add_argument("--style_source", choices=("bank", "mean", "noise"), default="bank",
                           help="codes of erased instances: drawn, their class's mean, or N(0, 1)")  # fmt: skip
        group.add_argument("--results_dir", metavar="DIR", help="default: <run>/results/<split>_<task>")
        add_metric_flags(parser)

    def validate(self, opt: argparse.Namespace) -> None:
        super().validate(opt)
        if self.model.flow != "editing":
            return
        validate_metric_flags(opt)
        if (opt.task == "folder") != (opt.mask_dir is not None):
            raise UserError("--task folder and --mask_dir DIR belong together")
        for name in ("num_images", "num_samples"):
            if getattr(opt, name) is not None and getattr(opt, name) < 1:
                raise UserError(f"--{name} {getattr(opt, name)} is less than 1")
