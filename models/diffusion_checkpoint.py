"""Stable Diffusion v1 from one file, such as `sd-v1-4.ckpt` or its .safetensors.

It holds only tensors: the architecture is read from their shapes. It is unpickled with weights_only; the one class that
the official file names, a callback of PyTorch Lightning, is replaced by an empty one.
"""

from __future__ import annotations

import codecs
import importlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.networks.s2prest.diffusion import libraries
from util.errors import UserError
from util.files import cause

NEEDED = (
    "a folder with vae/, unet/, text_encoder/ and tokenizer/ (as of CompVis/stable-diffusion-v1-4), a hub id, or one "
    "file such as sd-v1-4.ckpt"
)
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
PICKLE = b"\x80"  # its first byte, in files of PyTorch before 1.6
HEADS, HEAD_WIDTH, SCALE = 8, 64, 0.18215  # of Stable Diffusion v1: UNet's heads, text encoder's head, latents' scale


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
