"""Flags of tests that stylise: what, and with which coefficients of S2PreST's inference."""

from __future__ import annotations

import argparse
import hashlib
import math
from pathlib import Path
from typing import Any

from models.networks.s2prest.inversion import LATENTS, MIXES, MOST_STEPS, TOKENS, Coefficients
from options.base_options import OPTIONS_FILE, run_folder, saved_options
from util.edge_maps import EDGES
from util.errors import UserError
from util.flags import positive, positive_int, weight
from util.opt import Opt
from util.shared_flags import add_shared

# Flags that pictures depend on beside the strength, with their usual values; other values have folders of their own.
USUAL: dict[str, Any] = {
    **{name: value for name, value in vars(Coefficients()).items() if name != "strength"},
    "cond_mix": None, "style_mix": None, "second_style": None,
    "edge": EDGES[0], "size": 512, "keep_aspect": True, "masks": None, "mask_classes": None, "seed": 42,
    "num_samples": 1, "controlnet": None, "precision": "fp32", "step": None, "raw_weights": False,
}  # fmt: skip


def add_stylising_flags(group: Any) -> None:
    """Add the flags of test.py."""
    usual, add = Coefficients(), group.add_argument
    add_shared(group, "task", choices=("stylise",), default="stylise", help="what a result line calls this")
    add("--content", metavar="FILE_OR_DIR", help="what to stylise: a picture, or a folder of pictures")
    add("--styles", metavar="RUN,RUN", help="further runs whose styles are applied, with the models loaded once")
    folders = "pictures go to <DIR>/<run>/wt_<strength>/{stylized,canny}/; other flags are in the name"
    add_shared(group, "results_dir", default="results", help=folders)
    draws = "draws per content, of --seed and the numbers after it; div_* reads all, other metrics the first"
    add_shared(group, "num_samples", help=draws)
    add("--style_guidance", type=positive, default=usual.strength, help="in (0, 1]: how far the content is noised")
    add("--steps", type=positive_int, default=usual.steps, help="DDIM steps of the whole schedule")
    add("--guidance", type=weight, default=usual.guidance, help="classifier-free guidance")
    shares = (
        "shares of content, edge map and style in the conditioning; one number: content's, the rest is the edge map's"
    )
    add("--cond_mix", type=cond_mix, metavar="A,B,C", help=shares)
    add("--latent_mix", type=weight, default=usual.latent_mix, help="content's share of the latent; rest: style's")
    add(
        "--edge_mix", type=weight, default=usual.edge_mix, help="edge map's share of the noised latent; rest: content's"
    )
    token = "predict the noise under the token of content and edges, or of the style; cond_mix is then 0.3,0.3,0.4"
    add("--token", choices=TOKENS, default=usual.token, help=token)
    add("--latent", choices=LATENTS, default=usual.latent, help="adain: content's latent with the style's statistics")
    add("--second_style", metavar="FILE", help="a picture whose style is mixed with the run's")
    add("--style_mix", type=weight, help="share of the run's style against --second_style; default: 0.5")
    switch: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
    noise = "mixed noise as strong as its step says, decoding from the step of the noise; off: as released"
    add("--match_noise_level", **switch, default=usual.match_noise_level, help=noise)
    add("--edge", choices=EDGES, default=USUAL["edge"], help="edge map: suppressed gradient (released) or Canny")
    control = "ControlNet for Canny's edges, a folder or hub id, that guides every prediction beside the edge map"
    add("--controlnet", metavar="M", help=control)
    add(
        "--size",
        type=positive_int,
        default=USUAL["size"],
        help="short side to compute at; the long one follows the picture",
    )
    add("--keep_aspect", **switch, default=USUAL["keep_aspect"], help="off: squeeze into a square, as released")
    add("--masks", metavar="FILE_OR_DIR", help="style only where these are white, or of --mask_classes")
    add("--mask_classes", metavar="ID,ID", help="--masks are label maps: style only these ids")
    side = "measure at this short side (bicubic), such as the 512 of published values; default: the contents' own"
    add("--metric_side", type=positive_int, metavar="N", help=side)
    clip = "clip_loss: other CLIPs than the run's, such as ViT-B/32; of further ones clip_loss_<size>"
    add("--clip_loss_model", metavar="C", nargs="+", help=clip)
    add("--attention_slicing", **switch, default=False, help="VAE by pictures and tiles: less memory")
    add("--offload", **switch, default=False, help="only the part at work is on the GPU: least memory")


def cond_mix(text: str) -> tuple[float, float, float]:
    """Return the shares of content, edge map and style, which together are 1; one number is the content's."""
    shares = tuple(weight(part.strip()) for part in text.split(","))
    if len(shares) == 1:
        shares = (*shares, 1 - shares[0], 0.0)
    if len(shares) != 3 or min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise argparse.ArgumentTypeError(f"'{text}' is not one share or three, each in [0, 1] and together 1")
    return shares


def check_stylising_flags(opt: Opt) -> None:
    """Raise `UserError` for invalid combinations of flags."""
    if not opt.content:
        raise UserError("--content is missing: a picture, or a folder of pictures, to stylise")
    if opt.style_guidance > 1:
        raise UserError(f"--style_guidance {opt.style_guidance} is not in (0, 1]")
    if opt.steps > MOST_STEPS:
        raise UserError(f"--steps {opt.steps}: at most {MOST_STEPS}")
    for name in ("latent_mix", "edge_mix", "style_mix"):
        if (getattr(opt, name) or 0) > 1:
            raise UserError(f"--{name} {getattr(opt, name)} is not in [0, 1]")
    if not coefficients(opt).visited:
        raise UserError(f"--style_guidance {opt.style_guidance} with --steps {opt.steps} does no step; raise either")
    if opt.style_mix is not None and not opt.second_style:
        raise UserError("--style_mix needs --second_style: the picture that the rest is of")
    if opt.mask_classes and not opt.masks:
        raise UserError("--mask_classes needs --masks: the label maps")


def coefficients(opt: Opt) -> Coefficients:
    """Read the flags that an inference depends on."""
    return Coefficients(
        strength=opt.style_guidance,
        steps=opt.steps,
        guidance=opt.guidance,
        cond_mix=opt.cond_mix or MIXES[opt.token],
        token=opt.token,
        edge_mix=opt.edge_mix,
        latent_mix=opt.latent_mix,
        latent=opt.latent,
        style_mix=1.0 if not opt.second_style else 0.5 if opt.style_mix is None else opt.style_mix,
        match_noise_level=opt.match_noise_level,
    )


def folder_of_style(opt: Opt, name: str) -> Path:
    """Return where the results of a style's run go: `wt_<strength>`, followed by the flags that are not as usual."""
    own = saved_options(run_folder(opt).parent / name / OPTIONS_FILE)
    usual = {**USUAL, "edge_side": own["edge_side"]}
    others = [f"_{flag}={_shown(getattr(opt, flag))}" for flag in usual if getattr(opt, flag) != usual[flag]]
    return Path(opt.results_dir) / name / f"wt_{opt.style_guidance:g}{''.join(others)}"


def _shown(value: Any) -> str:
    """Return a flag's value as a part of a folder's name: a place by its own name and a digest of all of it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str) and not value.replace(",", "").isalnum():
        return f"{Path(value).name}-{hashlib.sha256(value.encode()).hexdigest()[:6]}"
    if isinstance(value, tuple):
        return ",".join(f"{each:g}" for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
