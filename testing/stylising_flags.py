"""Flags of tests that stylise: what, and with which coefficients of S2PreST's inference."""

from __future__ import annotations

import argparse
from typing import Any

from models.networks.s2prest.inversion import MOST_STEPS, Coefficients
from util.edge_maps import EDGES
from util.errors import UserError
from util.flags import positive, positive_int, weight
from util.opt import Opt
from util.shared_flags import add_shared


def add_stylising_flags(group: Any) -> None:
    """Add the flags of test.py."""
    usual, add = Coefficients(), group.add_argument
    add_shared(group, "task", choices=("stylise",), default="stylise", help="what a result line calls this")
    add("--content", metavar="FILE_OR_DIR", help="what to stylise: a picture, or a folder of pictures")
    add("--styles", metavar="RUN,RUN", help="further runs whose styles are applied, with the models loaded once")
    folders = "pictures go to <DIR>/<run>/wt_<strength>/{stylized,canny}/"
    add_shared(group, "results_dir", default="results", help=folders)
    add("--style_guidance", type=positive, default=usual.strength, help="in (0, 1]: how far the content is noised")
    add("--steps", type=positive_int, default=usual.steps, help="DDIM steps of the whole schedule")
    add("--guidance", type=weight, default=usual.guidance, help="classifier-free guidance")
    add("--cond_mix", type=weight, default=usual.cond_mix, help="content's share of the conditioning; rest: edge map's")
    add("--latent_mix", type=weight, default=usual.latent_mix, help="content's share of the latent; rest: style's")
    add(
        "--edge_mix", type=weight, default=usual.edge_mix, help="edge map's share of the noised latent; rest: content's"
    )
    switch: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
    noise = "mixed noise as strong as its step says, decoding from the step of the noise; off: as released"
    add("--match_noise_level", **switch, default=usual.match_noise_level, help=noise)
    add("--edge", choices=EDGES, default=EDGES[0], help="edge map: suppressed gradient (released) or Canny")
    add("--size", type=positive_int, default=512, help="short side to compute at; the long one follows the picture")
    add("--keep_aspect", **switch, default=True, help="off: squeeze into a square, as released")
    add("--masks", metavar="FILE_OR_DIR", help="style only where these are white, or of --mask_classes")
    add("--mask_classes", metavar="ID,ID", help="--masks are label maps: style only these ids")
    add("--attention_slicing", **switch, default=False, help="VAE by pictures and tiles: less memory")
    add("--offload", **switch, default=False, help="only the part at work is on the GPU: least memory")


def check_stylising_flags(opt: Opt) -> None:
    """Raise `UserError` for invalid combinations of flags."""
    if not opt.content:
        raise UserError("--content is missing: a picture, or a folder of pictures, to stylise")
    if opt.style_guidance > 1:
        raise UserError(f"--style_guidance {opt.style_guidance} is not in (0, 1]")
    if opt.steps > MOST_STEPS:
        raise UserError(f"--steps {opt.steps}: at most {MOST_STEPS}")
    for name in ("cond_mix", "latent_mix", "edge_mix"):
        if getattr(opt, name) > 1:
            raise UserError(f"--{name} {getattr(opt, name)} is not in [0, 1]")
    if not coefficients(opt).visited:
        raise UserError(f"--style_guidance {opt.style_guidance} with --steps {opt.steps} does no step; raise either")
    if opt.mask_classes and not opt.masks:
        raise UserError("--mask_classes needs --masks: the label maps")


def coefficients(opt: Opt) -> Coefficients:
    """Read the flags that an inference depends on."""
    return Coefficients(
        strength=opt.style_guidance,
        steps=opt.steps,
        guidance=opt.guidance,
        cond_mix=opt.cond_mix,
        edge_mix=opt.edge_mix,
        latent_mix=opt.latent_mix,
        match_noise_level=opt.match_noise_level,
    )
