"""Stable Diffusion v1, CLIP and ControlNets from disk or hub: folders of diffusers and transformers, or hub ids.

A base model may be one file too (`diffusion_checkpoint`); the tokenizer then comes from the folder of `--clip_model`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.diffusion_checkpoint import NEEDED, read_single_file
from models.networks.s2prest.clip_input import embed, tower_size
from models.networks.s2prest.diffusion import PLACEHOLDER, Diffusion, libraries
from models.networks.s2prest.inversion import BETA_FIRST, BETA_LAST, TRAIN_STEPS
from util.errors import UserError
from util.files import cause
from util.unpickling import weights_only

SINGLE_FILES = (".ckpt", ".safetensors", ".pt", ".pth")
CLIP_NEEDED = (
    "a folder with config.json and model.safetensors of CLIP's image tower with its projection (as of "
    "openai/clip-vit-large-patch14), or a hub id"
)
CONTROLNET_NEEDED = "a folder with config.json and diffusion_pytorch_model.safetensors of a ControlNet, or a hub id"
RELEASED = ("v1-4", "v1.4")  # in the name of the base model that the release and its numbers are of
CHANNELS = "block_out_channels"
UNET_OF_V1 = {CHANNELS: (320, 640, 1280, 1280), "layers_per_block": 2, "cross_attention_dim": 768}


def load_diffusion(base_model: str, clip_model: str) -> Diffusion:
    """Load all frozen parts on the CPU in float32.

    Raises:
        UserError: a library, folder, file or part is missing, or they do not go together.
    """
    _, transformers = libraries()
    vision = load_vision(clip_model)
    if Path(base_model).suffix in SINGLE_FILES:
        parts = read_single_file(Path(base_model))
        flag, place, folder = "--clip_model", clip_model, ""
        needed = "a tokenizer beside the image tower (vocab.json, merges.txt), since --base_model is one file"
    else:
        parts = _read_folder(base_model)
        flag, place, folder, needed = "--base_model", base_model, "tokenizer", NEEDED
    read_tokenizer = transformers.CLIPTokenizer.from_pretrained
    tokenizer = _part(flag, place, needed, partial(read_tokenizer, place, subfolder=folder))
    if tokenizer.convert_ids_to_tokens(tokenizer(PLACEHOLDER).input_ids)[1:-1] != [f"{PLACEHOLDER}</w>"]:
        # Without its files, transformers silently makes an empty one.
        raise UserError(f"{flag} {place}: no tokenizer that knows '{PLACEHOLDER}'. Needed is {needed}")
    frozen = Diffusion(**parts, vision=vision, tokenizer=tokenizer)
    if note := base_note(parts["unet"].config, base_model):
        print(f"note: {note}")
    return frozen


def base_note(unet: Any, base_model: str) -> str | None:
    """Return what to tell of a base model that is not v1.4 by its name; None: nothing.

    Args:
        unet: its UNet's configuration.
        base_model: hub id, folder or file.
    """
    if any(name in base_model.lower() for name in RELEASED):
        return None
    alike = {key: tuple(unet[key]) if key == CHANNELS else unet[key] for key in UNET_OF_V1} == UNET_OF_V1
    sizes = "the sizes of Stable Diffusion v1 (v1.4, v1.5 or one trained further)" if alike else "other sizes than v1's"
    return (
        f"--base_model {base_model} has a UNet of {sizes}; the release and its published values are of v1.4, and a "
        "style fits the model that it was learnt with"
    )


def load_vision(clip_model: str) -> Any:
    """Load CLIP's image tower with its projection; raises `UserError`."""
    _, transformers = libraries()
    _check_place("--clip_model", clip_model, CLIP_NEEDED)
    load = partial(_network, transformers.CLIPVisionModelWithProjection, clip_model, {"dtype": torch.float32})
    return _part("--clip_model", clip_model, CLIP_NEEDED, load)


