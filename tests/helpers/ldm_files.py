"""Stable Diffusion v1 as one file of the authors' tensor names, made of diffusers' parts; for tests alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def small_v1_parts() -> dict[str, Any]:
    """Return parts of v1's plan (32 groups, 8 heads, quick_gelu), as narrow as that allows."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng():
        torch.manual_seed(3)
        vae = AutoencoderKL(
            block_out_channels=(32,) * 4, layers_per_block=2, latent_channels=4, sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=64, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=32, attention_head_dim=8,
        )  # fmt: skip
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=514, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1,
                hidden_act="quick_gelu", projection_dim=32, bos_token_id=512, eos_token_id=513, pad_token_id=513,
            )
        )  # fmt: skip
    return {"vae": vae.eval(), "unet": unet.eval(), "text_encoder": text.eval()}


def ldm_state(parts: dict[str, Any]) -> dict[str, Tensor]:
    """Return all tensors under the names of the authors' file."""
    unet, vae, text = (parts[name].state_dict() for name in ("unet", "vae", "text_encoder"))
    per_level = int(parts["unet"].config.layers_per_block)
    levels, vae_levels = (len(parts[name].config.block_out_channels) for name in ("unet", "vae"))
    found = {f"model.diffusion_model.{unet_name(key, per_level, levels)}": value for key, value in unet.items()}
    for key, value in vae.items():
        convolution = "mid_block.attentions" in key and value.dim() == 2  # theirs are 1 x 1 convolutions
        found[f"first_stage_model.{vae_name(key, vae_levels)}"] = value[..., None, None] if convolution else value
    prefix = "cond_stage_model.transformer.text_model."
    found |= {f"{prefix}{key.removeprefix('text_model.')}": value for key, value in text.items()}
    found[f"{prefix}embeddings.position_ids"] = torch.arange(77)[None]
    return found


def unet_name(key: str, per_level: int, levels: int) -> str:
    for ours, theirs in ENDS.items():
        if key.startswith(f"{ours}."):
            return key.replace(ours, theirs, 1)
    head, *rest = key.split(".")
    if head == "mid_block":
        kind, number, *tail = rest
        place = 1 if kind == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{layer_name(kind, tail)}"
    level, kind, number, *tail = int(rest[0]), *rest[1:]
    if head == "down_blocks":
        block = level * (per_level + 1) + int(number) + 1
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (per_level + 1)}.0.op.{tail[-1]}"
        return f"input_blocks.{block}.{int(kind == 'attentions')}.{layer_name(kind, tail)}"
    block = level * (per_level + 1) + int(number)
    if kind == "upsamplers":
        attends = level > 0  # of the two levels here, the upper one alone
        return f"output_blocks.{(level + 1) * (per_level + 1) - 1}.{1 + attends}.conv.{tail[-1]}"
    return f"output_blocks.{block}.{int(kind == 'attentions')}.{layer_name(kind, tail)}"


def layer_name(kind: str, tail: list[str]) -> str:
    name = ".".join(tail)
    if kind == "resnets":
        for ours, theirs in RESNET.items():
            name = name.replace(f"{ours}.", f"{theirs}.") if name.startswith(f"{ours}.") else name
    return name


def vae_name(key: str, levels: int) -> str:
    name = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    side, _, rest = name.partition(".")
    if rest.startswith("mid_block.resnets."):
        number, tail = rest.removeprefix("mid_block.resnets.").split(".", 1)
        return f"{side}.mid.block_{int(number) + 1}.{tail}"
    if rest.startswith("mid_block.attentions.0."):
        tail = rest.removeprefix("mid_block.attentions.0.")
        ours = next(ours for ours in VAE_ATTENTION if tail.startswith(f"{ours}."))
        return f"{side}.mid.attn_1.{tail.replace(ours, VAE_ATTENTION[ours], 1)}"
    if rest.startswith(("down_blocks.", "up_blocks.")):
        where, level, kind, number, *tail = rest.split(".")
        down = where == "down_blocks"
        place = int(level) if down else levels - 1 - int(level)
        at = f"{side}.{'down' if down else 'up'}.{place}"
        middle = f"block.{number}" if kind == "resnets" else kind.removesuffix("rs")
        return f"{at}.{middle}.{'.'.join(tail)}"
    return name
