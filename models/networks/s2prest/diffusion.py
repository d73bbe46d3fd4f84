"""The frozen parts of Stable Diffusion and CLIP that S2PreST works with.

Shapes: B pictures; latents (B, 4, h, w); conditioning (B, 77, D); pictures (B, 3, H, W) in [-1, 1].
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.networks.s2prest.clip_input import embed
from util.device import HALVES
from util.errors import UserError

PLACEHOLDER = "*"
LATENT_CHANNELS = 4
REQUIREMENTS = "requirements-diffusion.txt"
PARTS = ("vae", "unet", "text_encoder", "vision")


def libraries() -> tuple[Any, Any]:
    """Return the modules diffusers and transformers; raises `UserError` where they are not installed."""
    try:
        found = importlib.import_module("diffusers"), importlib.import_module("transformers")
    except ImportError as error:
        raise UserError(f"--model s2prest needs `pip install -r {REQUIREMENTS}` ({error})") from error
    found[1].utils.logging.disable_progress_bar()
    for library in found:
        library.utils.logging.set_verbosity(logging.CRITICAL)  # what goes wrong is raised, and told in our words
    return found


class Diffusion:
    """VAE, UNet, text encoder, CLIP's image tower and tokenizer: none is trained, gradients pass through.

    Args:
        vae, unet, text_encoder, vision, tokenizer: of `diffusers` and `transformers`; `*` is a single token of
            the tokenizer.

    Raises:
        UserError: the parts do not fit together.
    """

    def __init__(self, *, vae: Any, unet: Any, text_encoder: Any, vision: Any, tokenizer: Any) -> None:
        self.vae, self.unet, self.text_encoder, self.vision, self.tokenizer = vae, unet, text_encoder, vision, tokenizer
        for part in self.parts().values():
            part.requires_grad_(False).eval()
        self.device, self.offload = torch.device("cpu"), False
        self._resident: nn.Module | None = None
        self.controlnet: Any = None
        self.width = int(text_encoder.config.hidden_size)
        self._check()
        self.prompt, self.empty = self._ids(PLACEHOLDER), self._ids("")
        self.placeholder_id = int(self.prompt[1])

    def _check(self) -> None:
        unet = self.unet.config
        if unet.in_channels != LATENT_CHANNELS:
            raise UserError(
                f"--base_model: its UNet takes {unet.in_channels} channels instead of {LATENT_CHANNELS}, as those for "
                "inpainting or depth do; name a Stable Diffusion v1 that makes pictures from text alone"
            )
        if unet.get("addition_embed_type") or not isinstance(unet.cross_attention_dim, int):
            raise UserError(
                "--base_model: its UNet wants more than a text, as SDXL's does; name a Stable Diffusion v1 (v1.4, v1.5 "
                "or one trained further from these)"
            )
        widths = {
            "the UNet's conditioning": int(unet.cross_attention_dim),
            "the text encoder": self.width,
            "CLIP's image embedding": int(self.vision.config.projection_dim),
        }
        if len(set(widths.values())) > 1:
            shown = ", ".join(f"{what} {width}" for what, width in widths.items())
            raise UserError(
                f"--base_model and --clip_model do not go together, their widths differ: {shown}. Stable Diffusion v1 "
                "goes with openai/clip-vit-large-patch14 (768)"
            )

    def parts(self) -> dict[str, nn.Module]:
        """Return the networks by name."""
        return {name: getattr(self, name) for name in PARTS}

    def guide(self, controlnet: Any) -> None:
        """Let a ControlNet of `diffusers` guide every prediction; raises `UserError` if it is of another UNet."""
        ours, theirs = self.unet.config, controlnet.config
        for what, key in (("conditioning of width", "cross_attention_dim"), ("levels of", "block_out_channels")):
            if _plain(ours[key]) != _plain(theirs[key]):
                raise UserError(
                    f"--controlnet is of another Stable Diffusion: it has {what} {_plain(theirs[key])}, --base_model "
                    f"{_plain(ours[key])}; name one of v1, such as lllyasviel/sd-controlnet-canny"
                )
        if 2 ** (len(theirs.conditioning_embedding_out_channels) - 1) != self.factor:
            raise UserError("--controlnet scales its picture otherwise than the VAE of --base_model")
        self.controlnet = controlnet.requires_grad_(False).eval()

    def _held(self) -> list[Any]:
        """Return all networks in memory; `parts` are those that a style is learnt with."""
        return [*self.parts().values(), *([] if self.controlnet is None else [self.controlnet])]

    @property
    def factor(self) -> int:
        """Pixels per latent and side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def smallest_side(self) -> int:
        """Pixels that the UNet's lowest level needs."""
        return int(self.factor * 2 ** (len(self.unet.config.block_out_channels) - 1))

    # --- where and how -----------------------------------------------------------------------------------------------
    def to(self, device: torch.device, *, offload: bool = False) -> None:
        """Move the parts; with `offload` they stay in main memory, and each is moved while it is in use."""
        self.device, self.offload, self._resident = device, offload and device.type != "cpu", None
        for part in self._held():
            part.to("cpu" if self.offload else device)

    def hold(self, precision: str) -> None:
        """Keep weights in the type that autocast computes with under `--precision`; it would cast them at every call.

        These are the linear and convolution layers of UNet, text encoder and ControlNet: no result changes. VAE and
        CLIP's image tower always compute in float32.
        """
        if (half := HALVES.get(precision)) is None:
            return
        for part in (part for part in self._held() if part not in (self.vae, self.vision)):
            for layer in part.modules():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    layer.to(half)

    def save_memory(self) -> None:
        """Let the VAE work picture by picture and, above the size that it was trained at, in blended tiles.

        Attention is left as it is: PyTorch's own needs less memory than slices of a written-out one, and half the time.
        """
        self.vae.enable_slicing()
        self.vae.enable_tiling()

    def _fetch(self, part: Any) -> Any:
        """Return a part where it can be used; with offloading, the one before leaves the device."""
        if self.offload and self._resident is not part:
            if self._resident is not None:
                self._resident.to("cpu")
            part.to(self.device)
            self._resident = part
        return part

    def _exactly(self) -> Any:
        """Return a context in float32, whatever autocast is on around it."""
        kind = self.device.type
        return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()

    # --- pictures ----------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def moments(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (B, 4, h, w) of the scaled latents of pictures (B, 3, H, W)."""
        with self._exactly():
            posterior = self._fetch(self.vae).encode(pictures.to(self.device).float()).latent_dist
        scale = self.vae.config.scaling_factor
        return posterior.mean * scale, posterior.std * scale

    @torch.no_grad()
    def pictures(self, latents: Tensor) -> Tensor:
        """Return pictures (B, 3, H, W), about [-1, 1], of scaled latents."""
        with self._exactly():
            return self._fetch(self.vae).decode(latents.float() / self.vae.config.scaling_factor).sample

    @torch.no_grad()
    def embed(self, pictures: Sequence[np.ndarray], mode: str) -> Tensor:
        """Return CLIP's embeddings (B, D) of length 1 of pictures (H, W, 3) uint8; `mode` as in `clip_input`."""
        with self._exactly():
            return embed(self._fetch(self.vision), pictures, mode=mode, device=self.device)

    # --- text --------------------------------------------------------------------------------------------------------
    def _ids(self, text: str) -> Tensor:
        """Return (77,) token ids; the padding is not masked later."""
        length = int(self.text_encoder.config.max_position_embeddings)
        ids = self.tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids
        return torch.tensor(ids)

    def condition(self, tokens: Tensor) -> Tensor:
        """Return the conditioning (B, 77, D) of the prompt "*", whose embedding is `tokens` (B, D)."""
        ids = self.prompt.to(self.device, non_blocking=True).expand(len(tokens), -1)
        encoder = self._fetch(self.text_encoder)
        with _placeholder(encoder, tokens, self.placeholder_id):
            return encoder(input_ids=ids).last_hidden_state

    def unconditional(self) -> Tensor:
        """Return the conditioning (1, 77, D) of the empty prompt: it has no placeholder, so no picture changes it."""
        return self._fetch(self.text_encoder)(input_ids=self.empty[None].to(self.device)).last_hidden_state

    # --- noise -------------------------------------------------------------------------------------------------------
    def predict(
        self, latents: Tensor, t: Tensor | int, conditioning: Tensor, control: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """Return the predicted noise (B, 4, h, w); `control` (B, 3, H, W) in [0, 1] is the ControlNet's picture."""
        known: dict[str, Any] = {"encoder_hidden_states": conditioning}
        if control is None:
            return self._fetch(self.unet)(latents, t, **known).sample
        down, middle = self._fetch(self.controlnet)(latents, t, controlnet_cond=control, return_dict=False, **known)
        guided = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return self._fetch(self.unet)(latents, t, **known, **guided).sample


def _plain(value: Any) -> Any:
    """Return a value of a configuration, whose lists may have been tuples."""
    return list(value) if isinstance(value, tuple) else value


@contextmanager
def _placeholder(encoder: Any, tokens: Tensor, number: int) -> Iterator[None]:
    """Swap the embedding of token `number` for `tokens` (B, D), before positions are added, within the block."""

    def swap(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.where((args[0] == number)[..., None], tokens[:, None].to(output.dtype), output)

    handle = encoder.get_input_embeddings().register_forward_hook(swap)
    try:
        yield
    finally:
        handle.remove()


def sample(moments: tuple[Tensor, Tensor], generators: Sequence[torch.Generator]) -> Tensor:
    """Draw latents (B, 4, h, w) from mean and deviation, each picture's from its own generator."""
    mean, std = moments
    return mean + std * draw_normal(mean.expand(len(generators), -1, -1, -1), generators)


def draw_normal(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw N(0, 1) of the shape of `like` (B, ...), a picture's from its own generator, on the CPU."""
    drawn = [torch.randn(like.shape[1:], generator=generator) for generator in generators]
    return torch.stack(drawn).to(like.device, like.dtype, non_blocking=True)
