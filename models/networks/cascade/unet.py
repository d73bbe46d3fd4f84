"""One stage of the cascade: a U-Net of SPM layers at a fixed size (SPMPGAN, Fig. 2; widths in `docs/papers.md`).

The authors fixed 64, 128 and 256 pixels. The rule below gives their three tables at these sizes, and any other stage
size a depth and widths of the same kind.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.networks.blocks.recompute import through
from models.networks.blocks.spm import Modulation, SPMConv, SPMUp
from models.networks.cascade.context import ContextPyramid
from util.errors import UserError

ENCODER_WIDTHS = (1, 2, 4, 4, 8, 8, 16, 16, 32, 32)  # of enc1, enc2, ... in units of ngf
DECODER_WIDTHS_SHALLOW = (1, 1, 2, 4, 8, 16)  # of dec2, dec3, ... up to depth 6
DECODER_WIDTHS_DEEP = (1, 1, 2, 4, 8, 8, 16, 16)


def stage_depth(size: int) -> int:
    """Return the number of stride-2 layers of a stage of `size` pixels: down to 2 pixels where 2 divides so often."""
    twos = (size & -size).bit_length() - 1
    return min(size.bit_length() - 2, twos)


def stage_widths(size: int) -> tuple[list[int], list[int]]:
    """Return the widths of enc1.. and of dec2.., in units of ngf."""
    depth = stage_depth(size)
    decoder = DECODER_WIDTHS_SHALLOW if depth <= 6 else DECODER_WIDTHS_DEEP
    if depth + 2 > len(ENCODER_WIDTHS) or depth > len(decoder):
        raise UserError(
            f"--crop_size: a stage of {size} pixels would need {depth} stride-2 layers; 8 at most are defined"
        )
    return list(ENCODER_WIDTHS[: depth + 2]), list(decoder[:depth])


class SPMUNet(nn.Module):
    """A stage: enc1..enc(d+2) down to the bottleneck, dec(d+1)..dec2 up again, dec1 to RGB.

    Args:
        size: pixels of its input, square.
        label_channels: N + 1, one-hot classes and the edge map (N without edges).
        style_dim: width of the style codes in the decoders' context; 0 for none.
    """

    def __init__(self, *, size: int, label_channels: int, ngf: int, modulation: Modulation, style_dim: int) -> None:
        super().__init__()
        self.size, self.depth = size, stage_depth(size)
        enc, dec = ([w * ngf for w in widths] for widths in stage_widths(size))
        enc_ctx = label_channels + 1
        for i, (cin, cout) in enumerate(zip([3, *enc], enc, strict=False), start=1):
            stride = 2 if 1 < i < len(enc) else 1
            layer = SPMConv(cin, cout, ctx_channels=enc_ctx, modulation=modulation, stride=stride)
            self.add_module(f"enc{i}", layer)
        x_channels = enc[-1]
        for j in range(self.depth + 1, 1, -1):
            skip = enc[j - 2] if j > 2 else 0  # e_(j-1); enc1 and the layer before the bottleneck are never skips
            layer_up = SPMUp(x_channels + skip, dec[j - 2], ctx_channels=style_dim + enc_ctx, modulation=modulation)
            self.add_module(f"dec{j}", layer_up)
            x_channels = dec[j - 2]
        self.dec1 = nn.Conv2d(x_channels, 3, 3, padding=1, padding_mode="replicate", bias=False)

    def forward(self, x: Tensor, ctx: ContextPyramid) -> Tensor:
        """x (B, 3, size, size) -> picture (B, 3, size, size) in (-1, 1)."""
        size, skips = self.size, {}
        for i in range(1, self.depth + 3):
            size = size // 2 if 1 < i < self.depth + 2 else size
            x = through(self.get_submodule(f"enc{i}"), x, ctx.encoder(size))
            skips[i] = x
        for j in range(self.depth + 1, 1, -1):
            size *= 2
            layer, skip = self.get_submodule(f"dec{j}"), skips[j - 1] if j > 2 else None
            x = through(layer, x, skip, ctx.decoder(size))
        return torch.tanh(self.dec1(x).float())  # bf16 would leave half a grey level near white