def load_controlnet(place: str) -> Any:
    """Load a ControlNet of diffusers in float32; raises `UserError`."""
    diffusers, _ = libraries()
    flag, plain = "--controlnet", {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    _check_place(flag, place, CONTROLNET_NEEDED)
    return _part(flag, place, CONTROLNET_NEEDED, partial(_network, diffusers.ControlNetModel, place, plain))


def load_clip(clip_model: str, device: torch.device) -> tuple[str, Callable[[Sequence[np.ndarray]], Tensor]]:
    """Return a tower's size and its features (B, D) of length 1, on the CPU, of pictures (H, W, 3) uint8."""
    vision = load_vision(clip_model).eval().to(device)
    return tower_size(vision), lambda pictures: embed(vision, pictures, mode="rgb", device=device).cpu()


def _read_folder(base_model: str) -> dict[str, Any]:
    """Load VAE, UNet and text encoder of a diffusers folder or hub id."""
    diffusers, transformers = libraries()
    _check_place("--base_model", base_model, NEEDED)
    plain = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "vae": (diffusers.AutoencoderKL, {"subfolder": "vae", **plain}),
        "unet": (diffusers.UNet2DConditionModel, {"subfolder": "unet", **plain}),
        "text_encoder": (transformers.CLIPTextModel, {"subfolder": "text_encoder", "dtype": torch.float32}),
    }
    parts = {
        name: _part(
            "--base_model", base_model, NEEDED, partial(_network, kind, base_model, {"subfolder": name, **dtype})
        )
        for name, (kind, dtype) in kinds.items()
    }
    try:
        schedule = diffusers.DDIMScheduler.load_config(base_model, subfolder="scheduler")
    except (OSError, ValueError):
        print(f"note: --base_model {base_model} has no scheduler/ that can be read: taken to predict noise on Stable "
              "Diffusion v1's schedule. A model that predicts v would give noise")  # fmt: skip
        return parts
    check_schedule(schedule, base_model)
    return parts


def _network(kind: Any, place: str, settings: Mapping[str, Any]) -> Any:
    """Load a network by the libraries' `settings`, from the files of half precision where there are no others.

    Raises:
        ValueError: they would leave tensors random.
    """
    try:
        network, report = kind.from_pretrained(place, output_loading_info=True, **settings)
    except OSError as error:
        try:
            network, report = kind.from_pretrained(place, output_loading_info=True, variant="fp16", **settings)
        except OSError:
            raise error from None
    missing = [key for key in report["missing_keys"] if not key.endswith("position_ids")]
    if missing or report.get("mismatched_keys"):
        lacking = ", ".join(sorted(map(str, missing or report["mismatched_keys"]))[:3])
        raise ValueError(f"it is no {kind.__name__}: {lacking} ... are missing or of another shape")
    return network


def check_schedule(schedule: Mapping[str, Any], base_model: str) -> None:
    """Raise `UserError` for a model that was trained with another noise schedule or target than v1."""
    wanted = {
        "num_train_timesteps": TRAIN_STEPS, "beta_schedule": "scaled_linear", "beta_start": BETA_FIRST,
        "beta_end": BETA_LAST, "prediction_type": "epsilon",
    }  # fmt: skip
    other = [f"{key} {schedule[key]} instead of {value}" for key, value in wanted.items()
             if key in schedule and schedule[key] != value]  # fmt: skip
    if other:
        raise UserError(f"--base_model {base_model} is not Stable Diffusion v1: its scheduler has {', '.join(other)}")


def _check_place(flag: str, place: str, needed: str) -> None:
    """Raise `UserError` unless `place` is a folder or looks like the id of a hub ("owner/name")."""
    path = Path(place)
    if path.is_file():
        raise UserError(f"{flag} {place} is a file; needed is {needed}")
    is_id = place.count("/") == 1 and not place.startswith((".", "/", "~"))
    if not path.is_dir() and not is_id:
        raise UserError(f"{flag} {place}: no such folder or file; needed is {needed}")


def _part(flag: str, place: str, needed: str, load: Callable[[], Any]) -> Any:
    """Run `load`; the libraries' errors for missing or invalid files become a `UserError`."""
    try:
        with weights_only():
            return load()
    except Exception as error:  # the libraries raise many kinds of errors for invalid files
        if damaged := _damaged_file(Path(place)):
            raise UserError(f"{flag} {place}: {damaged} is cut short or damaged; copy it again") from error
        raise UserError(f"{flag} {place} cannot be loaded: {cause(error)}. Needed is {needed}") from error


def _damaged_file(folder: Path) -> Path | None:
    """Return a .safetensors file below a folder whose header does not fit its size; None: there is none."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError):
            return file
    return None
