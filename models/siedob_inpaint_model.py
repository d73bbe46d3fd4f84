"""SIEDOB, object inpainting (CVPR 2023; `instance_inpainting/` of its release): completes partly visible objects."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models import MODELS
from models.base_siedob import ObjectModel
from models.networks.siedob.object_generators import ObjectInpainter
from util.batch import Batch
from util.opt import Opt


@dataclass(frozen=True)
class InpaintStep:
    """What the phases of a step share.

    Args:
        real, raw, fake: the crop, the network's own picture, and the composite, each (B, 3, S, S).
        mask: (B, 1, S, S), what is erased of the object; cls: its class map (B, K, S, S).
    """

    real: Tensor
    raw: Tensor
    fake: Tensor
    mask: Tensor
    cls: Tensor

    def judged(self, picture: Tensor) -> Tensor:
        """Return what the discriminator sees of a picture."""
        return torch.cat([picture, self.mask, self.cls], 1)


@MODELS.register("siedob_inpaint")
class SIEDOBInpaintModel(ObjectModel):
    """Step 1. Trained on crops of single objects; deterministic."""

    summary = "SIEDOB (CVPR 2023), step 1: completes partly visible objects"
    default_ngf = 64

    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        cls.add_flags(parser, is_train=is_train, lambda_l1=10.0)

    @classmethod
    def from_options(cls, opt: Opt, *, is_train: bool) -> SIEDOBInpaintModel:
        netG = ObjectInpainter(class_channels=opt.label_nc, ngf=opt.ngf)
        training = cls.training(opt, judged=3 + 1 + opt.label_nc, weights={}) if is_train else None
        return cls(netG=netG, label_nc=opt.label_nc, training=training)

    def complete(self, batch: Batch, netG: nn.Module) -> InpaintStep:
        """Run the network on a batch."""
        shape, cls = self.object_maps(batch["label"])
        mask = batch["mask"] * shape
        seen = batch["image"] * (1 - mask) * shape
        raw = netG(seen, shape, mask, cls)
        return InpaintStep(batch["image"], raw, raw * mask + seen, mask, cls)

    def begin_step(self, batch: Batch) -> InpaintStep:
        return self.complete(batch, self.call("netG"))

    def losses_D(self, shared: InpaintStep) -> dict[str, Tensor]:
        return self.judge("netD", shared.judged(shared.fake), shared.judged(shared.real))

    def losses_G(self, shared: InpaintStep) -> dict[str, Tensor]:
        """The pictures are compared on the whole crop: outside the object the target is 0."""
        return self.generator_losses(shared.judged(shared.fake), shared.raw, shared.real)

    @torch.no_grad()
    def generate(self, batch: Batch, seeds: list[int]) -> Tensor:
        return self.complete(batch, self.netG).fake
