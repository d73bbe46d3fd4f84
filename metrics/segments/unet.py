"""Networks that `scripts/train_segmenter.py` trains: a small U-Net, or torchvision's LR-ASPP MobileNet.

Both map RGB pictures (B,3,H,W) float in [0, 255] to logits (B,C,H,W); H and W divisible by 8.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from util.versions import torchvision_pair

ARCHITECTURES = ("unet", "lraspp")


def build_segmenter_net(*, arch: str, width: int, num_classes: int) -> nn.Module:
    """Return an untrained network; `width` is the U-Net's first channel count and unused by lraspp."""
    if arch == "unet":
        return UNet(width=width, num_classes=num_classes)
    if arch == "lraspp":
        return LRASPP(num_classes=num_classes)
    raise ValueError(f"arch {arch!r} is none of {ARCHITECTURES}")


class UNet(nn.Module):
    """Three halvings, channels width x (1, 2, 4, 4), two 3x3 convolutions per stage, skips by concatenation."""

    def __init__(self, *, width: int, num_classes: int) -> None:
        super().__init__()
        w1, w2, w3, w4 = width, 2 * width, 4 * width, 4 * width
        self.enc1, self.enc2, self.enc3 = _stage(3, w1), _stage(w1, w2), _stage(w2, w3)
        self.bottom = _stage(w3, w4)
        self.dec3, self.dec2, self.dec1 = _stage(w4 + w3, w2), _stage(w2 + w2, w1), _stage(w1 + w1, w1)
        self.classifier = nn.Conv2d(w1, num_classes, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        skip1 = self.enc1(rgb / 127.5 - 1)
        skip2 = self.enc2(F.max_pool2d(skip1, 2))
        skip3 = self.enc3(F.max_pool2d(skip2, 2))
        x = self.bottom(F.max_pool2d(skip3, 2))
        for decoder, skip in ((self.dec3, skip3), (self.dec2, skip2), (self.dec1, skip1)):
            x = decoder(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1))
        logits: Tensor = self.classifier(x)
        return logits


class LRASPP(nn.Module):
    """torchvision's LR-ASPP on MobileNetV3-Large (Howard et al. 2019), trained from scratch."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        with torchvision_pair():
            from torchvision.models.segmentation import lraspp_mobilenet_v3_large  # training machines may lack it

        self.net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=num_classes)

    def forward(self, rgb: Tensor) -> Tensor:
        logits: Tensor = self.net(rgb / 127.5 - 1)["out"]
        return logits


def _stage(channels_in: int, channels_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for c in (channels_in, channels_out):
        conv = nn.Conv2d(c, channels_out, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
