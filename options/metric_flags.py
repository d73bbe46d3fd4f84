"""Flags of the metrics, the same for test.py and scripts/evaluate.py."""

from __future__ import annotations

import argparse
from typing import Any

from util.errors import UserError

DEFAULT_METRICS = "fid,miou,acc,l1,psnr,ssim,seam"


def add_metric_flags(parser: argparse.ArgumentParser, *, default: str = DEFAULT_METRICS) -> None:
    """Add the flags that choose metrics, name their networks and set their error bars."""
    group = parser.add_argument_group("metrics")
    group.add_argument(
        "--metrics", default=default, help="comma list, all (that can be had) or none; docs/protocols.md"
    )
    group.add_argument("--bootstrap", type=int, default=0, metavar="N", help="resamples for 95 %% intervals; 1000")
    group.add_argument("--per_class", action=argparse.BooleanOptionalAction, default=False,
                       help="accuracy of each class and the confusion matrix")  # fmt: skip
    group.add_argument("--segmenter", help="for mIoU: a run of train_segmenter.py, espnet_camvid, espnet_cityscapes, "
                       "streets, hf:ID_OR_FOLDER or export:FILE")  # fmt: skip
    group.add_argument("--segmenter_weights", metavar="FILE", help="weights of the ESPNet segmenters")
    group.add_argument("--segmenter_classes", metavar="FILE", help="class map of an hf: or export: segmenter")
    group.add_argument("--trust", metavar="SHA256", help="of an export: segmenter, which can run any code")
    add_network_flags(group)


def add_stylise_metric_flags(parser: argparse.ArgumentParser, *, default: str) -> None:
    """Add the flags of the metrics of stylised pictures."""
    group = parser.add_argument_group("metrics")
    group.add_argument(
        "--metrics", default=default, help="comma list, all (that can be had) or none; docs/protocols.md"
    )
    group.add_argument("--vgg_weights", metavar="FILE", help="torchvision's VGG-19: cfsd, style_loss, content_loss")
    group.add_argument("--style_set", metavar="DIR", help="art_fid: pictures of the style; default: the run's alone")
    add_network_flags(group)


def add_network_flags(group: Any) -> None:
    """Add the flags that name FID's and LPIPS's networks."""
    group.add_argument("--inception_weights", metavar="FILE", help="weights of FID's network")
    group.add_argument("--lpips_net", choices=("alex", "vgg"), default="alex", help="LPIPS's features")
    group.add_argument("--lpips_weights", metavar="FILE", help="LPIPS's linear heads; default: the installed lpips's")
    group.add_argument("--lpips_backbone", metavar="FILE", help="AlexNet's or VGG-16's weights; default: torchvision's")
    group.add_argument("--cache_dir", metavar="DIR", help="features of real pictures, kept between tests; none: not "
                       "kept; default: ~/.cache/semedit")  # fmt: skip


def validate_metric_flags(opt: argparse.Namespace) -> None:
    """Raise `UserError` for values that cannot be."""
    if opt.bootstrap < 0 or opt.bootstrap == 1:
        raise UserError(f"--bootstrap {opt.bootstrap}: 0 for none, or a number of resamples such as 1000")
