"""What convert_weights.py does with S2PreST's or InST's `embeddings.pt`: a run folder for its style."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from models.networks.s2prest.clip_input import CLIP_INPUTS
from models.networks.s2prest.style_attention import StyleAttention
from models.released_weights.s2prest import read_embeddings
from models.s2prest_model import HEADS, STYLE_FILE
from options.base_options import OPTIONS_FILE
from options.train_options import TrainOptions
from scripts.conversion_run import folder_flags, new_folder
from trainers.weights import WEIGHTS_FILE, save_weights
from util.errors import UserError
from util.images import read_image, save_png

STAR = 265  # CLIP's token of "*"
BASE_MODEL, CLIP_MODEL = "CompVis/stable-diffusion-v1-4", "openai/clip-vit-large-patch14"  # the release's


def add_s2prest_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that only these embeddings need."""
    group = parser.add_argument_group("s2prest")
    group.add_argument("--style_image", metavar="FILE", help="the picture that the embedding was trained on")
    group.add_argument("--base_model", default=BASE_MODEL, help="what test.py loads by default")
    group.add_argument("--clip_model", default=CLIP_MODEL, help="what test.py loads by default")
    group.add_argument("--clip_input", choices=CLIP_INPUTS, default="legacy", help="what CLIP saw in training")


def convert_s2prest(args: argparse.Namespace) -> Path:
    """Convert and return the run folder.

    Raises:
        UserError: `--style_image` is missing, or the file does not hold such an embedding network.
    """
    if not args.style_image:
        raise UserError(
            "--style_image is missing: the picture that the embedding was trained on; inference mixes it in"
        )
    state, token = read_embeddings(args.source)
    if token != STAR:
        raise UserError(f"--source {args.source}: its placeholder is token {token}, not {STAR} ('*')")
    check_shapes(state, args.source)
    flags = folder_flags(args)
    for name in ("style_image", "base_model", "clip_model", "clip_input"):
        flags += [f"--{name}", getattr(args, name)]
    flags += ["--edge_side", "released"]  # as the authors' code draws the maps that guide their embeddings
    opt = TrainOptions().parse(flags)
    folder = new_folder(opt)
    style = read_image(args.style_image)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights({"netE": state}, folder / WEIGHTS_FILE, step=0, source=args.source.name)
    save_png(style, folder / STYLE_FILE)
    opt.save(folder / OPTIONS_FILE)  # last: a folder with it is a whole run
    return folder


def check_shapes(state: dict[str, torch.Tensor], source: Path) -> None:
    """Raise `UserError` unless the tensors are those of `StyleAttention`."""
    try:
        inner, dim = state["attn1.to_q.weight"].shape
        with torch.device("meta"):
            wanted = StyleAttention(dim=dim, heads=HEADS, dim_head=inner // HEADS).state_dict()
    except (KeyError, ValueError) as error:
        raise UserError(f"--source {source}: no attention layers of InST's embedding network ({error})") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if other := {name for name, tensor in wanted.items() if shapes.get(name) != tuple(tensor.shape)} ^ (
        shapes.keys() - wanted.keys()
    ):
        raise UserError(f"--source {source}: {sorted(other)[:3]} are missing, of another shape or not wanted")
