"""What methods with style codes share: a bank of codes per class in the run's folder, and draws from it."""

from __future__ import annotations

import argparse
import random
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from models.base_model import BaseModel, TrainingPictures
from models.style_bank import BankBuilder, StyleBank
from models.style_sources import MeanSource, NoiseSource, StyleSource
from util.batch import PAD, Batch, CompactBatch, take, to_device
from util.errors import UserError
from util.flags import positive_int
from util.opt import Opt
from util.progress import progress

BANK_FILE = "style_bank.safetensors"


@dataclass(frozen=True)
class BankSettings:
    """How a bank is gathered: codes kept per class, training pictures read at most, and the seed of the choice."""

    size: int = 100
    pictures: int | None = None
    seed: int = 0

    @classmethod
    def from_options(cls, opt: Opt) -> Self:
        """Read the flags of `BankedModel.add_bank_flags`."""
        return cls(size=opt.style_bank_size, pictures=opt.style_bank_pictures, seed=opt.style_bank_seed)


BANK_SETTINGS = BankSettings()


class BankedModel(BaseModel):
    """A method whose styles are drawn from codes of training pictures (DivSem, Sec. 3.3; SIEDOB's style bank).

    Attributes:
        style_dim: width of a code.
        bank_settings: how its bank is gathered; a method's constructor takes them.
        bank: where codes are drawn from; None before `prepare_inference`, or where none could be made.
        mean_code: of the whole bank, for classes without a code.
        bank_error: the error to raise when a code is drawn without a bank.
    """

    style_dim: int = 0
    bank_settings = BANK_SETTINGS
    bank: StyleSource | None = None
    mean_code: Tensor | None = None
    bank_error = UserError("a style code is drawn before prepare_inference() was called")

    @staticmethod
    def add_bank_flags(group: argparse._ArgumentGroup) -> None:
        """Add the flags of `BankSettings`."""
        group.add_argument("--style_bank_seed", type=int, default=0, help="seed of the choice of codes")
        group.add_argument("--style_bank_size", type=positive_int, default=100, help="codes kept per class")
        group.add_argument("--style_bank_pictures", type=positive_int, metavar="N",
                           help="read only N training pictures, always the same; default: the whole split")  # fmt: skip

    @property
    def draws_codes(self) -> bool:
        """Whether generation takes codes from `bank`; False in some ablations."""
        return True

    @abstractmethod
    def instance_codes(self, batch: Batch) -> Tensor:
        """Return the codes (B, I, D) of the instances of whole pictures, on the networks' device."""

    def codes_of_class(self, batch: CompactBatch) -> Tensor:
        """Return the class (B, I) under which each instance's code is kept, -1 for none."""
        return batch["inst_class"]

    def prepare_inference(
        self, run_dir: Path, training_pictures: TrainingPictures, *, weights: str, refresh: bool = False
    ) -> None:
        """Load the run's style bank, or gather it from the training split and store it.

        If neither is possible, the error is raised when a code is drawn, since some pictures need none.
        """
        if not self.draws_codes:
            return
        path = run_dir / BANK_FILE
        if path.is_file() and not refresh:
            bank = StyleBank.load(path, style_dim=self.style_dim)
            if bank.weights == weights:
                self.use_bank(bank)
                return
            print(f"{path} was made with other weights ({bank.weights or 'unknown'}, now {weights}): making it again")
        try:
            pictures = training_pictures(self.bank_settings.pictures)
            shown = progress(pictures, desc="gathering style codes", unit="batch", leave=False)
            bank = self.gather_bank(shown, weights=weights)
        except UserError as error:
            self.bank_error = UserError(
                f"{run_dir} has no style bank for these weights, and none can be made: {error}. Give --dataroot with a "
                "training split (or convert the authors' --style_codes with the weights)."
            )
            return
        bank.save(path)
        self.use_bank(bank)

    def use_bank(self, bank: StyleBank) -> None:
        """Draw from this bank."""
        self.bank, self.mean_code = bank, bank.mean

    def draw_code(self, label: int, rng: random.Random) -> Tensor:
        """Return a code (D,) of a class, the mean code where the bank has none; both are counted.

        Raises:
            UserError: there is no bank.
        """
        if self.bank is None or self.mean_code is None:
            raise self.bank_error
        drawn = self.bank.draw(label, rng)
        self.counters["instances drawn from the bank"] += 1
        self.counters["instances whose class has no code (mean code used)"] += drawn is None
        return self.mean_code if drawn is None else drawn

    def choose_styles(self, source: str) -> None:
        """Choose "bank", "mean" (of the class in the bank) or "noise" (a standard normal code).

        Raises:
            UserError: "own", which only a method that sees whole objects can read.
        """
        if source == "own":
            raise UserError(
                "--style_source own: this method does not see what is erased; it is for siedob_style, whose objects "
                "are made anew in their own styles"
            )
        if source == "mean" and isinstance(self.bank, StyleBank):
            self.bank = MeanSource(self.bank)
        elif source == "noise":
            self.bank, self.mean_code = NoiseSource(self.style_dim), torch.zeros(self.style_dim)
        else:
            super().choose_styles(source)

    def has_style(self, label: int) -> bool:
        """Whether instances of a class have style codes at all."""
        return True

    @torch.no_grad()
    def gather_bank(self, pictures: Iterable[CompactBatch], *, weights: str) -> StyleBank:
        """Collect the codes of whole pictures' instances by class; instances without a class are left out.

        Only pictures that hold a code still wanted are encoded: common classes are soon full, rare ones take all.
        """
        builder = BankBuilder(cap=self.bank_settings.size, seed=self.bank_settings.seed)
        device = self.device
        self.eval()
        for batch in pictures:
            rows = builder.wanted(batch["inst_id"], self.codes_of_class(batch), batch["name"])
            if rows:
                wanted = take(batch, rows)
                codes = self.instance_codes(to_device(wanted, device))
                builder.add(codes, wanted["inst_id"], self.codes_of_class(wanted), wanted["name"])
        return builder.bank(weights=weights)


def without(labels: Tensor, ignored: int | None) -> Tensor:
    """Return class ids with one of them replaced by -1."""
    return labels if ignored is None else torch.where(labels == ignored, PAD, labels)
