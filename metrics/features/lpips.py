"""LPIPS version 0.1 (Zhang et al. 2018, arXiv 1801.03924): distance of deep features, weighted per channel.

AlexNet's or VGG-16's five ReLU taps, unit length over the channels; squared differences, weighted by the released
linear heads, averaged over positions, summed over taps. Shapes: B pictures, K draws, H x W pixels.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from util.device import tf32
from util.errors import DataError, UserError
from util.weight_files import file_hash, read_weights, torchvision_file

# (channels out, kernel, stride, padding) of a convolution with its ReLU; "T": a tap; "P": pooling.
_ALEX = [
    (64, 11, 4, 2), "T", "P", (192, 5, 1, 2), "T", "P", (384, 3, 1, 1), "T", (256, 3, 1, 1), "T", (256, 3, 1, 1), "T",
]  # fmt: skip
_VGG_WIDTHS, _VGG_CONVS = (64, 128, 256, 512, 512), (2, 2, 3, 3, 3)
BACKBONES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}  # torchvision's files
SMALLEST = {"alex": 31, "vgg": 16}  # pixels a side, so that every tap has a position
MEAN, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pictures in [-1, 1]; the package's own constants


def _plan(net: str) -> list[Any]:
    if net == "alex":
        return _ALEX
    plan: list[Any] = []
    for width, convs in zip(_VGG_WIDTHS, _VGG_CONVS, strict=True):
        plan += [*[(width, 3, 1, 1)] * convs, "T", "P"]
    return plan[:-1]


class LPIPS(nn.Module):
    """The distance of two pictures as a map or a number.

    Args:
        net: "alex" or "vgg".
        backbone: tensors under torchvision's names (`features.N.weight`), any float type.
        heads: `lin<k>.model.1.weight` (1,C,1,1).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, *, net: str, backbone: dict[str, Tensor], heads: dict[str, Tensor]) -> None:
        super().__init__()
        self.net = net
        stages: list[nn.Module] = []
        layers: list[nn.Module] = []
        number, channels = 0, 3  # number: the layer's place in torchvision's `features`
        for step in _plan(net):
            if step == "T":
                stages.append(nn.Sequential(*layers))
                layers = []
            elif step == "P":
                layers.append(nn.MaxPool2d(3 if net == "alex" else 2, 2))
                number += 1
            else:
                width, kernel, stride, padding = step
                conv = nn.Conv2d(channels, width, kernel, stride, padding)
                conv.weight.data = backbone[f"features.{number}.weight"].float()
                conv.bias.data = backbone[f"features.{number}.bias"].float()  # type: ignore[union-attr]
                layers += [conv, nn.ReLU()]
                number, channels = number + 2, width
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ParameterList([heads[f"lin{k}.model.1.weight"].float() for k in range(len(stages))])
        self.register_buffer("shift", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def taps(self, pictures: Tensor) -> list[Tensor]:
        """Return the normalised feature maps of pictures (B,3,H,W) uint8 RGB; raises `DataError` for too small ones."""
        if min(pictures.shape[-2:]) < SMALLEST[self.net]:
            raise DataError(f"LPIPS ({self.net}) needs pictures of at least {SMALLEST[self.net]} pixels a side")
        x = (pictures.to(self.shift.device).float() / 127.5 - 1 - self.shift) / self.scale
        maps = []
        with torch.autocast(x.device.type, enabled=False), tf32(False):
            for stage in self.stages:
                x = stage(x)
                maps.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return maps

    @torch.no_grad()
    def distance(self, a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
        """Return the weighted squared difference (B,1,h,w) of each tap."""
        return [F.conv2d((x - y).square(), head) for x, y, head in zip(a, b, self.heads, strict=True)]


def whole(maps: list[Tensor]) -> Tensor:
    """Return LPIPS (B,) of `LPIPS.distance`: the mean of each map, summed."""
    return torch.stack([m.mean((1, 2, 3)) for m in maps]).sum(0)


def masked(maps: list[Tensor], mask: Tensor) -> Tensor:
    """Return (B,): the maps scaled up bilinearly to the mask (B,1,H,W), summed, averaged over it; NaN where empty."""
    inside = (mask > 0).to(maps[0])
    size = mask.shape[-2:]
    total = sum(F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps)
    return torch.as_tensor((total * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)))


@dataclass(frozen=True)
class LPIPSFiles:
    """Names and hashes of the two files that a value depends on."""

    weights: str
    weights_sha256: str
    backbone: str
    backbone_sha256: str


def load_lpips(net: str, *, heads: str | None, backbone: str | None) -> tuple[LPIPS, LPIPSFiles]:
    """Load the network (CPU, eval mode).

    Args:
        net: "alex" or "vgg".
        heads: --lpips_weights: the package's `alex.pth`, or a dictionary of several nets; None: the installed `lpips`.
        backbone: --lpips_backbone: torchvision's file; None: torch hub's cache or download.

    Raises:
        UserError: a file is missing, cannot be read or fetched, or is of another network.
    """
    heads_path = Path(heads) if heads else _installed_heads(net)
    state = read_weights(heads_path, flag="--lpips_weights", needed=f"{net}.pth of the package lpips")
    otherwise = "or leave lpips and div out of --metrics"
    backbone_path = Path(backbone) if backbone else torchvision_file(
        BACKBONES[net], reader="LPIPS", flag="--lpips_backbone", otherwise=otherwise
    )  # fmt: skip
    features = read_weights(backbone_path, flag="--lpips_backbone", needed=f"torchvision's {BACKBONES[net]}")
    try:
        model = LPIPS(net=net, backbone=features, heads=state.get(net, state))
        model.distance(*[model.taps(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))] * 2)
    except (KeyError, AttributeError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{backbone_path} and {heads_path} do not make LPIPS with --lpips_net {net}: {error}. The first needs "
            "torchvision's tensors up to the last convolution, the second lin0 .. lin4"
        ) from error
    hashes = LPIPSFiles(heads_path.name, file_hash(heads_path), backbone_path.name, file_hash(backbone_path))
    return model, hashes


def _installed_heads(net: str) -> Path:
    spec = importlib.util.find_spec("lpips")
    if spec is None or spec.origin is None:
        raise UserError(
            "LPIPS needs its linear heads: `pip install --no-deps lpips==0.1.4` (the wheel holds them), or name the "
            "file with --lpips_weights FILE; or leave lpips and div out of --metrics"
        )
    return Path(spec.origin).parent / "weights" / "v0.1" / f"{net}.pth"
