"""DivSem: Diverse Semantic Image Editing with Style Codes (arXiv 2309.13975)."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from models import MODELS
from models.base_bank import BANK_SETTINGS, BankedModel, BankSettings, without
from models.base_cascade_gan import CascadeGAN
from models.base_gan import GANTraining
from models.networks.blocks.segments import Segments
from models.networks.cascade.entry import HOLE_ENTRIES
from models.networks.cascade.mask_aware import MaskAwareEncoder, StylePolicy
from models.networks.cascade.stages import CascadeGenerator, CascadeInputs
from models.networks.cascade.style_encoder import StyleEncoder
from util.batch import PAD, Batch, CompactBatch
from util.flags import positive_int
from util.opt import Opt
from util.shared_flags import add_shared


@MODELS.register("divsem")
class DivSemModel(CascadeGAN, BankedModel):
    """SPMPGAN with style codes: diverse where an instance is fully erased, faithful where some of it is visible."""

    summary = "DivSem (2023): mask-aware style encoder and style codes on SPMPGAN's cascade"
    formerly = {**CascadeGAN.formerly, "ratio_input": "visible"}
    hole_entries = HOLE_ENTRIES

    def __init__(
        self, *, netG: CascadeGenerator, label_nc: int, ignore_label: int | None = None,
        training: GANTraining | None = None, bank: BankSettings = BANK_SETTINGS,
    ) -> None:  # fmt: skip
        super().__init__(netG=netG, label_nc=label_nc, ignore_label=ignore_label, training=training)
        self.bank_settings = bank

    @property
    def encoder(self) -> MaskAwareEncoder | None:
        """The network that reads styles; None without `--style_encoding`."""
        return self.netG.style_encoder

    @property
    def style_dim(self) -> int:  # type: ignore[override]
        """Width of a style code."""
        return self.netG.style_dim

    @property
    def draws_codes(self) -> bool:
        """Whether fully erased instances take codes from `bank`; False in the ablations without a second source."""
        return self.encoder is not None and self.encoder.policy.dual_encoding

    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        super().modify_commandline_options(parser, is_train=is_train)
        group = parser.add_argument_group(f"model {cls.own_name()}: style")
        add_shared(group, "style_dim")
        group.add_argument("--nef", type=positive_int, default=16, help="base width of the style encoder")
        group.add_argument(
            "--style_pool", choices=("valid", "all"), default="valid",
            help="pixels of an instance that its code is the mean of: the visible ones (paper) or all (release)",
        )  # fmt: skip
        switch: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": True}
        group.add_argument("--style_encoding", **switch, help="style codes; off: SPMPGAN")
        group.add_argument("--valid_ratio", **switch, help="scale and shift a code by functions of its visible share")
        group.add_argument(
            "--ratio_input", choices=("visible", "one"), default="visible",
            help="what these functions get: the visible share, or always 1, which keeps them but not the ratio",
        )  # fmt: skip
        group.add_argument(
            "--dual_encoding", **switch,
            help="erased instances take a code of the unerased picture or the bank; off: of the masked one, ratio 0",
        )  # fmt: skip
        BankedModel.add_bank_flags(group)

    @classmethod
    def from_options(cls, opt: Opt, *, is_train: bool) -> Self:
        netG, training = cls.generator(opt), cls.training(opt) if is_train else None
        bank = BankSettings.from_options(opt)
        return cls(netG=netG, label_nc=opt.label_nc, ignore_label=opt.ignore_label, training=training, bank=bank)

    @classmethod
    def style_encoder(cls, opt: Opt) -> MaskAwareEncoder | None:
        if not opt.style_encoding:
            return None
        policy = StylePolicy(
            pool=opt.style_pool, valid_ratio=opt.valid_ratio, ratio_input=opt.ratio_input,
            dual_encoding=opt.dual_encoding,
        )  # fmt: skip
        return cls.encoder_layers(opt, policy)

    @classmethod
    def encoder_layers(cls, opt: Opt, policy: StylePolicy) -> MaskAwareEncoder:
        """Return the encoder; a method with other layers overrides this alone."""
        return StyleEncoder(style_dim=opt.style_dim, nef=opt.nef, policy=policy)

    @classmethod
    def tiny(cls, tmp_path: Path) -> list[str]:
        flags = "--dataset_mode streets --streets_train_size 8 --streets_test_size 4 --crop_size 64"
        widths = "--ngf 4 --ndf 4 --spm_hidden 8 --style_dim 8 --nef 2 --lambda_vgg 0 --batch_size 2"
        return ["--model", cls.own_name(), *flags.split(), *widths.split()]

    def generator_inputs(self, batch: Batch) -> CascadeInputs:
        """As the base, with the instances, whose codes come from the picture itself, as in training."""
        hidden = any(batch["hidden"]) if "hidden" in batch else None
        count = batch["inst_id"].shape[1]
        return super().generator_inputs(batch)._replace(inst=batch["inst"], inst_count=count, hidden=hidden)

    @torch.no_grad()
    def generate(self, batch: Batch, seeds: list[int]) -> Tensor:
        """As the base; the codes of fully erased instances are drawn from the bank, in ascending order of ids."""
        codes = self.draw_codes(batch, seeds) if self.draws_codes else None
        return self.netG(*self.generator_inputs(batch)._replace(bank_codes=codes)).composite[-1]

    @torch.no_grad()
    def preview(self, batch: Batch) -> Tensor:
        """As in training: fully erased instances too take the codes that they have in the picture."""
        return self.netG(*self.generator_inputs(batch)).composite[-1]

    def draw_codes(self, batch: Batch, seeds: list[int]) -> Tensor:
        """Return codes (B, I, D), set for the fully erased instances, each picture's drawn from its own seed."""
        assert self.encoder is not None
        inst_id, labels = batch["inst_id"], batch["inst_class"].tolist()
        visible = Segments(batch["inst"], inst_id.shape[1]).mean(1 - batch["mask"])[..., 0]
        erased = ((visible == 0) & (inst_id != PAD)).tolist()
        codes = torch.zeros(*inst_id.shape, self.encoder.style_dim)
        for b, seed in enumerate(seeds):
            rng = random.Random(seed)
            for i, is_erased in enumerate(erased[b]):
                if is_erased:
                    codes[b, i] = self.draw_code(labels[b][i], rng)
        return codes.to(batch["image"].device)

    def instance_codes(self, batch: Batch) -> Tensor:
        assert self.encoder is not None
        return self.encoder.raw_codes(batch["image"], batch["inst"], batch["inst_id"].shape[1])

    def codes_of_class(self, batch: CompactBatch) -> Tensor:
        return without(batch["inst_class"], self.ignore_label)
