"""Values from VGG-19's features: CFSD, style and content loss.

Shapes: B pictures, C channels, n positions; pictures (B, 3, H, W) uint8.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metrics.declaration import Flag, Setup, Value
from metrics.metric import Metric, PerPicture
from metrics.pictures import Pictures
from metrics.registry import METRICS, STYLISING
from util.device import tf32
from util.errors import UserError
from util.files import cause
from util.opt import Opt
from util.shared_flags import SHARED
from util.versions import torchvision_pair
from util.weight_files import file_hash, read_weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CFSD_LAYER, CFSD_SIDE = 11, 256  # index in torchvision's `features` of the ReLU after conv3_1
CFSD_ROWS = 512  # positions at a time
STYLE_LAYERS, CONTENT_LAYER, LOSS_SIDE = (0, 5, 10, 19, 28), 19, 224  # conv1_1, ..., conv5_1; conv4_1
VGG_WEIGHTS = Flag(
    "vgg_weights", SHARED["vgg_weights"] | {"help": "torchvision's VGG-19: cfsd, style_loss, content_loss"}
)


@METRICS.register
class VGGStyle(PerPicture):
    """`cfsd`, `style_loss` and `content_loss`, those in `names`.

    Args:
        features: torchvision's `vgg19().features`, whatever weights; sha256: of their file.
        style: the style picture (3, H, W) uint8, needed by `style_loss` alone.
    """

    values = {
        "cfsd": Value(
            "distance",
            "KL(content | result), summed over positions, of softmaxed patch similarities of VGG-19 relu3_1, both "
            f"scaled to {CFSD_SIDE}x{CFSD_SIDE}; mean over pictures",
            lower_is_better=True,
            limits=(0, math.inf),
        ),
        "style_loss": Value(
            "distance",
            "sum over VGG-19 conv1_1 .. conv5_1 of the MSE of Gram matrices (divided by C n), result against "
            f"style picture, both scaled to {LOSS_SIDE}x{LOSS_SIDE}; mean over pictures",
            lower_is_better=True,
            limits=(0, math.inf),
        ),
        "content_loss": Value(
            "distance",
            f"MSE of VGG-19 conv4_1, result against content, both scaled to {LOSS_SIDE}x{LOSS_SIDE}; mean over "
            "pictures",
            lower_is_better=True,
            limits=(0, math.inf),
        ),
    }
    asked = {STYLISING: tuple(values)}
    needs = {"style_loss": ("style",)}
    flags = (VGG_WEIGHTS,)
    place = 90

    def __init__(
        self,
        names: tuple[str, ...],
        *,
        features: nn.Sequential,
        sha256: str,
        style: Tensor | None,
        device: torch.device,
    ) -> None:
        for module in features:
            if isinstance(module, nn.ReLU):
                module.inplace = False  # the layer before it is read too
        self.features, self.sha256, self.device = features.to(device).eval(), sha256, device
        self.style = style
        super().__init__(names)

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        features, sha256 = load_vgg19(setup.opt.vgg_weights)
        style = setup.style if "style_loss" in names else None
        return [cls(names, features=features, sha256=sha256, style=style, device=setup.device)]

    @classmethod
    def check(cls, names: tuple[str, ...], opt: Opt) -> None:
        load_vgg19(opt.vgg_weights)

    def score(self, pictures: Pictures) -> dict[str, Tensor]:
        values = {}
        if "cfsd" in self.names:
            fake, real = (self.taps(p, (CFSD_LAYER,), CFSD_SIDE)[0] for p in (pictures.fake, pictures.real))
            values["cfsd"] = cfsd(fake, real)
        if {"style_loss", "content_loss"} & set(self.names):
            fakes = self.taps(pictures.fake, STYLE_LAYERS, LOSS_SIDE)
            if "style_loss" in self.names and self.style is not None:
                styles = self.taps(self.style[None], STYLE_LAYERS, LOSS_SIDE)
                each = [(gram(a) - gram(b)).square().mean((1, 2)) for a, b in zip(fakes, styles, strict=True)]
                values["style_loss"] = torch.stack(each).sum(0).double().cpu()
            if "content_loss" in self.names:
                real = self.taps(pictures.real, (CONTENT_LAYER,), LOSS_SIDE)[0]
                difference = fakes[STYLE_LAYERS.index(CONTENT_LAYER)] - real
                values["content_loss"] = difference.square().mean((1, 2, 3)).double().cpu()
        return values

    @torch.no_grad()
    def taps(self, pictures: Tensor, layers: tuple[int, ...], side: int) -> list[Tensor]:
        """Return the outputs of some layers for pictures scaled to a square."""
        x = pictures.to(self.device).float() / 255
        x = F.interpolate(x, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        x, outputs = (x - mean) / std, []
        with torch.autocast(x.device.type, enabled=False), tf32(False):
            for number, layer in enumerate(self.features[: max(layers) + 1]):
                x = layer(x)
                outputs += [x] if number in layers else []
        return outputs

    def extra(self, name: str) -> dict[str, str]:
        return {"weights": "VGG-19", "weights_sha256": self.sha256}


def cfsd(fake: Tensor, content: Tensor) -> Tensor:
    """Return (B,) of features (B, C, h, w): KL(content | fake) of each position's similarities, summed over positions.

    Similarity of two positions: scalar product of their features, each divided by C; softmax over the second. As in
    StyleID's release (evaluation/image_metrics.py).
    """
    ours, theirs = (_flat(features) for features in (fake, content))
    divergence = ours.new_zeros(len(ours))
    for rows in torch.arange(ours.shape[1], device=ours.device).split(CFSD_ROWS):
        q, p = ((flat[:, rows] @ flat.transpose(1, 2)).log_softmax(-1) for flat in (ours, theirs))
        divergence += (p.exp() * (p - q)).sum((1, 2))
    return divergence.cpu()


def _flat(features: Tensor) -> Tensor:
    """Return (B, n, C) over C; float64, as the sum is of many terms that nearly cancel."""
    return features.double().flatten(2).transpose(1, 2) / features.shape[1]


def gram(features: Tensor) -> Tensor:
    """Return (B, C, C) Gram matrices of features (B, C, h, w), divided by C h w."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def load_vgg19(path: str | None) -> tuple[nn.Sequential, str]:
    """Return torchvision's VGG-19 features with the weights of a file, and its hash; raises `UserError`."""
    if path is None:
        names = ", ".join(VGGStyle.values)
        raise UserError(f"{names} need VGG-19's weights: name torchvision's file with --vgg_weights FILE")
    state = read_weights(path, flag="--vgg_weights", needed="torchvision's VGG-19")
    prefix = "features."
    tensors = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    with torchvision_pair():
        from torchvision.models import vgg19

    features = vgg19(weights=None).features
    try:
        features.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"--vgg_weights {path} is not torchvision's VGG-19: {cause(error)}") from error
    return features.float(), file_hash(Path(path))
