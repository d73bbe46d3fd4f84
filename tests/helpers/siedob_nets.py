"""The hash-filled SIEDOB networks and inputs of the golden numbers.

The golden tensors are BGR. The networks here are converted as released files are, and see RGB: pictures go in with
their channels reversed, and come out so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hash_fill import SIEDOB, assert_stats, fill, golden
from instance_edges import instance_edges
from torch import Tensor, nn

from models.losses.perceptual import PerceptualLoss, build_features
from models.networks.blocks.discriminator import PatchDiscriminator
from models.networks.siedob.background_generator import BackgroundGenerator
from models.networks.siedob.fusion_generator import FusionGenerator
from models.networks.siedob.object_generators import ObjectInpainter, StyleObjectGenerator
from models.released_weights import siedob
from models.released_weights.conversion import renamed
from models.released_weights.siedob import ReleasedNetwork
from util.batch import one_hot

GOLDEN: dict[str, Any] = golden("siedob_golden.json")
LABEL_NC = 34
VGG_RECIPE = replace(SIEDOB, gain=6.0)
THINGS = range(24, 34)  # classes without a background's style


def judge(channels: int) -> Callable[[], nn.Module]:
    return lambda: PatchDiscriminator(channels, ndf=64, num_layers=6, padding_mode="zeros")


NETWORKS: dict[str, tuple[ReleasedNetwork, Callable[[], nn.Module]]] = {
    "netG_BG": (siedob.BACKGROUND_G, lambda: BackgroundGenerator(label_nc=LABEL_NC, things=THINGS)),
    "netD_BG": (siedob.BACKGROUND_D, judge(37)),
    "netD_patch": (siedob.BACKGROUND_PATCH, judge(37)),
    "inp.netG": (siedob.INPAINT_G, lambda: ObjectInpainter(class_channels=3)),
    "inp.netD_inp": (siedob.INPAINT_D, judge(7)),
    "sty.netG": (siedob.STYLE_G, lambda: StyleObjectGenerator(class_channels=3)),
    "sty.netD_style": (siedob.STYLE_D, judge(6)),
    "netG_F": (siedob.FUSION_G, FusionGenerator),
    "netD_F": (siedob.FUSION_D, judge(3)),
}


def released_key(tag: str, key: str) -> str:
    """Return the released key, with the wrapper's name, for a key of ours."""
    released = NETWORKS[tag][0]
    return released.prefix + released.name(key)


@cache
def golden_network(tag: str) -> Any:
    """Return a network with the golden weights, converted to RGB, in evaluation; shared, so not to be changed."""
    released, build = NETWORKS[tag]
    net = build()
    fill(net, lambda key: f"{tag}/{released_key(tag, key)}", SIEDOB)
    bgr = {released_key(tag, key): value for key, value in net.state_dict().items()}
    net.load_state_dict(renamed(net.state_dict(), released.unprefixed(bgr), released.name, released.to_rgb))
    return net.eval().requires_grad_(False)


@cache
def golden_vgg(folder: Path) -> PerceptualLoss:
    """Return VGG-19 with the golden weights; it sees BGR, given RGB."""
    features = build_features("vgg19")
    fill(features, lambda key: f"vgg19/features.{key}", VGG_RECIPE)
    path = folder / "vgg19.pth"
    torch.save({f"features.{k}": v for k, v in features.state_dict().items()}, path)
    return PerceptualLoss(arch="vgg19", weights=str(path), order="bgr")


def wave(batch: int, size: int, shift: float) -> Tensor:
    """Return the golden picture (B, 3, size, size), in RGB."""
    b, c, y, x = np.indices((batch, 3, size, size)).astype(np.float64)
    values = torch.from_numpy(0.9 * np.sin(0.11 * x + 0.07 * y * (c + 1) + 0.9 * b + shift)).float()
    return values.flip(1)


def ellipse(size: int, cy: float, cx: float, ry: float, rx: float) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size]
    return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1


def golden_labels() -> np.ndarray:
    """Return the labels (256, 256) that both scenes begin with."""
    y, x = np.mgrid[0:256, 0:256]
    label = np.full((256, 256), 7)
    label[y < 80] = 23
    label[(y >= 80) & (y < 128) & (x < 128)] = 11
    label[(y >= 80) & (y < 128) & (x >= 128)] = 21
    label[(y >= 128) & (x < 40)] = 8
    return label


def golden_mask() -> Tensor:
    mask = torch.zeros(1, 1, 256, 256)
    mask[..., 100:200, 50:200] = 1
    return mask


