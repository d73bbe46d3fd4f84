"""What CLIP's image tower is shown, as intended or as S2PreST's release does it.

Shapes: pictures (H, W, 3) uint8 RGB; CLIP's input (B, 3, S, S), S 224 for ViT-L/14.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

CLIP_INPUTS = ("rgb", "legacy")
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
LETTERS = {768: "b", 1024: "l", 1280: "h"}  # by width
# The release casts [-1, 1] to uint8 unscaled: all is 0 but 255 (exactly 1) and 0 (-1, which wraps around on x86).
LEGACY_LEVELS = np.zeros(256, np.uint8)
LEGACY_LEVELS[[0, 255]] = 255, 1


def clip_input(pictures: Sequence[np.ndarray], *, mode: str, size: int) -> Tensor:
    """Return pictures as CLIP takes them: short side scaled to `size` (bicubic), the centre cut, normalised.

    Args:
        pictures: of any sizes.
        mode: "rgb", or "legacy": the nearly black pictures that the release feeds, for the authors' embeddings.
        size: S.
    """
    cut = [_centre(LEGACY_LEVELS[picture] if mode == "legacy" else picture, size) for picture in pictures]
    levels = torch.from_numpy(np.stack(cut)).movedim(-1, 1).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (levels - mean) / std


@torch.no_grad()
def embed(vision: Any, pictures: Sequence[np.ndarray], *, mode: str, device: torch.device) -> Tensor:
    """Return the embeddings (B, D) of length 1 that an image tower gives pictures; see `clip_input`."""
    x = clip_input(pictures, mode=mode, size=int(vision.config.image_size))
    embeddings = vision(pixel_values=x.to(device, non_blocking=True)).image_embeds
    return embeddings / embeddings.norm(dim=-1, keepdim=True)


def tower_size(vision: Any) -> str:
    """Return how an image tower is called by its width and patch: "b32", "l14"."""
    width = int(vision.config.hidden_size)
    return f"{LETTERS.get(width, f'{width}_')}{vision.config.patch_size}"


def _centre(picture: np.ndarray, size: int) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = size / min(height, width)
    wide, high = max(size, round(width * scale)), max(size, round(height * scale))
    scaled = Image.fromarray(np.ascontiguousarray(picture)).resize((wide, high), Image.Resampling.BICUBIC)
    left, top = (wide - size) // 2, (high - size) // 2
    return np.asarray(scaled.crop((left, top, left + size, top + size)))
