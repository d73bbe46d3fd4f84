"""SemIA's generator: a picture is rendered anew for another layout (semantic feature translation).

What changes between two segmentations in the features of a shared encoder (their ratio and their difference) becomes
a scale and a shift of the picture's features. Shapes: H x W multiples of 8; segmentations (B, N, H, W) in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.networks.blocks.recompute import through
from models.networks.semia.blocks import ConvBlock, Rescale, TranslationHead, film

LEVELS = 3
MULTIPLE = 2**LEVELS  # pixels that both sides are multiples of
RATIO_EPS = 1e-14


@dataclass(frozen=True)
class Rendering:
    """The picture (B, 3, H, W), and scales and shifts by level, finest first."""

    image: Tensor
    alpha: list[Tensor]
    beta: list[Tensor]


class Encoder(nn.Module):
    """Entry convolution and three halvings; `tail` off: the features are all that is wanted."""

    def __init__(self, in_channels: int, ngf: int, *, tail: bool) -> None:
        super().__init__()
        self.head_block = ConvBlock(in_channels, ngf, 7)
        self.down_block = nn.ModuleList(Rescale(ngf * 2**level, up=False) for level in range(LEVELS))
        if tail:
            self.tail_block = ConvBlock(ngf * MULTIPLE, ngf * MULTIPLE, 3)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the outputs of the halvings, finest first."""
        x = through(self.head_block, x)
        outputs = []
        for down in self.down_block:
            x = through(down, x)
            outputs.append(x)
        return outputs

    def forward(self, x: Tensor, alpha: list[Tensor], beta: list[Tensor]) -> Tensor:
        x = through(self.head_block, x)
        for down, a, b in zip(self.down_block, alpha, beta, strict=True):
            x = film(through(down, x), a, b)
        out: Tensor = through(self.tail_block, x)
        return out


class Decoder(nn.Module):
    """Three doublings, each after a modulation; the output is unbounded, as released."""

    def __init__(self, ngf: int) -> None:
        super().__init__()
        self.head_block = ConvBlock(ngf * MULTIPLE, ngf * MULTIPLE, 3)
        self.up_block = nn.ModuleList(Rescale(ngf * 2**level, up=True) for level in range(LEVELS, 0, -1))
        self.tail_block = ConvBlock(ngf, 3, 3)

    def forward(self, x: Tensor, alpha: list[Tensor], beta: list[Tensor]) -> Tensor:
        x = through(self.head_block, x)
        for up, a, b in zip(self.up_block, reversed(alpha), reversed(beta), strict=True):
            x = through(up, film(x, a, b))
        out: Tensor = through(self.tail_block, x)
        return out


class SemIAGenerator(nn.Module):
    """Encoders of segmentation and picture, translation heads, decoder.

    Args:
        seg_nc: channels N of a segmentation: 3 for colour pictures, else the number of classes.
        ngf: base width.
        ratio_limit: the ratio of features is kept within plus and minus this; 0: as released, unbounded.
    """

    def __init__(self, *, seg_nc: int = 3, ngf: int = 32, ratio_limit: float = 0.0) -> None:
        super().__init__()
        self.ratio_limit = ratio_limit
        widths = tuple(ngf * 2**level for level in range(1, LEVELS + 1))
        # Differs from SemIA's release: its segmentation encoder has a tail whose output is thrown away
        self.encoder_c = Encoder(seg_nc, ngf, tail=False)
        self.encoder_i = Encoder(3, ngf, tail=True)
        self.decoder_i = Decoder(ngf)
        self.FiLM_c2i_alpha = TranslationHead(widths)
        self.FiLM_c2i_beta = TranslationHead(widths)

    def changes(self, seg: Tensor, target_seg: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return ratios and differences of the features of target and source segmentation, by level."""
        source, target = self.encoder_c.features(seg), self.encoder_c.features(target_seg)
        pairs = list(zip(source, target, strict=True))
        ratios = [(t + RATIO_EPS) / (s + RATIO_EPS) for s, t in pairs]
        if self.ratio_limit:
            ratios = [ratio.clamp(-self.ratio_limit, self.ratio_limit) for ratio in ratios]
        return ratios, [t - s for s, t in pairs]

    def forward(self, image: Tensor, seg: Tensor, target_seg: Tensor) -> Rendering:
        ratios, differences = self.changes(seg, target_seg)
        alpha, beta = self.FiLM_c2i_alpha(ratios), self.FiLM_c2i_beta(differences)
        out = self.decoder_i(self.encoder_i(image, alpha, beta), alpha, beta)
        return Rendering(out, alpha, beta)


def init_semia(net: nn.Module, *, gain: float = 0.02) -> None:
    """Initialise as the release does on a GPU: plain convolutions by Xavier with a small gain, norms N(1, gain).

    Biases are 0. Its spectrally normalised convolutions keep PyTorch's default, whatever its options say.
    """
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, gain)
        elif isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def input_noise(image: Tensor) -> Tensor:
    """Return the picture with the uniform noise of one grey level in [-1, 1] / 255 that training adds."""
    # Not rand_like, whose draws follow the order in memory
    return image + (torch.rand(image.shape, dtype=image.dtype, device=image.device) * 2 - 1) / 255
