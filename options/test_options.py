"""Flags of test.py. The architecture and the data set come from the run's opt.yaml."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from data.masks import TASKS
from options.base_options import OPTIONS_FILE, BaseOptions
from options.parser import PROVENANCE, StrictParser, read_yaml
from util.errors import UserError
from util.registry import did_you_mean

# How a command runs, as opposed to what the run is: not taken over from the run.
NOT_CARRIED = {"name", "checkpoints_dir", "device", "seed", "num_workers", "batch_size", "precision", "config", "cache"}
DEFAULT_METRICS = "fid,miou,acc,l1,psnr,ssim"


class TestOptions(BaseOptions):
    __test__ = False  # no test case, whatever its name
    is_train = False
    description = "Generate a split with a trained run, evaluate it, and save pictures, a grid and a line of numbers."

    def add_flags(self, parser: StrictParser) -> None:
        super().add_flags(parser)
        group = parser.add_argument_group("testing")
        group.add_argument("--split", default="test", help="split to generate")
        group.add_argument("--task", choices=(*TASKS, "folder"), default="free_form", help="which masks")
        group.add_argument("--mask_dir", metavar="DIR", help="mask PNGs (white: generate) for --task folder")
        group.add_argument("--num_images", type=int, help="only the first so many pictures; default: all")
        group.add_argument("--num_samples", type=int, default=1, help="draws per picture; metrics read the first")
        group.add_argument("--step", type=int, help="which checkpoint: step_<N>.pt; default: the latest")
        group.add_argument("--raw_weights", action=argparse.BooleanOptionalAction, default=False,
                           help="the last weights even where the run has averaged ones")  # fmt: skip
        group.add_argument("--results_dir", metavar="DIR", help="default: <run>/results/<split>_<task>")
        group.add_argument("--metrics", default=DEFAULT_METRICS, help="comma list, or none")
        group.add_argument(
            "--inception_weights", metavar="FILE", help="weights of FID's network; see docs/protocols.md"
        )
        group.add_argument("--segmenter", help="for mIoU: a run of train_segmenter.py, espnet_camvid, "
                           "espnet_cityscapes or streets")  # fmt: skip
        group.add_argument("--segmenter_weights", metavar="FILE", help="weights of the ESPNet segmenters")

    def run_layer(self, probe: argparse.Namespace) -> dict[str, Any]:
        """Return the run's own options, less those of how it was run."""
        if not probe.name:
            raise UserError("--name is missing: which run? (a folder in --checkpoints_dir)")
        folder = Path(probe.checkpoints_dir) / probe.name
        if not (folder / OPTIONS_FILE).is_file():
            runs = [p.parent.name for p in Path(probe.checkpoints_dir).glob(f"*/{OPTIONS_FILE}")]
            raise UserError(f"--name {probe.name}: no run at {folder}.{did_you_mean(probe.name, runs)}")
        values = read_yaml(folder / OPTIONS_FILE, "options of the run")
        return {k: v for k, v in values.items() if k not in NOT_CARRIED | {PROVENANCE}}

    def validate(self, opt: argparse.Namespace) -> None:
        super().validate(opt)
        if (opt.task == "folder") != (opt.mask_dir is not None):
            raise UserError("--task folder and --mask_dir DIR belong together")
        for name in ("num_images", "num_samples"):
            if getattr(opt, name) is not None and getattr(opt, name) < 1:
                raise UserError(f"--{name} {getattr(opt, name)} is less than 1")
