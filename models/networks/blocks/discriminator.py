"""Patch discriminators: one per stage of the cascade (SPMPGAN, Sec. 3.4), or alone (SIEDOB)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.blocks.scales import stage_sizes
from models.networks.blocks.spectral import SpectralConv2d
from models.networks.blocks.spm import LEAK

OUTPUT_CHANNELS = 3


class PatchDiscriminator(nn.Module):
    """5x5 convolutions of stride 2 under spectral norm, each followed by a leaky ReLU, the last one too (as released).

    Args:
        in_channels: labels and picture.
        num_layers: the last one has 3 outputs; the others ndf x (1, 2, 4, 4, ...).
        padding_mode: "replicate" (SPMPGAN) or "zeros" (SIEDOB).
    """

    def __init__(self, in_channels: int, *, ndf: int, num_layers: int, padding_mode: str = "replicate") -> None:
        super().__init__()
        widths = [min(2**i, 4) * ndf for i in range(num_layers - 1)] + [OUTPUT_CHANNELS]
        self.layers = nn.ModuleList(
            SpectralConv2d(cin, cout, 5, stride=2, padding=2, padding_mode=padding_mode, bias=False)
            for cin, cout in zip([in_channels, *widths], widths, strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, s, s) -> the output of every layer; the last one is the scores (B, 3, ...)."""
        return self.after_first(self.layers[0](x))

    def after_first(self, x: Tensor) -> list[Tensor]:
        """Return the output of every layer, given what the first one's convolution yields."""
        outputs = [F.leaky_relu(x, LEAK)]
        for layer in self.layers[1:]:
            outputs.append(F.leaky_relu(layer(outputs[-1]), LEAK))
        return outputs

    def judge(self, seg: Tensor, pictures: list[Tensor]) -> list[list[Tensor]]:
        """Return `forward` of each [seg, picture], one after the other; the labels are convolved once for all.

        They are most of the first layer's channels, and only the spectral norm differs between the passes.
        """
        first = self.layers[0]
        assert isinstance(first, SpectralConv2d)
        of_labels, of_picture = first.weight_orig.split([seg.shape[1], pictures[0].shape[1]], dim=1)
        labels = first.convolve(seg, of_labels)
        outputs = []
        for picture in pictures:
            sigma = first.sigma()
            outputs.append(self.after_first((labels + first.convolve(picture, of_picture)) / sigma))
        return outputs


def num_discriminator_layers(size: int) -> int:
    """Return the depth for pictures of `size` pixels: scores of 4 x 4 where it is a power of two."""
    return max(2, size.bit_length() - 3)


class MultiScaleDiscriminator(nn.Module):
    """Independent patch discriminators of labels and picture, one per stage: at 1/4, 1/2 and 1 of the crop."""

    def __init__(self, *, label_nc: int, crop_size: int, ndf: int, multi_scale: bool = True) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            PatchDiscriminator(label_nc + 3, ndf=ndf, num_layers=num_discriminator_layers(s))
            for s in stage_sizes(crop_size, multi_scale=multi_scale)
        )

    def forward(self, segs: list[Tensor], *pictures: list[Tensor]) -> list[list[list[Tensor]]]:
        """Judge each set of pictures under the same labels.

        Args:
            segs: one-hot labels (B, N, s, s) of each scale, zero outside the mask.
            pictures: sets of pictures, each a list over the scales. Sets are judged one after the other: in training
                each pass makes one power iteration.

        Returns:
            outputs[set][scale][layer]; the last layer's are the scores.
        """
        judged = []
        for net, seg, *ofs in zip(self.scales, segs, *pictures, strict=True):
            assert isinstance(net, PatchDiscriminator)
            judged.append(net.judge(seg, ofs))
        return [list(row) for row in zip(*judged, strict=True)]


class SetDiscriminator(PatchDiscriminator):
    """A patch discriminator that judges several sets of pictures in one call, as shared training needs (`call`)."""

    def forward(self, *sets: Tensor) -> list[list[Tensor]]:  # type: ignore[override]
        """Return the layers' outputs of each set, judged one after the other as in `MultiScaleDiscriminator`."""
        return [super(SetDiscriminator, self).forward(x) for x in sets]
