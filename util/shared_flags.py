"""Flags that several methods, kinds of test or commands have, declared once; callers say where they differ."""

from __future__ import annotations

import argparse
from typing import Any

from util.flags import positive, positive_int, weight

SHARED: dict[str, dict[str, Any]] = {
    # runs
    "checkpoints_dir": {"default": "checkpoints", "help": "folder of all runs"},
    "continue_train": {
        "action": argparse.BooleanOptionalAction, "default": False,
        "help": "go on from the run's last checkpoint, exactly",
    },
    "device": {"choices": ("auto", "cpu", "cuda"), "default": "auto", "help": "auto: a GPU if there is one"},
    # networks
    "ngf": {"type": positive_int, "default": 32, "help": "base width of the generator"},
    "ndf": {"type": positive_int, "default": 64, "help": "base width of the discriminators"},
    "style_dim": {"type": positive_int, "default": 128, "help": "width of a style code"},
    # optimisation and losses
    "lr": {"type": positive, "default": 1e-4, "help": "AdamW's rate"},
    "lambda_gan": {"type": weight, "default": 1.0, "help": "weight of the adversarial losses"},
    "lambda_feat": {"type": weight, "default": 0.0, "help": "weight of feature matching"},
    "lambda_patch": {"type": weight, "default": 1.0, "help": "weight of the patch coherence loss"},
    "lambda_vgg": {"type": weight, "default": 10.0, "help": "weight of the perceptual loss"},
    "perceptual": {"choices": ("vgg19", "vgg16"), "default": "vgg19", "help": "network whose features are compared"},
    "vgg_weights": {"metavar": "FILE", "help": "weights of that network; default: torchvision's download"},
    # tests and edits
    "output": {"metavar": "PATH", "help": "what to write"},
    "task": {"help": "kind of masks"},
    "object_classes": {
        "metavar": "CLASS,...",
        "help": "things that object_addition and object_removal erase, by name or id; default: all",
    },
    "test_cuts": {
        "choices": ("centre", "halves"), "default": "centre",
        "help": "what is cut of a picture that is wider than high: its centre, or both of its halves, a sample each",
    },
    "results_dir": {"metavar": "DIR", "help": "default: <run>/results/<split>_<task>, and what is not as usual"},
    "num_samples": {"type": positive_int, "default": 1, "help": "draws per picture; several make a strip"},
    "style_source": {
        "choices": ("bank", "mean", "noise", "own"), "default": "bank",
        "help": "codes of erased instances: drawn, their class's mean, N(0, 1), or (siedob_style) their own",
    },
    "style_image": {"metavar": "FILE", "help": "the picture whose style is learnt"},
}  # fmt: skip


def add_shared(group: argparse._ActionsContainer, *names: str, **changed: Any) -> None:
    """Add flags of `SHARED`, with some of argparse's settings `changed`."""
    for name in names:
        group.add_argument(f"--{name}", **SHARED[name] | changed)
