"""What the adversarial methods share: flags of training, losses' weights, networks and optimisers, phases."""

from __future__ import annotations

import argparse
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.base_model import BaseModel, Phase
from models.losses.diffaug import DiffAugment
from models.losses.perceptual import PerceptualLoss
from util.errors import UserError
from util.flags import fraction, positive, weight
from util.opt import Opt
from util.shared_flags import add_shared


@dataclass(frozen=True)
class GANTraining:
    """What training adds to a generator.

    Args:
        netD: the discriminator.
        weights: of the generator's terms, "G/gan" among them; the discriminator's terms take that one.
        perceptual: None: no VGG term.
        lr_G, lr_D, betas: of Adam.
        features: the network whose features the discriminator judges, where a method has that; None: it judges pixels.
        r1_every: steps between those with the term "D/r1", where a method has it.
        augment: of what the discriminator sees, where a method has it; None: nothing is changed.
        compared: "raw" or "composite", where L1 and the perceptual loss of a method have the choice.
    """

    netD: nn.Module
    weights: Mapping[str, float]
    perceptual: PerceptualLoss | None = None
    lr_G: float = 1e-4
    lr_D: float = 4e-4
    betas: tuple[float, float] = (0.5, 0.999)
    features: PerceptualLoss | None = None
    r1_every: int = 1
    augment: DiffAugment | None = None
    compared: str = "raw"

    @classmethod
    def from_options(
        cls, opt: Opt, netD: nn.Module, further: Mapping[str, float] | None = None,
        features: PerceptualLoss | None = None,
    ) -> GANTraining:  # fmt: skip
        """Return what the flags of `GANModel.add_training_flags` say; `further`: weights of other terms."""
        weights = {"G/gan": opt.lambda_gan, "G/l1": opt.lambda_l1, "G/vgg": opt.lambda_vgg, **(further or {})}
        perceptual = (features or perceptual_network(opt)) if opt.lambda_vgg else None
        betas = (opt.beta1, opt.beta2)
        return cls(netD, weights, perceptual, lr_G=opt.lr_G, lr_D=opt.lr_D, betas=betas, features=features)


def perceptual_network(opt: Opt, *, without: str = "--lambda_vgg 0") -> PerceptualLoss:
    """Return the frozen network that `--perceptual` and its flags name; `without`: flags that need none."""
    return PerceptualLoss(
        arch=opt.perceptual, weights=opt.vgg_weights, order=opt.perceptual_order, input_scale=opt.perceptual_input,
        without=without,
    )  # fmt: skip


class GANModel(BaseModel):
    """A generator against one discriminator. One step: the discriminator's update, then the generator's.

    Args:
        netG: the generator; None in runs without one.
        training: None for inference only.
    """

    def __init__(self, *, netG: nn.Module | None, training: GANTraining | None = None) -> None:
        super().__init__()
        self.netG: Any = netG
        self.netD: Any = None
        self.perceptual: PerceptualLoss | None = None
        self.features: PerceptualLoss | None = None
        if training is None:
            return
        assert netG is not None
        self.netD, self.perceptual, self.features = training.netD, training.perceptual, training.features
        gan = training.weights["G/gan"]
        self.loss_weights = {**training.weights, "D/fake": gan, "D/real": gan}
        self.optimizer_D = torch.optim.Adam(training.netD.parameters(), lr=training.lr_D, betas=training.betas)
        self.optimizer_G = torch.optim.Adam(netG.parameters(), lr=training.lr_G, betas=training.betas)

    # --- options ---------------------------------------------------------------------------------------------------
    @staticmethod
    def add_training_flags(group: argparse._ArgumentGroup, *, lr_G: float, lr_D: float, lambda_l1: float) -> None:
        """Add the flags of discriminator, optimisers and losses; the values are defaults."""
        add_shared(group, "ndf")
        group.add_argument("--lr_G", type=positive, default=lr_G, help="Adam's rate of the generator")
        group.add_argument("--lr_D", type=positive, default=lr_D, help="Adam's rate of the discriminators")
        group.add_argument("--beta1", type=fraction, default=0.5, help="Adam's first moment")
        group.add_argument("--beta2", type=fraction, default=0.999, help="Adam's second moment")
        add_shared(group, "lambda_gan")
        group.add_argument("--lambda_l1", type=weight, default=lambda_l1, help="weight of the L1 loss")
        add_shared(group, "lambda_vgg", "perceptual", "vgg_weights")
        group.add_argument("--perceptual_order", choices=("rgb", "bgr"), default="rgb", help="bgr: as released")
        group.add_argument(
            "--perceptual_input", choices=("released", "imagenet"), default="released",
            help="released: [-1,1] as it is; imagenet: with ImageNet's mean and deviation",
        )  # fmt: skip

    @staticmethod
    def require_a_loss(opt: Opt, names: Sequence[str]) -> None:
        """Raise `UserError` if all of these weights are zero."""
        if not any(getattr(opt, name) for name in names):
            flags = [f"--{name}" for name in names]
            raise UserError(f"{', '.join(flags[:-1])} and {flags[-1]} are all 0: nothing to learn from")

    # --- training --------------------------------------------------------------------------------------------------
    def networks(self) -> dict[str, nn.Module]:
        """The generator, and the discriminator where there is one."""
        return {"netG": self.netG} if self.netD is None else {"netG": self.netG, "netD": self.netD}

    def to(self, device: torch.device) -> BaseModel:
        """Move all networks, the frozen ones included."""
        for net in (self.perceptual, self.features):
            if net is not None:
                net.to(device)
                self.arrange(net, device)
        return super().to(device)

    def compiled_parts(self) -> list[nn.Module]:
        """As the base, and the frozen network of the perceptual loss."""
        return [*super().compiled_parts(), *([self.perceptual] if self.perceptual is not None else [])]

    def phases(self) -> list[Phase]:
        """Discriminator, then generator; the first is left out where `G/gan` has no weight."""
        phase_D = Phase("D", ("netD",), self.optimizer_D, self.losses_D)
        phase_G = Phase("G", ("netG",), self.optimizer_G, self.losses_G)
        return [phase_D, phase_G] if self.weighted("G/gan") else [phase_G]

    @abstractmethod
    def losses_D(self, shared: Any) -> dict[str, Tensor]:
        """The discriminator's losses, unweighted, from what `begin_step` returned."""

    @abstractmethod
    def losses_G(self, shared: Any) -> dict[str, Tensor]:
        """The generator's losses, unweighted, from what `begin_step` returned."""
