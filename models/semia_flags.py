"""SemIA's flags."""

from __future__ import annotations

import argparse

from util.flags import positive_int, weight
from util.shared_flags import add_shared

LAMBDAS = ("gan", "rec", "fixed", "patch", "feat", "align", "vgg")


def add_flags(parser: argparse.ArgumentParser, *, is_train: bool) -> None:
    """Add the flags of the command; defaults are the release's, except as listed in docs/papers.md."""
    group = parser.add_argument_group("model semia")
    add_shared(group, "ngf")
    group.add_argument("--nsf", type=positive_int, default=128, help="width of the segmentation network")
    group.add_argument("--ratio_limit", type=weight, default=10.0,
                       help="bound of the ratio of layout features; 0: none, as released")  # fmt: skip
    parser.set_defaults(batch_size=1)
    if is_train:
        _add_training_flags(parser)


def _add_training_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model semia: training")
    add_shared(group, "ndf", help="base width of the discriminator")
    group.add_argument("--g_steps", type=positive_int, default=10, help="updates of the generator in a step")
    group.add_argument("--rec_every", type=positive_int, default=5, help="steps between reconstructions")
    add_shared(group, "lr", default=0.01, help="base rate: half of it for the generator, twice for the discriminator")
    group.add_argument("--decay_steps", type=positive_int, default=1500,
                       help="steps, after --stable_steps, in which the rate falls to a tenth")  # fmt: skip
    group.add_argument("--patch_loss", choices=("semantic", "released"), default="semantic",
                       help="semantic: patches are compared within their class; released: with all")  # fmt: skip
    group.add_argument("--semantic_alignment", choices=("paper", "released"), default="paper",
                       help="paper: the segmentation of the result trains the generator; released: it has no "
                       "gradient, so it is left out")  # fmt: skip
    add_shared(group, "lambda_gan")
    group.add_argument("--lambda_rec", type=weight, default=5.0, help="weight of L1 in reconstructions")
    group.add_argument("--lambda_fixed", type=weight, default=1.0, help="weight of scale 1, shift 0 in reconstructions")
    add_shared(group, "lambda_patch")
    add_shared(group, "lambda_feat", default=1.0)
    group.add_argument("--lambda_align", type=weight, default=1.0, help="weight of the semantic alignment loss")
    add_shared(group, "lambda_vgg", default=0.0)
    add_shared(group, "perceptual", "vgg_weights")
    parser.set_defaults(max_steps=2500, save_every=500, image_every=100)
