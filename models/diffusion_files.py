"""Stable Diffusion v1 and CLIP from disk or hub: a diffusers folder, a hub id, or the authors' one file.

A single file (`sd-v1-4.ckpt`, or its .safetensors) holds only tensors: the architecture is read from their shapes,
the tokenizer comes from the folder of `--clip_model`. It is unpickled with weights_only; the one class that the
official file names, a callback of PyTorch Lightning, is replaced by an empty one.
"""

from __future__ import annotations

import codecs
import importlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.networks.s2prest.clip_input import embed, tower_size
from models.networks.s2prest.diffusion import PLACEHOLDER, Diffusion, libraries
from models.networks.s2prest.inversion import BETA_FIRST, BETA_LAST, TRAIN_STEPS
from util.errors import UserError
from util.files import cause
from util.unpickling import weights_only

SINGLE_FILES = (".ckpt", ".safetensors", ".pt", ".pth")
NEEDED = (
    "a folder with vae/, unet/, text_encoder/ and tokenizer/ (as of CompVis/stable-diffusion-v1-4), a hub id, or one "
    "file such as sd-v1-4.ckpt"
)
CLIP_NEEDED = (
    "a folder with config.json and model.safetensors of CLIP's image tower with its projection (as of "
    "openai/clip-vit-large-patch14), or a hub id"
)
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
PICKLE = b"\x80"  # its first byte, in files of PyTorch before 1.6
HEADS, HEAD_WIDTH, SCALE = 8, 64, 0.18215  # of Stable Diffusion v1: UNet's heads, text encoder's head, latents' scale
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
    sizes = "the sizes of Stable Diffusion v1, so v1.5 or one trained further" if alike else "other sizes than v1's"
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


# --- one file --------------------------------------------------------------------------------------------------------
def read_single_file(path: Path) -> dict[str, Any]:
    """Return VAE, UNet and text encoder of a Stable Diffusion v1 file; raises `UserError`."""
    if not path.is_file():
        raise UserError(f"--base_model {path}: no such file; needed is {NEEDED}")
    state = _read_state(path)
    for prefix in (UNET, VAE, TEXT):
        if not any(key.startswith(prefix) for key in state):
            raise UserError(f"--base_model {path} is not a Stable Diffusion v1 file: it has no tensors '{prefix}...'")
    diffusers, transformers = libraries()
    convert = importlib.import_module("diffusers.loaders.single_file_utils")
    try:
        unet = diffusers.UNet2DConditionModel(**unet_config(state))
        unet.load_state_dict(convert.convert_ldm_unet_checkpoint(state, dict(unet.config)))
        vae = diffusers.AutoencoderKL(**vae_config(state))
        vae.load_state_dict(convert.convert_ldm_vae_checkpoint(state, dict(vae.config)))
        text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**text_config(state)))
        text.load_state_dict(_text_state(state, text.state_dict().keys()))
    except (KeyError, IndexError, RuntimeError, ValueError, AttributeError) as error:
        lines = str(error).strip().splitlines()[:2] or [type(error).__name__]
        problem = " ".join(line.strip() for line in lines)
        raise UserError(f"--base_model {path} is not a Stable Diffusion v1 file: {problem}") from error
    return {"vae": vae.float(), "unet": unet.float(), "text_encoder": text.float()}


class _Callback:
    """Stands for the Lightning class that sd-v1-4.ckpt names as a dictionary's key; it is not used."""


# Besides tensors: a class that is only named, and what pickled NumPy numbers need.
HARMLESS: list[Any] = [
    (_Callback, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # type: ignore[attr-defined]
    (codecs.encode, "_codecs.encode"),
    np.dtype,
    np.dtypes.Float64DType,
]


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises many kinds of errors for other files
        with path.open("rb") as file:
            pickled = file.read(1) == PICKLE or zipfile.is_zipfile(path)
        if path.suffix == ".safetensors" or not pickled:
            raise UserError(f"--base_model {path} is empty, cut short or no file of weights; copy it again") from error
        raise UserError(
            f"--base_model {path} cannot be read ({cause(error)}); only tensors and plain values are "
            "accepted, a file that holds other Python objects could run any code"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def unet_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the UNet's architecture from its tensors."""
    blocks: list[list[tuple[int, bool]]] = [[]]  # per level: channels and attention of each residual block
    number = 1
    while True:
        at = f"{UNET}input_blocks.{number}."
        if f"{at}0.op.weight" in state:
            blocks.append([])
        elif f"{at}0.out_layers.3.weight" in state:
            attends = f"{at}1.transformer_blocks.0.attn2.to_k.weight" in state
            blocks[-1].append((state[f"{at}0.out_layers.3.weight"].shape[0], attends))
        else:
            break
        number += 1
    attention = [level[0][1] for level in blocks]
    middle = state[f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"]
    return {
        "sample_size": 64, "in_channels": state[f"{UNET}input_blocks.0.0.weight"].shape[1],
        "out_channels": state[f"{UNET}out.2.weight"].shape[0], "layers_per_block": len(blocks[0]),
        "block_out_channels": tuple(level[0][0] for level in blocks),
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        "cross_attention_dim": middle.shape[1], "attention_head_dim": HEADS,
    }  # fmt: skip


def vae_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the VAE's architecture from its tensors."""
    at = f"{VAE}encoder.down."
    levels = sorted({int(key.removeprefix(at).split(".")[0]) for key in state if key.startswith(at)})
    layers = {key.removeprefix(f"{at}0.block.").split(".")[0] for key in state if key.startswith(f"{at}0.block.")}
    count = len(levels)
    return {
        "in_channels": 3, "out_channels": 3, "layers_per_block": len(layers), "sample_size": 512,
        "block_out_channels": tuple(state[f"{at}{level}.block.0.conv2.weight"].shape[0] for level in levels),
        "down_block_types": ("DownEncoderBlock2D",) * count, "up_block_types": ("UpDecoderBlock2D",) * count,
        "latent_channels": state[f"{VAE}quant_conv.weight"].shape[0] // 2, "scaling_factor": SCALE,
    }  # fmt: skip


def text_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the text encoder's architecture from its tensors."""
    at = f"{TEXT}text_model."
    words, width = state[f"{at}embeddings.token_embedding.weight"].shape
    layers = {key.removeprefix(f"{at}encoder.layers.").split(".")[0] for key in state
              if key.startswith(f"{at}encoder.layers.")}  # fmt: skip
    return {
        "vocab_size": words, "hidden_size": width, "projection_dim": width, "num_hidden_layers": len(layers),
        "intermediate_size": state[f"{at}encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_attention_heads": max(1, width // HEAD_WIDTH), "hidden_act": "quick_gelu",
        "max_position_embeddings": state[f"{at}embeddings.position_embedding.weight"].shape[0],
        "bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1,
    }  # fmt: skip


def _text_state(state: Mapping[str, Tensor], wanted: Any) -> dict[str, Tensor]:
    """Return the text encoder's tensors; transformers 5 has them without 'text_model.' before the name."""
    inner = "text_model." if next(iter(wanted)).startswith("text_model.") else ""
    tensors = {key.removeprefix(f"{TEXT}text_model."): value for key, value in state.items() if key.startswith(TEXT)}
    return {f"{inner}{key}": value for key, value in tensors.items() if not key.endswith("position_ids")}
