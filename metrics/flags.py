"""Flags that several metrics read, and those of every evaluation."""

from __future__ import annotations

import argparse
from pathlib import Path

from metrics.declaration import Flag
from metrics.features.cache import default_cache_dir
from metrics.registry import METRICS
from util.errors import UserError
from util.files import require_writable
from util.flags import positive_int
from util.opt import Opt

INCEPTION_WEIGHTS = Flag("inception_weights", {"metavar": "FILE", "help": "weights of FID's network"})
LPIPS_NET = Flag("lpips_net", {"choices": ("alex", "vgg"), "default": "alex", "help": "LPIPS's features"})
LPIPS_WEIGHTS = Flag("lpips_weights", {"metavar": "FILE", "help": "LPIPS's linear heads; default: those of lpips"})
LPIPS_BACKBONE = Flag("lpips_backbone", {"metavar": "FILE", "help": "AlexNet or VGG-16; default: torchvision's"})
LPIPS = (LPIPS_NET, LPIPS_WEIGHTS, LPIPS_BACKBONE)
_CACHE = "features of pictures, kept between tests; none: not kept; default: ~/.cache/semedit"
CACHE_DIR = Flag("cache_dir", {"metavar": "DIR", "help": _CACHE})


def cache_folder(opt: Opt) -> Path | None:
    """Return where --cache_dir keeps features, None: nowhere; raises `UserError` if it cannot be written."""
    if opt.cache_dir == "none":
        return None
    if not opt.cache_dir:
        return default_cache_dir()
    require_writable(Path(opt.cache_dir), "--cache_dir")
    return Path(opt.cache_dir)


def add_metric_flags(parser: argparse.ArgumentParser, *kinds: str, default: str) -> None:
    """Add the flags that choose metrics, name their networks and set their error bars.

    Args:
        kinds: kinds of test whose metrics can be asked for; none: all.
        default: of --metrics.
    """
    group = parser.add_argument_group("metrics")
    group.add_argument(
        "--metrics", default=default, help="comma list, all (that can be had) or none; docs/protocols.md"
    )
    group.add_argument("--intervals", action=argparse.BooleanOptionalAction, default=False, help="95 %% intervals")
    blocks = "intervals: so many pictures in a row, by name, vary together, as frames of a film do"
    group.add_argument("--blocks", type=positive_int, default=1, metavar="N", help=blocks)
    group.add_argument(
        "--bootstrap", type=int, default=0, metavar="N", help="older name of --intervals; N above 0, nothing is drawn"
    )
    METRICS.add_flags(group, *kinds)


def validate_metric_flags(opt: Opt) -> None:
    """Raise `UserError` for invalid values."""
    if opt.bootstrap < 0:
        raise UserError(f"--bootstrap {opt.bootstrap}: not a number of resamples; --intervals takes its place")
