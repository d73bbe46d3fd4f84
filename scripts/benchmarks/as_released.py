"""SPMPGAN and DivSem with every layer computed as in their release: the plain form of `infer` and `train`.

The context is a map that each layer resizes for itself. Each head of the modulation is a convolution of its own. Maps
are enlarged before they are convolved, with channels first. Styles are read in two passes, of the masked picture and
of the whole one, and averaged and painted in a loop over instances. Discriminators convolve labels and picture
together, and gradients are autograd's own. The values are those of our form, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base_cascade_gan import CascadeGAN
from models.losses import perceptual
from models.networks.blocks import enlarge, spectral, spm
from models.networks.blocks.discriminator import PatchDiscriminator
from models.networks.cascade import mask_aware, stages
from models.networks.cascade.context import ContextPyramid


@contextmanager
def as_released(model: CascadeGAN) -> Iterator[None]:
    """Context in which a model's layers, and its losses, compute as in the release."""
    for net in model.networks().values():
        net.to(memory_format=torch.contiguous_format)
    if model.perceptual is not None:
        model.perceptual.to(memory_format=torch.contiguous_format)
    with ExitStack() as stack:
        for where, name, form in (
            (stages, "build_context", full_context),
            (spm, "joined_conv", each_conv),
            (enlarge, "LEAST", float("inf")),
            (mask_aware, "Segments", LoopedSegments),
            (mask_aware.MaskAwareEncoder, "forward", two_passes(mask_aware.MaskAwareEncoder.forward)),
            (PatchDiscriminator, "judge", judge_joined),
            (spectral.DividedBySigma, "apply", divided_by_sigma),
            (perceptual, "mean_distance", F.l1_loss),
        ):
            stack.enter_context(patch.object(where, name, form))
        yield


class FullContext(ContextPyramid):
    """The context at full size, resized anew at every call."""

    def decoder(self, size: int) -> Tensor:
        """As the base."""
        return F.interpolate(self.ctx, size=(size, size), mode="nearest")

    def encoder(self, size: int) -> Tensor:
        """As the base."""
        return F.interpolate(self.ctx.detach()[:, self.style_dim :], size=(size, size), mode="nearest")


def full_context(
    seg: Tensor, edge: Tensor | None, mask: Tensor, codes: Tensor | None, inst: Tensor | None
) -> FullContext:
    """As `build_context`."""
    parts = [seg, mask] if edge is None else [seg, edge, mask]
    if codes is None or inst is None:
        return FullContext(torch.cat(parts, dim=1), style_dim=0)
    return FullContext(torch.cat([plain_paint(codes, inst), *parts], dim=1), style_dim=codes.shape[2])


def each_conv(x: Tensor, convs: list[nn.Conv2d], *, plus: Sequence[float] = ()) -> tuple[Tensor, ...]:
    """As `joined_conv`."""
    outputs = [conv(x) for conv in convs]
    return tuple(y + number if number else y for y, number in zip(outputs, plus or [0] * len(convs), strict=True))


def plain_means(x: Tensor, inst: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    """As `Segments.mean`, in a loop over instances; weights are 0 or 1."""
    out = x.new_zeros(x.shape[0], count, x.shape[1])
    for b in range(x.shape[0]):
        for i in range(count):
            keep = inst[b] == i
            if weight is not None:
                keep = keep & (weight[b, 0] > 0)
            if keep.any():
                out[b, i] = x[b][:, keep].mean(1)
    return out


def plain_paint(codes: Tensor, inst: Tensor) -> Tensor:
    """As `Segments.paint`, in such a loop."""
    out = codes.new_zeros(codes.shape[0], codes.shape[2], *inst.shape[1:])
    for b in range(len(codes)):
        for i in range(codes.shape[1]):
            here = (inst[b] == i).nonzero(as_tuple=True)
            out[b][:, here[0], here[1]] = codes[b, i][:, None]
    return out


class LoopedSegments:
    """As `Segments`, instance by instance."""

    def __init__(self, inst: Tensor, count: int) -> None:
        self.inst, self.count = inst, count
        self.pixels = torch.stack([(inst == i).flatten(1).sum(1) for i in range(count)], dim=1)

    def mean(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """As there; weights are 0 or 1."""
        return plain_means(x, self.inst, self.count, weight)


def two_passes(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a style encoder's forward pass that reads the whole picture even where no instance needs it."""

    def both(self: mask_aware.MaskAwareEncoder, image: Tensor, *args: object) -> Tensor:
        with patch.object(self, "pixel_codes", wraps=self.pixel_codes) as passes:
            codes = forward(self, image, *args)
            if passes.call_count == 1:
                self.pixel_codes(image, torch.ones_like(image[:, :1]))
        return codes

    return both


def judge_joined(self: PatchDiscriminator, seg: Tensor, pictures: list[Tensor]) -> list[list[Tensor]]:
    """As `PatchDiscriminator.judge`."""
    return [self(torch.cat([seg, picture], dim=1)) for picture in pictures]


def divided_by_sigma(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """As `DividedBySigma`."""
    return weight / torch.dot(u, torch.mv(weight.flatten(1), v))
