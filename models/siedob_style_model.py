"""SIEDOB, generator of fully erased objects in diverse styles (CVPR 2023; `instance_style/` of its release)."""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from models import MODELS
from models.base_bank import BANK_SETTINGS, BankedModel, BankSettings, without
from models.base_gan import GANTraining
from models.base_siedob import ObjectModel
from models.losses.style import code_spread, style_consistency
from models.networks.siedob.object_generators import StyleObjectGenerator
from models.style_sources import NoiseSource
from util.batch import Batch, CompactBatch
from util.device import send
from util.flags import weight
from util.opt import Opt
from util.shared_flags import add_shared


@dataclass(frozen=True)
class StyleStep:
    """What the phases of a step share: each object twice, first in its own style, then in a strange one.

    Args:
        real, raw: the objects and the network's pictures of them, (2B, 3, S, S).
        cls: class maps (2B, K, S, S); shape: of the objects, (2B, 1, S, S).
        code: the styles (2B, D); cycle: the same, read from the results; None where they need not agree.
    """

    real: Tensor
    raw: Tensor
    cls: Tensor
    shape: Tensor
    code: Tensor
    cycle: Tensor | None

    def judged(self, picture: Tensor) -> Tensor:
        """Return what the discriminator sees of a picture."""
        return torch.cat([picture, self.cls], 1)


@MODELS.register("siedob_style")
class SIEDOBStyleModel(ObjectModel, BankedModel):
    """Step 2. Shape and class are given, the style is drawn from the codes of training objects of that class.

    Args:
        scc_target: "detached" or "released", see the flag.
        style_source: of the strange style in training: "bank", another object of the class; "noise", N(0, 1).
    """

    summary = "SIEDOB (CVPR 2023), step 2: makes whole objects in styles of a bank"
    formerly = {**ObjectModel.formerly, "scc_target": "released", "style_source": "bank"}
    own_styles = False  # objects are made anew, as the paper's FID of objects has it

    def __init__(
        self, *, netG: StyleObjectGenerator, label_nc: int, training: GANTraining | None = None,
        bank: BankSettings = BANK_SETTINGS, scc_target: str = "detached", style_source: str = "bank",
    ) -> None:  # fmt: skip
        super().__init__(netG=netG, label_nc=label_nc, training=training)
        self.style_dim, self.bank_settings, self.scc_target = netG.style_dim, bank, scc_target
        self.noise = NoiseSource(netG.style_dim) if style_source == "noise" else None
        self.loss_weights |= {"codes/cosine": 0.0, "codes/first_component": 0.0}  # are logged

    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        group = cls.add_flags(parser, is_train=is_train, lambda_l1=10.0)
        add_shared(group, "style_dim")
        cls.add_bank_flags(group)
        if is_train:
            group.add_argument("--lambda_scc", type=weight, default=1.0, help="weight of the style consistency loss")
            group.add_argument(
                "--scc_target", choices=("detached", "released"), default="detached",
                help="detached: the codes that pictures were made of are its fixed target; released: it trains their "
                "encoder too, which lets all codes fall onto one ray",
            )  # fmt: skip
            add_shared(
                group, "style_source", choices=("bank", "noise"),
                help="an object's second style: that of another of its class, as those of the bank are, or N(0, 1)",
            )  # fmt: skip

    @classmethod
    def from_options(cls, opt: Opt, *, is_train: bool) -> SIEDOBStyleModel:
        netG = StyleObjectGenerator(class_channels=opt.label_nc, ngf=opt.ngf, style_dim=opt.style_dim)
        bank = BankSettings.from_options(opt)
        if not is_train:
            return cls(netG=netG, label_nc=opt.label_nc, bank=bank)
        if not opt.lambda_scc:
            netG.cycle_encoder.requires_grad_(False)  # no loss reaches it; DDP would wait for its gradients
        training = cls.training(opt, judged=3 + opt.label_nc, weights={"G/scc": opt.lambda_scc})
        chosen = {"scc_target": opt.scc_target, "style_source": opt.style_source}
        return cls(netG=netG, label_nc=opt.label_nc, training=training, bank=bank, **chosen)

    # --- training --------------------------------------------------------------------------------------------------
    def begin_step(self, batch: Batch) -> StyleStep:
        shape, cls = self.object_maps(batch["label"])
        both_cls, real = torch.cat([cls, cls]), torch.cat([batch["image"], batch["image"]])
        styles, style_cls, drawn = batch["image"], cls, None
        if self.noise is not None:
            codes = [self.noise.draw(0, random.Random(seed)) for seed in batch["draw"]]
            drawn = send(torch.stack(codes), styles.device)
        else:
            partner = batch["style_image"], self.object_maps(batch["style_label"])[1]  # type: ignore[typeddict-item]
            styles, style_cls = torch.cat([styles, partner[0]]), torch.cat([cls, partner[1]])
        raw, code, cycle = self.call("netG")(both_cls, styles, style_cls, drawn=drawn, cycle=self.weighted("G/scc"))
        return StyleStep(real, raw, both_cls, torch.cat([shape, shape]), code, cycle)

    def losses_D(self, shared: StyleStep) -> dict[str, Tensor]:
        return self.judge("netD", shared.judged(shared.raw * shared.shape), shared.judged(shared.real))

    def losses_G(self, shared: StyleStep) -> dict[str, Tensor]:
        """L1 compares the objects in their own style alone; the perceptual loss all, as released."""
        raw, real = shared.raw, shared.real
        count = len(real) // 2
        losses = self.generator_losses(shared.judged(raw * shared.shape), raw, real[:count])
        if shared.cycle is not None:
            # Differs from SIEDOB's release, unless asked for: the two encoders agree most easily on codes of one ray
            target = shared.code if self.scc_target == "released" else shared.code.detach()
            losses["G/scc"] = style_consistency(target, shared.cycle)
        encoded = shared.code if self.noise is None else shared.code[:count]
        losses["codes/cosine"], losses["codes/first_component"] = code_spread(encoded)
        return losses

    # --- inference -------------------------------------------------------------------------------------------------
    def composite(self, batch: Batch, codes: Tensor) -> Tensor:
        shape, cls = self.object_maps(batch["label"])
        mask = batch["mask"] * shape
        return self.netG.render(cls, codes) * mask + batch["image"] * (1 - mask)

    def choose_styles(self, source: str) -> None:
        """As the base, and "own": the code of the object that is erased."""
        self.own_styles = source == "own"
        if not self.own_styles:
            super().choose_styles(source)

    @torch.no_grad()
    def generate(self, batch: Batch, seeds: list[int]) -> Tensor:
        """Each object takes one code of its class from the bank, drawn from the picture's seed, or its own."""
        if self.own_styles:
            return self.preview(batch)
        labels = batch["label"].flatten(1).amin(1).tolist()  # "outside" is the highest
        codes = [self.draw_code(label, random.Random(seed)) for label, seed in zip(labels, seeds, strict=True)]
        return self.composite(batch, torch.stack(codes).to(batch["image"].device))

    @torch.no_grad()
    def preview(self, batch: Batch) -> Tensor:
        """Each object in its own style."""
        return self.composite(batch, self.netG.encode(batch["image"], self.object_maps(batch["label"])[1]))

    def instance_codes(self, batch: Batch) -> Tensor:
        codes = self.netG.encode(batch["image"], self.object_maps(batch["label"])[1])
        return codes[:, None].expand(-1, batch["inst_id"].shape[1], -1)

    def codes_of_class(self, batch: CompactBatch) -> Tensor:
        return without(batch["inst_class"], self.label_nc - 1)
