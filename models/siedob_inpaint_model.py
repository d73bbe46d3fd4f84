"""SIEDOB, object inpainting (CVPR 2023; `instance_inpainting/` of its release): completes partly visible objects."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from models import MODELS
from models.base_siedob import ObjectModel
from models.networks.siedob.object_generators import ObjectInpainter
from util.batch import Batch
from util.opt import Opt


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
        return cls.build(opt, netG, judged=3 + 1 + opt.label_nc, weights={}, is_train=is_train)

    def complete(self, batch: Batch, netG: Any) -> tuple[Tensor, Tensor]:
        """Return the network's own picture and the composite, both (B, 3, S, S)."""
        shape, self.cls = self.object_maps(batch["label"])
        self.mask = batch["mask"] * shape
        seen = batch["image"] * (1 - self.mask) * shape
        raw = netG(seen, shape, self.mask, self.cls)
        return raw, raw * self.mask + seen

    def begin_step(self, batch: Batch) -> None:
        self.real = batch["image"]
        self.raw, self.fake = self.complete(batch, self.call("netG"))

    def judged(self, picture: Tensor) -> Tensor:
        return torch.cat([picture, self.mask, self.cls], 1)

    def losses_D(self) -> dict[str, Tensor]:
        return self.judge("netD", self.judged(self.fake), self.judged(self.real))

    def losses_G(self) -> dict[str, Tensor]:
        """The pictures are compared on the whole crop: outside the object 0 is to be painted."""
        return self.generator_losses(self.judged(self.fake), self.raw, self.real)

    @torch.no_grad()
    def generate(self, batch: Batch, seeds: list[int]) -> Tensor:
        return self.complete(batch, self.netG)[1]
