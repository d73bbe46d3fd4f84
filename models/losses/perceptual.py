"""Perceptual loss: L1 between VGG features (Johnson et al. 2016; weights and layers of pix2pixHD, SPADE, SPMPGAN).

VGG-19 as in the papers, or VGG-16 where only its features are at hand; taps are the ReLUs 1_1, 2_1, 3_1, 4_1, 5_1.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.losses.distance import mean_distance
from util.errors import UserError
from util.weight_files import read_weights, torchvision_file

TAP_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
CONVS_PER_BLOCK = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
TAPS = {"vgg16": (1, 6, 11, 18, 25), "vgg19": (1, 6, 11, 20, 29)}  # indices in torchvision's `features`
WIDTHS = (64, 128, 256, 512, 512)
TORCHVISION_FILE = {"vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth"}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def build_features(arch: str) -> nn.Sequential:
    """Return VGG's layers up to ReLU 5_1, numbered as torchvision's `features`."""
    layers: list[nn.Module] = []
    channels = 3
    for width, convs in zip(WIDTHS, CONVS_PER_BLOCK[arch], strict=True):
        for _ in range(convs):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers[: TAPS[arch][-1] + 1])


def read_vgg_weights(arch: str, path: str | Path | None, *, without: str = "--lambda_vgg 0") -> dict[str, Tensor]:
    """Return the tensors of a weights file (`features.N.weight`, any float type), or of torchvision's own download.

    `without` is the flag that trains without these features, for messages.

    Raises:
        UserError: the file is missing or of another network, or it can be neither found nor downloaded.
    """
    name = TORCHVISION_FILE[arch]
    otherwise = f"--perceptual vgg16 takes VGG-16 instead, and {without} trains without this loss"
    if path is None:
        path = torchvision_file(name, reader="the perceptual loss", flag="--vgg_weights", otherwise=otherwise)
    return read_weights(path, flag="--vgg_weights", needed=f"torchvision's {name}")


def load_features(layers: nn.Sequential, arch: str, weights: str | None, *, without: str = "--lambda_vgg 0") -> None:
    """Load `build_features(arch)`, or the first of its layers, from a file that must have all of them.

    Raises:
        UserError: see `read_vgg_weights`; the file is of another network.
    """
    state = read_vgg_weights(arch, weights, without=without)
    with torch.device("meta"):
        wanted = build_features(arch).state_dict()
    missing = [key for key in wanted if f"features.{key}" not in state]
    if missing:
        raise UserError(
            f"--vgg_weights {weights}: not features of {arch} (--perceptual): features.{missing[0]} and "
            f"{len(missing) - 1} more lack"
        )
    try:
        layers.load_state_dict({key: state[f"features.{key}"].float() for key in layers.state_dict()})
    except (RuntimeError, AttributeError) as error:  # wrong shapes, or not tensors
        raise UserError(f"--vgg_weights {weights}: the shapes are not those of {arch} (--perceptual)") from error


class PerceptualLoss(nn.Module):
    """Weighted sum over five taps of the mean absolute difference of features; the second picture is the target.

    Args:
        arch: "vgg19" or "vgg16".
        weights: file, or None for torchvision's download.
        order: "rgb", or "bgr" to feed the channels reversed, as the release does with its BGR pictures.
        input_scale: "released" feeds [-1, 1] as it is; "imagenet" normalises by ImageNet's mean and deviation.
        without: the flags that train without this network, for messages.

    Attributes:
        widths: channels of the five taps.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, *, arch: str = "vgg19", weights: str | None = None, order: str = "rgb", input_scale: str = "released",
        without: str = "--lambda_vgg 0",
    ) -> None:  # fmt: skip
        super().__init__()
        self.arch, self.order, self.input_scale, self.widths = arch, order, input_scale, WIDTHS
        self.features = build_features(arch)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        load_features(self.features, arch, weights, without=without)
        self.requires_grad_(False)

    def taps(self, x: Tensor) -> list[Tensor]:
        """Return the five feature maps of pictures (B, 3, H, W) in [-1, 1], RGB."""
        if self.input_scale == "imagenet":
            x = ((x + 1) / 2 - self.mean) / self.std
        x = x.flip(1) if self.order == "bgr" else x
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPS[self.arch]:
                maps.append(x)
        return maps

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Return the loss of pictures (nB, 3, H, W) and targets (B, 3, H, W); picture i has the target i modulo B."""
        with torch.no_grad():
            targets = self.taps(real)
        maps = self.taps(fake)
        if len(fake) > len(real):
            maps = [tap.unflatten(0, (-1, len(real))) for tap in maps]
        return torch.stack([w * mean_distance(a, b) for w, a, b in zip(TAP_WEIGHTS, maps, targets, strict=True)]).sum()