class Scene:
    """The 256-pixel case of the background and fusion networks; pictures in RGB."""

    def __init__(self) -> None:
        label = golden_labels()
        label[ellipse(256, 150, 180, 20, 34)] = 26
        label[ellipse(256, 140, 100, 30, 9)] = 24
        label[250:, :20] = 33
        self.label = torch.from_numpy(label)[None]
        self.seg = one_hot(self.label, LABEL_NC)
        self.image = wave(1, 256, 0)
        self.mask = golden_mask()
        self.background = 1 - self.seg[:, [24, 26]].sum(1, keepdim=True)
        self.edge = instance_edges(self.label) * self.mask
        self.background_mask = self.mask * self.background
        self.recomposed = self.image * (1 - self.mask) + 0.5 * wave(1, 256, 3) * self.mask

    def background_input(self) -> tuple[Tensor, ...]:
        masked = self.image * (1 - self.mask) * self.background
        return masked, self.seg, self.edge, self.background_mask, self.background

    def background_composite(self, made: Tensor) -> Tensor:
        return made * self.background_mask + self.image * (1 - self.background_mask)


class InstanceScene:
    """The 256-pixel scene of the authors' data set code, with instances; the picture in RGB, label 0 is 33."""

    SHAPES = (
        (26000, 26, 150, 176, 20, 40),
        (26001, 26, 160, 90, 16, 28),
        (26002, 26, 220, 120, 14, 24),
        (24000, 24, 136, 134, 30, 9),
        (24001, 24, 150, 46, 28, 9),
        (24002, 24, 110, 58, 24, 14),
        (28000, 28, 120, 160, 12, 12),
    )

    def __init__(self) -> None:
        label = golden_labels()
        label[250:, :20] = 0
        inst = label.copy()
        for number, cls, *shape in self.SHAPES:
            inside = ellipse(256, *shape)
            inst[inside], label[inside] = number, cls
        inst[190, 100:140], label[190, 100:140] = 26003, 26
        inst[129, 170:190] = 26000
        label[label == 0] = 33
        c, y, x = np.indices((3, 256, 256)).astype(np.float64)
        levels = torch.from_numpy(np.floor(127.5 + 100 * np.sin(0.13 * x + 0.07 * y + 1.7 * c))).float()
        self.image = ((levels / 255 - 0.5) / 0.5).flip(0)[None]
        self.label, self.inst = torch.from_numpy(label)[None], torch.from_numpy(inst)[None]
        self.seg, self.mask = one_hot(self.label, LABEL_NC), golden_mask()
        self.edge = instance_edges(self.inst) * self.mask

    def objects(self, *numbers: int) -> Tensor:
        """Return where the instances have their own class, (1, 1, 256, 256) in {0, 1}."""
        return sum((self.inst == n) & (self.label == n // 1000) for n in numbers)[:, None].float()  # type: ignore[union-attr]


class Objects:
    """The 64-pixel case of the object networks: a car and a person; pictures in RGB."""

    def __init__(self) -> None:
        shapes = np.stack([ellipse(64, 32, 32, 26, 30), ellipse(64, 31, 33, 30, 20)])
        self.object_mask = torch.from_numpy(shapes).float()[:, None]
        classes = torch.tensor([[1.0, 0, 0], [0, 1, 0]])[:, :, None, None]
        self.cls = classes * self.object_mask
        self.mask = torch.zeros(1, 1, 64, 64)
        self.mask[..., 36:] = 1
        self.mask = self.mask * self.object_mask
        self.image = wave(2, 64, 1) * self.object_mask
        self.masked = self.image * (1 - self.mask)
        style_mask = self.object_mask.flip(0)
        self.style_image, self.style_cls = wave(2, 64, 2) * style_mask, classes * style_mask


def assert_golden(actual: Tensor, expected: dict[str, Any], *, picture: bool = False, judged: bool = False) -> None:
    """Compare with golden statistics, the order-sensitive checksum included.

    Args:
        picture: `actual` is RGB, the golden one BGR.
        judged: scores of a discriminator, which are small.
    """
    actual = actual.flip(1) if picture else actual
    moments, val = (1e-6, 1e-5) if judged else (1e-5, 1e-4)
    assert_stats(actual, expected, val=val, moments=moments)
    flat = actual.detach().double().flatten()
    if "proj" in expected:
        checksum = (flat * torch.cos(0.01 * torch.arange(len(flat), dtype=torch.float64))).mean().item()
        assert abs(checksum - expected["proj"]) <= moments
        assert abs(flat.min().item() - expected["min"]) <= val
        assert abs(flat.max().item() - expected["max"]) <= val
