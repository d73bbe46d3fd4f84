"""DivSem: Diverse Semantic Image Editing with Style Codes (arXiv 2309.13975)."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models import MODELS
from models.base_cascade_gan import CascadeGAN
from models.networks.cascade import Cascade, CascadeGenerator
from models.networks.init import init_normal
from models.networks.segments import Segments
from models.networks.style_bank import BankBuilder, StyleBank
from models.networks.style_encoder import StyleEncoder
from models.networks.style_generator import StyleCodeGenerator
from models.networks.style_sources import MeanSource, StyleSource
from util.batch import PAD, Batch, to_device
from util.errors import UserError
from util.flags import positive_int

BANK_FILE = "style_bank.safetensors"


@MODELS.register("divsem")
class DivSemModel(CascadeGAN):
    """SPMPGAN with style codes: diverse where an instance is fully erased, faithful where some of it is visible.

    Args:
        bank_size: codes kept per class; bank_pictures: training pictures read for it; bank_seed: of their choice.
    """

    summary = "DivSem (2023): mask-aware style encoder and style codes on SPMPGAN's cascade"

    def __init__(self, *, bank_size: int = 100, bank_pictures: int = 500, bank_seed: int = 0, **gan: Any) -> None:
        super().__init__(**gan)
        self.bank_size, self.bank_pictures, self.bank_seed = bank_size, bank_pictures, bank_seed
        self.encoder = self.netG.style_encoder if isinstance(self.netG, StyleCodeGenerator) else None
        self.bank: StyleSource | None = None
        self.mean_code: Tensor | None = None
        self.bank_error = UserError("a style code is drawn before prepare_inference() was called")

    @property
    def draws_codes(self) -> bool:
        """Whether fully erased instances take codes from `bank`; not so in the ablations without a second source."""
        return self.encoder is not None and self.encoder.dual_encoding

    @staticmethod
    def modify_commandline_options(parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        CascadeGAN.add_flags(parser, "model divsem", is_train=is_train)
        group = parser.add_argument_group("model divsem: style")
        group.add_argument("--style_dim", type=positive_int, default=128, help="width of a style code")
        group.add_argument("--nef", type=positive_int, default=16, help="base width of the style encoder")
        group.add_argument(
            "--style_pool", choices=("valid", "all"), default="valid",
            help="pixels of an instance that its code is the mean of: the visible ones (paper) or all (release)",
        )  # fmt: skip
        switch: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": True}
        group.add_argument("--style_encoding", **switch, help="style codes; off: SPMPGAN")
        group.add_argument("--valid_ratio", **switch, help="scale and shift a code by its visible share")
        group.add_argument(
            "--dual_encoding", **switch,
            help="erased instances take a code of the unerased picture or the bank; off: of the masked one, ratio 0",
        )  # fmt: skip
        group.add_argument("--style_bank_seed", type=int, default=0, help="of the choice of codes")
        group.add_argument("--style_bank_size", type=positive_int, default=100, help="codes kept per class")
        group.add_argument(
            "--style_bank_pictures", type=positive_int, default=500, help="training pictures read for the bank"
        )

    @classmethod
    def from_options(cls, opt: Any, *, is_train: bool) -> DivSemModel:
        cascade = cls.generator_arguments(opt)
        if opt.style_encoding:
            style_encoder = StyleEncoder(
                style_dim=opt.style_dim,
                nef=opt.nef,
                style_pool=opt.style_pool,
                valid_ratio=opt.valid_ratio,
                dual_encoding=opt.dual_encoding,
            )
            netG: CascadeGenerator = StyleCodeGenerator(style_encoder=style_encoder, **cascade)
        else:
            netG = CascadeGenerator(**cascade)
        init_normal(netG)
        training = cls.training_arguments(opt, is_train=is_train)
        return cls(
            netG=netG,
            label_nc=opt.label_nc,
            ignore_label=opt.ignore_label,
            bank_size=opt.style_bank_size,
            bank_pictures=opt.style_bank_pictures,
            bank_seed=opt.style_bank_seed,
            **training,
        )

    @classmethod
    def tiny(cls, tmp_path: Path) -> list[str]:
        flags = "--model divsem --dataset_mode streets --streets_train_size 8 --streets_test_size 4 --crop_size 64"
        widths = "--ngf 4 --ndf 4 --spm_hidden 8 --style_dim 8 --nef 2 --lambda_vgg 0 --batch_size 2"
        return [*flags.split(), *widths.split()]

    def run_generator(self, batch: Batch, netG: nn.Module, bank_codes: Tensor | None = None) -> Cascade:
        if self.encoder is None:
            return super().run_generator(batch, netG)
        self.seg, edge = self.conditions(batch)
        count = batch["inst_id"].shape[1]
        return netG(batch["image"], self.seg, edge, batch["mask"], batch["inst"], count, bank_codes)

    @torch.no_grad()
    def generate(self, batch: Batch, seeds: list[int]) -> Tensor:
        """As the base; the codes of fully erased instances are drawn from the bank, in ascending order of ids."""
        codes = self.draw_codes(batch, seeds) if self.draws_codes else None
        return self.run_generator(batch, self.netG, codes).composite[-1]

    @torch.no_grad()
    def preview(self, batch: Batch) -> Tensor:
        """As in training: the codes of fully erased instances come from the picture itself."""
        return self.run_generator(batch, self.netG).composite[-1]

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
                    if self.bank is None or self.mean_code is None:
                        raise self.bank_error
                    drawn = self.bank.draw(labels[b][i], rng)
                    codes[b, i] = self.mean_code if drawn is None else drawn
                    self.counters["instances drawn from the bank"] += 1
                    self.counters["instances whose class has no code (mean code used)"] += drawn is None
        return codes.to(batch["image"].device)

    def prepare_inference(
        self,
        run_dir: Path,
        training_pictures: Callable[[int], Iterable[Batch]],
        *,
        weights: str,
        refresh: bool = False,
    ) -> None:
        """Load the run's style bank, or gather it from the training split and store it.

        Where it can be neither, the error comes when a code is drawn: a picture without erased instances needs none.
        """
        if not self.draws_codes:
            return
        path = run_dir / BANK_FILE
        if path.is_file() and not refresh:
            bank = StyleBank.load(path, style_dim=self.netG.style_dim)
            if bank.weights == weights:
                self.bank, self.mean_code = bank, bank.mean
                return
            print(f"{path} was made with other weights ({bank.weights or 'unknown'}, now {weights}): making it again")
        try:
            bank = self.gather_bank(training_pictures(self.bank_pictures), weights=weights)
        except UserError as error:
            self.bank_error = UserError(
                f"{run_dir} has no style bank for these weights, and none can be made: {error}. Give --dataroot with a "
                "training split (or convert the authors' --style_codes with the weights)."
            )
            return
        bank.save(path)
        self.bank, self.mean_code = bank, bank.mean

    def choose_styles(self, source: str) -> None:
        if source == "mean" and isinstance(self.bank, StyleBank):
            self.bank = MeanSource(self.bank)
        else:
            super().choose_styles(source)

    @torch.no_grad()
    def gather_bank(self, pictures: Iterable[Batch], *, weights: str) -> StyleBank:
        """Collect raw codes of whole pictures' instances by class; what is labelled as no class has no code."""
        assert self.encoder is not None
        builder = BankBuilder(cap=self.bank_size, seed=self.bank_seed)
        device = next(self.netG.parameters()).device
        self.netG.eval()
        for batch in pictures:
            moved = to_device(batch, device)
            codes = self.encoder.raw_codes(moved["image"], moved["inst"], batch["inst_id"].shape[1])
            labels = batch["inst_class"]
            if self.ignore_label is not None:
                labels = torch.where(labels == self.ignore_label, PAD, labels)
            builder.add(codes, batch["inst_id"], labels, batch["name"])
        return builder.bank(weights=weights)
