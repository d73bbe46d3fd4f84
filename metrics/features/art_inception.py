"""ArtFID's own features: an Inception v3 trained on art (Wright and Ommer 2022, arXiv 2207.12280), from a file.

The authors' `art_inception.pth` has torchvision's tensor names; its classifiers are not read. Pictures go in as in
their `art_fid.py`: values in [0, 1], not resized.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metrics.features.inception import fold_norms
from util.device import tf32
from util.errors import DataError
from util.versions import torchvision_pair
from util.weight_files import file_hash, load_exactly, read_weights

SMALLEST = 75  # pixels a side, so that every layer has a position
CLASSIFIERS = ("fc.", "AuxLogits.")


class ArtFeatures(nn.Module):
    """torchvision's Inception v3 up to the global average pool, from a dictionary of its tensors.

    Raises:
        UserError: `source` lacks tensors, or has others.
    """

    def __init__(self, state: dict[str, Tensor], *, source: str) -> None:
        super().__init__()
        with torchvision_pair():
            from torchvision.models import inception_v3
        with torch.device("meta"):
            net: Any = inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)
        net.fc = nn.Identity()
        self.net = net.to_empty(device="cpu").eval().requires_grad_(False)
        load_exactly(self.net, {k: v for k, v in state.items() if not k.startswith(CLASSIFIERS)}, source=source)
        fold_norms(self.net)

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """Return (B,2048) of pictures (B,3,H,W) uint8; raises `DataError` for too small ones."""
        if min(pictures.shape[-2:]) < SMALLEST:
            raise DataError(f"ArtFID's network needs pictures of at least {SMALLEST} pixels a side")
        with torch.autocast(pictures.device.type, enabled=False), tf32(False):
            pooled: Tensor = self.net(pictures.float() / 255)
        return pooled

    def train(self, mode: bool = True) -> ArtFeatures:
        """Stay in eval mode: the features of a set may not depend on its batches."""
        return super().train(False)


def load_art_inception(path: str) -> tuple[ArtFeatures, str]:
    """Return the network of --art_inception (CPU, eval mode) and its file's hash; raises `UserError`."""
    flag, needed = "--art_inception", "ArtFID's art_inception.pth: an Inception v3 under torchvision's names"
    state = read_weights(path, flag=flag, needed=needed)
    inner = state.get("state_dict", state)
    return ArtFeatures(inner, source=f"{flag} {path}"), file_hash(Path(path))
