"""A tiny random Stable Diffusion and CLIP image tower, built in code: for tests without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from models.networks.s2prest.diffusion import libraries

SIDE = 64  # pixels of its pictures
WORDS = 514


def byte_symbols() -> list[str]:
    """Return one symbol per byte in CLIP's order: printable ones first, the rest from code point 256 on."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(code) for code in (*shown, *range(256, 256 + 256 - len(shown)))]


def tiny_parts(seed: int = 0) -> dict[str, Any]:
    """Return vae, unet, text_encoder, vision and tokenizer with random weights."""
    diffusers, transformers = libraries()
    bytes_ = byte_symbols()
    words = [*bytes_, *(f"{symbol}</w>" for symbol in bytes_), "<|startoftext|>", "<|endoftext|>"]
    clip = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = diffusers.AutoencoderKL(
            block_out_channels=(8, 8, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            sample_size=SIDE, scaling_factor=0.18215,
        )  # fmt: skip
        unet = diffusers.UNet2DConditionModel(
            sample_size=SIDE // 8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32, attention_head_dim=4, norm_num_groups=8,
        )  # fmt: skip
        text = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                vocab_size=WORDS, projection_dim=32, max_position_embeddings=77, bos_token_id=WORDS - 2,
                eos_token_id=WORDS - 1, pad_token_id=WORDS - 1, **clip,
            )
        )  # fmt: skip
        vision = transformers.CLIPVisionModelWithProjection(
            transformers.CLIPVisionConfig(image_size=32, patch_size=8, projection_dim=32, **clip)
        )
    tokenizer = transformers.CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77
    )
    return {"vae": vae, "unet": unet, "text_encoder": text, "vision": vision, "tokenizer": tokenizer}


def save_tiny(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Write `<folder>/sd` (a diffusers folder) and `<folder>/clip`, unless they are there, and return both."""
    diffusers, _ = libraries()
    base, clip = folder / "sd", folder / "clip"
    if (clip / "config.json").is_file():
        return base, clip
    parts = tiny_parts(seed)
    vision = parts.pop("vision")
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    pipeline = diffusers.StableDiffusionPipeline(
        **parts, scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.save_pretrained(base)
    vision.save_pretrained(clip)
    parts["tokenizer"].save_pretrained(clip)
    return base, clip
