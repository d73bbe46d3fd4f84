"""SIEDOB's two generators of objects: one completes an object, one makes it from a style (SIEDOB, Sec. 3.3).

Shapes: N objects, K class channels, D width of a style code, S x S pixels of a crop (64 as released).
`cls` (N, K, S, S) is the one-hot class times the object's mask; pictures are zero outside the object.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.blocks.gated import ConvNorm, GatedConv, GatedUNet, ToPicture
from models.networks.blocks.recompute import through
from models.networks.blocks.spade import ResnetBlock, StyleSPADEBlock
from models.networks.blocks.spm import LEAK

INPAINT_LEVELS = ((2,), (4, 4), (8, 8), (16, 16, 16))
STYLE_WIDTHS = (1, 2, 4, 4, 4)  # of the style encoder, in units of its first layer
RESIDUAL_BLOCKS = 4


class ObjectInpainter(nn.Module):
    """Completes an object of which some pixels are known.

    Args:
        class_channels: K; ngf: base width.
    """

    def __init__(self, *, class_channels: int, ngf: int = 64) -> None:
        super().__init__()
        self.unet = GatedUNet(
            3 + 1 + 1 + class_channels,
            ngf=ngf,
            levels=INPAINT_LEVELS,
            refine=lambda width: GatedConv(width, width),
        )
        self.picture = ToPicture(ngf)

    def forward(self, image: Tensor, object_mask: Tensor, mask: Tensor, cls: Tensor) -> Tensor:
        """Return pictures (N, 3, S, S) in (-1, 1); S a multiple of 32.

        Args:
            image: (N, 3, S, S), zero outside the object and where it is erased.
            object_mask: (N, 1, S, S), 1 on the object; mask: (N, 1, S, S), 1 where it is erased.
        """
        return self.picture(self.unet(torch.cat([image, object_mask, mask, cls], dim=1)))


class ObjectStyleEncoder(nn.Module):
    """Reads the style code of an object: reflected borders, no norm, the mean over what five layers see."""

    def __init__(self, *, class_channels: int, style_dim: int = 128, nef: int = 32) -> None:
        super().__init__()
        widths = [w * nef for w in STYLE_WIDTHS]
        first = nn.Conv2d(3 + class_channels, nef, 7, padding=3, padding_mode="reflect", bias=False)
        rest = [
            nn.Conv2d(cin, cout, 4, 2, padding=1, padding_mode="reflect", bias=False) for cin, cout in pairwise(widths)
        ]
        self.layers = nn.ModuleList([first, *rest])
        self.head = nn.Conv2d(widths[-1], style_dim, 1)

    def forward(self, image: Tensor, cls: Tensor) -> Tensor:
        """image (N, 3, S, S), cls (N, K, S, S) -> codes (N, D)."""
        x = torch.cat([image, cls], dim=1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), LEAK)
        return self.head(x.mean((2, 3), keepdim=True)).flatten(1).float()


class StyleUp(nn.Module):
    """SSNM blocks, a residual block that halves the width, and nearest x2.

    Args:
        channels: of the input; blocks: number of SSNM blocks; class_channels: K; style_dim: D.
    """

    def __init__(self, channels: int, *, blocks: int, class_channels: int, style_dim: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(StyleSPADEBlock(channels, class_channels, style_dim) for _ in range(blocks))
        self.narrow = ResnetBlock(channels, channels // 2)

    def forward(self, x: Tensor, cls: Tensor, code: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, cls, code)
        return F.interpolate(self.narrow(x), scale_factor=2, mode="nearest")


class StyleObjectGenerator(nn.Module):
    """Makes an object of a given shape and class in a given style.

    Args:
        class_channels: K.
        ngf: base width, of the style encoders too.
        style_dim: D.
    """

    def __init__(self, *, class_channels: int, ngf: int = 32, style_dim: int = 128) -> None:
        super().__init__()
        self.style_dim = style_dim

        def encoder() -> ObjectStyleEncoder:
            return ObjectStyleEncoder(class_channels=class_channels, style_dim=style_dim, nef=ngf)

        def up(width: int, blocks: int) -> StyleUp:
            return StyleUp(width * ngf, blocks=blocks, class_channels=class_channels, style_dim=style_dim)

        self.encoder = encoder()
        self.content = nn.Sequential(
            ConvNorm(class_channels, ngf, kernel_size=7),
            *(ConvNorm(w * ngf, 2 * w * ngf, stride=2) for w in (1, 2, 4)),
            *(ResnetBlock(8 * ngf) for _ in range(RESIDUAL_BLOCKS)),
        )
        self.styled = nn.ModuleList([up(8, 2), up(4, 2), up(2, 1)])
        self.picture = ToPicture(ngf)
        self.cycle_encoder = encoder()

    def encode(self, image: Tensor, cls: Tensor) -> Tensor:
        """Return the style codes (N, D) of pictures (N, 3, S, S) of objects."""
        return self.encoder(image, cls)

    def cycle(self, image: Tensor, cls: Tensor) -> Tensor:
        """Return the codes (N, D) of made pictures, cut by the object, to be compared with those they were made of."""
        return self.cycle_encoder(image, cls)

    def forward(
        self, cls: Tensor, style_image: Tensor, style_cls: Tensor, *, drawn: Tensor | None = None, cycle: bool = True
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Make objects in the styles of others, as in training.

        Args:
            cls: (N, K, S, S).
            style_image: (N - M, 3, S, S), zero outside its object; style_cls: (N - M, K, S, S).
            drawn: codes (M, D) of the last M objects; None: M is 0.
            cycle: whether to read the codes of what was made.

        Returns:
            Pictures (N, 3, S, S), the codes (N, D) that they were made of, and those read off them (N, D) or None.
        """
        code = self.encode(style_image, style_cls)
        code = code if drawn is None else torch.cat([code, drawn])
        picture = self.render(cls, code)
        return picture, code, self.cycle(picture * cls.sum(1, keepdim=True), cls) if cycle else None

    def render(self, cls: Tensor, code: Tensor) -> Tensor:
        """Return pictures (N, 3, S, S) in (-1, 1), not cut by the object; S a multiple of 8.

        Args:
            cls: (N, K, S, S); code: (N, D).
        """
        x = through(self.content, cls)
        for up in self.styled:
            x = through(up, x, cls, code)
        return self.picture(F.leaky_relu(x, LEAK))
