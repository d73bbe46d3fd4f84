"""What a metric declares, and the settings that it is loaded with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from util.errors import UserError
from util.opt import Opt


@dataclass(frozen=True)
class Value:
    """The declaration of one of a metric's values.

    Args:
        unit: '%', 'dB', '1' (dimensionless), 'distance'.
        protocol: what is computed, in one line.
        lower_is_better: the better direction.
        limits: the range of the value, and so of its interval.
    """

    unit: str
    protocol: str = ""
    lower_is_better: bool = False
    limits: tuple[float, float] = (-math.inf, math.inf)


@dataclass(frozen=True, eq=False)
class Flag:
    """A command line flag that metrics share, declared once: `--<name>` with argparse's settings."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What metrics are loaded with.

    Args:
        opt: values of the metrics' flags, by name.
        device: where networks run.
        whole: names without a region measure reconstruction on whole pictures; else on the masked region.
        masks: there are masks; without, nothing is measured on a masked region.
        label_nc, ignore_label, class_names: of the label maps; None: not known.
        style: the style picture (3,H,W) uint8.
        clips: networks that features are compared by.
        source: the one picture that all results are renderings of.
        keep_generated: features of generated pictures are kept for later tests, as those of real ones are.
    """

    opt: Opt
    device: torch.device
    whole: bool = False
    masks: bool = True
    label_nc: int | None = None
    ignore_label: int | None = None
    class_names: list[str] | None = None
    style: Tensor | None = None
    clips: Sequence[Clip] = ()
    source: Source | None = None
    keep_generated: bool = True


@dataclass(frozen=True)
class Clip:
    """An image tower of CLIP: its name, its size as in "b32", and its features (B,D) of length 1 of (H,W,3) uint8."""

    name: str
    size: str
    embed: Callable[[Sequence[np.ndarray]], Tensor]


@dataclass(frozen=True)
class Source:
    """A picture (3,H,W) uint8 with its layout (H,W) int64 in 0..classes-1.

    `read_layout` gives the layout (H,W) that the run's own segmentation network sees in a picture (3,H,W) uint8; None:
    the run has none.
    """

    picture: Tensor
    label: Tensor
    classes: int
    read_layout: Callable[[Tensor], Tensor] | None = None


class LeftOutError(UserError):
    """A metric cannot be computed: it is left out with this note, and the command goes on."""
