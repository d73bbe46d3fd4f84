"""Flags that methods of several families have."""

from __future__ import annotations

import argparse

from util.flags import weight


def add_perceptual_flags(group: argparse._ArgumentGroup, *, lambda_vgg: float) -> None:
    """Add the flags of the perceptual loss and of the network whose features losses compare.

    Args:
        lambda_vgg: default weight of the loss.
    """
    group.add_argument("--lambda_vgg", type=weight, default=lambda_vgg, help="weight of the perceptual loss")
    group.add_argument(
        "--perceptual", choices=("vgg19", "vgg16"), default="vgg19", help="network whose features are compared"
    )
    group.add_argument("--vgg_weights", metavar="FILE", help="its weights; default: torchvision's download")
