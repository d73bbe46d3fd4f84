"""SIEDOB, background generator (CVPR 2023; `background/` of its release): fills everything but the objects."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models import MODELS
from models.base_gan import GANTraining
from models.base_model import Phase, Runs
from models.base_siedob import SceneModel, init_scene_networks
from models.networks.blocks.discriminator import SetDiscriminator, num_discriminator_layers
from models.networks.siedob.background_generator import BackgroundGenerator
from models.networks.siedob.boundary import Patch, choose_patches, cut_patches
from util.batch import Batch, on_host
from util.class_table import ClassTable
from util.device import send
from util.flags import fraction
from util.object_rules import ObjectRule
from util.opt import Opt
from util.shared_flags import add_shared


@dataclass(frozen=True)
class BackgroundStep:
    """What the phases of a step share.

    Args:
        real, raw, fake: the picture, the network's own, and the composite, each (B, 3, H, W).
        seg: one-hot labels (B, N, H, W) of the whole picture.
        mask: (B, 1, H, W), what is to be filled; background: (B, 1, H, W), what no object covers.
        host_mask: the mask on the CPU.
        patches: what the patch discriminator judges; patch_weight: 0 where there are none.
    """

    real: Tensor
    raw: Tensor
    fake: Tensor
    seg: Tensor
    mask: Tensor
    background: Tensor
    host_mask: Tensor
    patches: Sequence[Patch] = ()
    patch_weight: float = 0.0


@MODELS.register("siedob_background")
class SIEDOBBackgroundModel(SceneModel):
    """Step 3. Its pictures keep the objects as they are, so alone it is a method only with `--no-separation`.

    Args:
        min_erased: an object counts as one if more than this share of it is erased.
        netP: judges patches on the boundary of the mask; its terms take the weight of "G/patch".
    """

    summary = "SIEDOB (CVPR 2023), step 3: fills the background, objects left out"

    def __init__(
        self,
        *,
        netG: BackgroundGenerator,
        rules: Sequence[ObjectRule],
        label_nc: int,
        ignore_label: int | None = None,
        min_erased: float = 0.4,
        netP: SetDiscriminator | None = None,
        training: GANTraining | None = None,
    ) -> None:
        super().__init__(netG=netG, rules=rules, label_nc=label_nc, ignore_label=ignore_label, training=training)
        self.min_erased, self.netP = min_erased, netP
        if training is not None and netP is not None:
            self.loss_weights |= dict.fromkeys(("P/fake", "P/real"), training.weights["G/patch"])
            self.optimizer_P = torch.optim.Adam(netP.parameters(), lr=training.lr_D, betas=training.betas)

    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        group = cls.add_flags(parser, is_train=is_train, lambda_l1=1.0)
        cls.add_scene_flags(parser, group, is_train=is_train)
        group.add_argument("--saspm", action=argparse.BooleanOptionalAction, default=True,
                           help="propagate styles of the known background by class")  # fmt: skip
        group.add_argument("--min_erased", type=fraction, default=0.4,
                           help="an instance is left out if more than this share of it is erased")  # fmt: skip
        if is_train:
            add_shared(
                group, "lambda_patch", default=0.2, help="weight of the patch discriminator at the mask's border"
            )

    @classmethod
    def complete_options(cls, opt: Opt, *, classes: ClassTable, runs: Runs) -> dict[str, Any]:
        return cls.scene_options(opt, classes)

    @classmethod
    def from_options(cls, opt: Opt, *, is_train: bool) -> SIEDOBBackgroundModel:
        netG = BackgroundGenerator(label_nc=opt.label_nc, ngf=opt.ngf, saspm=opt.saspm, things=cls.thing_ids(opt))
        netP = training = None
        if is_train:
            netP, training = cls.training(opt, netG)
        return cls(
            netG=netG,
            rules=cls.foreground_rules(opt),
            label_nc=opt.label_nc,
            ignore_label=opt.ignore_label,
            min_erased=opt.min_erased,
            netP=netP,
            training=training,
        )

    @classmethod
    def training(cls, opt: Opt, netG: nn.Module) -> tuple[SetDiscriminator, GANTraining]:
        """Return the patch discriminator and the rest of what training needs; all networks are initialised."""
        cls.require_a_loss(opt, ("lambda_gan", "lambda_l1", "lambda_vgg", "lambda_patch"))
        layers = num_discriminator_layers(opt.crop_size)
        netD, netP = (cls.discriminator(3 + opt.label_nc, ndf=opt.ndf, num_layers=layers) for _ in range(2))
        init_scene_networks(netG, netD, netP)
        return netP, GANTraining.from_options(opt, netD, {"G/patch": opt.lambda_patch})

    @classmethod
    def tiny(cls, tmp_path: Path) -> list[str]:
        flags = "--model siedob_background --dataset_mode streets --streets_train_size 8 --streets_test_size 4"
        return [*flags.split(), *"--crop_size 64 --ngf 2 --ndf 4 --lambda_vgg 0 --batch_size 2".split()]

    # --- training --------------------------------------------------------------------------------------------------
    def networks(self) -> dict[str, nn.Module]:
        return super().networks() | ({} if self.netP is None else {"netP": self.netP})

    def phases(self) -> list[Phase]:
        *judges, generator = super().phases()
        if self.weighted("G/patch"):
            judges.append(Phase("P", ("netP",), self.optimizer_P, self.losses_P))
        return [*judges, generator]

    def fill(self, batch: Batch, netG: nn.Module) -> BackgroundStep:
        """Run the network on a batch; objects stay as they are."""
        image = batch["image"]
        objects = self.find(batch, min_erased=self.min_erased)
        free = 1 - objects.union(len(image))
        host_mask = on_host(batch)["mask"] * free
        background, mask = send(free, image.device), send(host_mask, image.device)
        seg, edge = self.scene(batch)
        known = image * (1 - batch["mask"]) * background
        raw = netG(known, seg, edge, mask, background)
        self.counters["objects kept as in the input (no task of the background)"] += len(objects)
        return BackgroundStep(image, raw, raw * mask + image * (1 - mask), seg, mask, background, host_mask)

    def begin_step(self, batch: Batch) -> BackgroundStep:
        filled = self.fill(batch, self.call("netG"))
        if not self.weighted("G/patch"):
            return filled
        patches = choose_patches(filled.host_mask, [random.Random(seed) for seed in batch["draw"]])
        # Processes that train together must all judge a patch: one without any judges a picture with weight 0.
        everything = (0, filled.mask.shape[-1])
        judged = patches or [Patch(0, everything, everything)]
        return replace(filled, patches=judged, patch_weight=float(bool(patches)))

    def patched(self, picture: Tensor, shared: BackgroundStep) -> Tensor:
        """Return what the patch discriminator sees of a picture; it comes before the labels, as released."""
        return cut_patches(torch.cat([picture, shared.seg], 1), shared.patches)

    def losses_D(self, shared: BackgroundStep) -> dict[str, Tensor]:
        return self.judge("netD", *(torch.cat([shared.seg, x], 1) for x in (shared.fake, shared.real)))

    def losses_P(self, shared: BackgroundStep) -> dict[str, Tensor]:
        losses = self.judge("netP", self.patched(shared.fake, shared), self.patched(shared.real, shared))
        return {name: loss * shared.patch_weight for name, loss in losses.items()}

    def losses_G(self, shared: BackgroundStep) -> dict[str, Tensor]:
        judged = torch.cat([shared.seg, shared.fake], 1)
        losses = self.generator_losses(judged, shared.raw, shared.real * shared.background)
        if self.weighted("G/patch"):
            losses["G/patch"] = self.adversarial("netP", self.patched(shared.fake, shared)) * shared.patch_weight
        return losses

    @torch.no_grad()
    def generate(self, batch: Batch, seeds: list[int]) -> Tensor:
        return self.fill(batch, self.netG).fake
