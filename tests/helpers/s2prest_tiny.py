"""The tiny pipeline as a model, for tests; a test file that imports this is skipped where diffusers is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models.networks.s2prest.diffusion import Diffusion
from models.networks.s2prest.inversion import Coefficients
from models.networks.s2prest.style_attention import StyleAttention
from models.networks.s2prest.tiny_diffusion import tiny_parts
from models.s2prest_model import S2PreSTModel
from util.edge_maps import edge_picture
from util.images import to_tensor

for library in ("diffusers", "transformers"):
    pytest.importorskip(library, reason="requirements-diffusion.txt is not installed")

QUICK = Coefficients(steps=10, strength=0.4)


def tiny_model(clip_input: str = "rgb", *, seed: int = 0, lr: float | None = None) -> S2PreSTModel:
    """Return a model of random parts with a style picture."""
    frozen = Diffusion(**tiny_parts(seed))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        netE = StyleAttention(dim=32, heads=4, dim_head=8)
    return S2PreSTModel(frozen=frozen, netE=netE.eval(), clip_input=clip_input, lr=lr, style=picture(7), size=64)


def tiny_controlnet(width: int = 32, *, trained: bool = True) -> Any:
    """Return a random ControlNet of the tiny UNet's shape; one that is not trained changes nothing."""
    from diffusers import ControlNetModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ControlNetModel(
            block_out_channels=(16, 32), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), layers_per_block=1,
            cross_attention_dim=width, attention_head_dim=4, norm_num_groups=8,
            conditioning_embedding_out_channels=(4, 4, 8, 8),
        )  # fmt: skip
        for parameter in net.parameters():
            if trained and not parameter.any():  # the layers that begin at zero
                torch.nn.init.normal_(parameter, std=0.3)
    return net


def picture(seed: int, height: int = 64, width: int = 64) -> np.ndarray:
    """Return a smooth random picture (H, W, 3) uint8 without pure black or white."""
    from PIL import Image

    coarse = np.random.RandomState(seed).randint(30, 220, (4, 4, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).clip(5, 250)


def run(model: S2PreSTModel, content: np.ndarray, how: Coefficients = QUICK, seed: int = 42) -> np.ndarray:
    """Return one stylised picture."""
    return model.stylise([content], [edge_picture(content, "gradient")], [seed], how)[0]


def batch_of(model: S2PreSTModel, draws: list[int]) -> Any:
    """Return a batch of the style picture, each sample with its own draw."""
    assert model.style is not None
    image = torch.stack([to_tensor(model.style)] * len(draws))
    count = len(draws)
    return {"image": image, "name": ["s"] * count, "index": [0] * count, "flip": [0] * count, "draw": draws}
