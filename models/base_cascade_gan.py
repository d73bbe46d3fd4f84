"""What SPMPGAN and DivSem share: flags, losses, the two phases (SPMPGAN, Sec. 3.4; `trainer.py` of its release)."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base_gan import GANModel, GANTraining, perceptual_network
from models.losses.diffaug import POLICIES, DiffAugment, Draw
from models.losses.gan import feature_matching, gradient_penalty, hinge_fake, hinge_generator, hinge_real
from models.networks.blocks.discriminator import MultiScaleDiscriminator
from models.networks.blocks.init import init_normal
from models.networks.blocks.projected import ProjectedDiscriminator
from models.networks.blocks.scales import resize_nearest
from models.networks.blocks.spm import Modulation
from models.networks.cascade.entry import HOLE_ENTRIES
from models.networks.cascade.mask_aware import MaskAwareEncoder
from models.networks.cascade.stages import Cascade, CascadeGenerator, CascadeInputs
from util.batch import Batch, one_hot
from util.errors import UserError
from util.flags import positive_int, weight
from util.opt import Opt
from util.shared_flags import add_shared

PerScale = dict[str, list[Tensor]]
FIRST_TAP = 1  # of the perceptual network's five that `ProjectedDiscriminator` judges: four depths, as projected GANs


@dataclass(frozen=True)
class CascadeStep:
    """What the phases of a step share: the generator's pass, and what the discriminators see.

    segs: the masked labels at the size of each stage, moved by the draws. draws: how pictures are changed; None: not.
    """

    out: Cascade
    segs: list[Tensor]
    draws: list[Draw] | None = None

    def seen(self, pictures: list[Tensor]) -> list[Tensor]:
        """Return pictures, coarse to fine, as the discriminators see them."""
        if self.draws is None:
            return pictures
        return [DiffAugment.change(picture, self.draws, pictures[0].shape[-1]) for picture in pictures]


class CascadeGAN(GANModel):
    """A cascade generator against three patch discriminators.

    One step: the generator runs once; the discriminators learn from its detached composites; then the generator learns
    against the updated discriminators on the same forward pass.

    Args:
        label_nc, ignore_label: as in the data set.
        training: with a `MultiScaleDiscriminator`, or a `ProjectedDiscriminator` and its `features`; and weights of
            "G/gan", "G/l1", "G/vgg", "G/feat", "D/r1".
    """

    channels_last = True
    formerly = {
        **GANModel.formerly, "hole_entry": "grey", "discriminator": "patch", "r1_gamma": 0.0, "r1_every": 16,
        "diffaug": None, "compared": "raw",
    }  # fmt: skip
    hole_entries: ClassVar[tuple[str, ...]] = HOLE_ENTRIES[:2]  # "instance" asks for style codes

    def __init__(
        self, *, netG: CascadeGenerator, label_nc: int, ignore_label: int | None = None,
        training: GANTraining | None = None,
    ) -> None:  # fmt: skip
        super().__init__(netG=netG, training=training)
        self.label_nc, self.ignore_label = label_nc, ignore_label
        self.loss_weights.setdefault("D/r1", 0.0)
        self.r1_every, self.augment = (training.r1_every, training.augment) if training else (0, None)
        self.compared = training.compared if training else "raw"

    # --- options ---------------------------------------------------------------------------------------------------
    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        """Add the flags of the generator, the discriminators and the losses."""
        group = parser.add_argument_group(f"model {cls.own_name()}")
        add_shared(group, "ngf")
        group.add_argument("--spm_hidden", type=positive_int, default=64, help="hidden width of the modulation layers")
        switch: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": True}
        group.add_argument("--multi_scale", **switch, help="three stages; off: the last one alone")
        group.add_argument("--edge_input", **switch, help="instance edges beside the labels")
        group.add_argument("--modulation", choices=("spm", "spade"), default="spm", help="spade: by the labels alone")
        group.add_argument("--raw_modulation", **switch, help="modulate by features as they are; off: normalised")
        group.add_argument("--hole_entry", choices=cls.hole_entries, default="grey",
                           help="the erased part as the first stage sees it: mid-grey, or as bright as the visible "
                           f"pixels of the {' or the '.join(cls.hole_entries[1:])}")  # fmt: skip
        if not is_train:
            return
        CascadeGAN.add_training_flags(group, lr_G=1e-4, lr_D=4e-4, lambda_l1=1.0)
        add_shared(group, "lambda_feat")
        group.add_argument("--compared", choices=("raw", "composite"), default="raw", help="what L1 and the "
                           "perceptual loss see: all that is made, or the known pixels as they are")  # fmt: skip
        group.add_argument("--discriminator", choices=("patch", "projected"), default="patch",
                           help="judges of pixels, or of frozen features, those of --perceptual")  # fmt: skip
        group.add_argument("--r1_gamma", type=weight, default=0.0,
                           help="weight of R1, the squared gradient of the scores of real pictures")  # fmt: skip
        group.add_argument("--r1_every", type=positive_int, default=16, metavar="N",
                           help="steps between those with R1, which then counts N times")  # fmt: skip
        group.add_argument("--diffaug", metavar="POLICY,...",
                           help="change what the discriminators see, labels moved alike; some of "
                           f"{', '.join(POLICIES)}")  # fmt: skip

    @classmethod
    def from_options(cls, opt: Opt, *, is_train: bool) -> Self:
        """Build the generator and what training adds."""
        netG, training = cls.generator(opt), cls.training(opt) if is_train else None
        return cls(netG=netG, label_nc=opt.label_nc, ignore_label=opt.ignore_label, training=training)

    @classmethod
    def generator(cls, opt: Opt) -> CascadeGenerator:
        """Return the generator, with the style encoder if there is one, initialised."""
        encoder = cls.style_encoder(opt)
        if opt.hole_entry == "instance" and encoder is None:
            raise UserError("--hole_entry instance needs the style encoding: without it, take --hole_entry picture")
        netG = CascadeGenerator(
            style_encoder=encoder, label_nc=opt.label_nc, crop_size=opt.crop_size, ngf=opt.ngf,
            modulation=Modulation(hidden=opt.spm_hidden, kind=opt.modulation, raw=opt.raw_modulation),
            multi_scale=opt.multi_scale, edge_input=opt.edge_input, hole_entry=opt.hole_entry,
        )  # fmt: skip
        init_normal(netG)
        return netG

    @classmethod
    def style_encoder(cls, opt: Opt) -> MaskAwareEncoder | None:
        """Return the network that reads styles; None: without styles."""
        return None

    @staticmethod
    def training(opt: Opt) -> GANTraining:
        """Return discriminators, losses' weights and optimisers from options."""
        if opt.lambda_feat and not opt.lambda_gan:
            raise UserError("--lambda_feat compares features of the discriminators, which --lambda_gan 0 leaves out")
        if opt.discriminator == "projected" and not opt.lambda_gan:
            raise UserError("--discriminator projected: --lambda_gan 0 leaves the discriminators out; leave one out")
        CascadeGAN.require_a_loss(opt, ("lambda_gan", "lambda_l1", "lambda_vgg"))
        sizes: dict[str, Any] = {name: getattr(opt, name) for name in ("label_nc", "crop_size", "ndf", "multi_scale")}
        netD: nn.Module
        if opt.discriminator == "projected":
            features = perceptual_network(opt, without="--discriminator patch --lambda_vgg 0")
            netD = ProjectedDiscriminator(channels=features.widths[FIRST_TAP:], **sizes)
        else:
            features, netD = None, MultiScaleDiscriminator(**sizes)
        init_normal(netD)
        weights = {"G/feat": opt.lambda_feat, "D/r1": opt.r1_gamma * opt.r1_every}
        augment = DiffAugment(opt.diffaug.split(",")) if opt.diffaug else None
        training = GANTraining.from_options(opt, netD, weights, features)
        return replace(training, r1_every=opt.r1_every, augment=augment, compared=opt.compared)

    # --- training --------------------------------------------------------------------------------------------------
    def compiled_parts(self) -> list[nn.Module]:
        """As the base, but R1 differentiates the discriminators twice, which `torch.compile` cannot."""
        return [net for net in super().compiled_parts() if net is not self.netD or not self.weighted("D/r1")]

    def begin_step(self, batch: Batch) -> CascadeStep:
        """Generate once for all phases."""
        inputs = self.generator_inputs(batch)
        out = self.call("netG")(*inputs)
        segs = [resize_nearest(inputs.seg, picture.shape[-1]) for picture in out.real]
        if self.augment is None:
            return CascadeStep(out, segs)
        side = segs[0].shape[-1]
        draws = self.augment.draw(len(inputs.mask), side)
        return CascadeStep(out, [self.augment.move(seg, draws, side) for seg in segs], draws)

    def losses_D(self, shared: CascadeStep) -> dict[str, Tensor]:
        """Return the discriminators' losses, summed over the scales."""
        return {name: torch.stack(terms).sum() for name, terms in self.per_scale_D(shared).items()}

    def losses_G(self, shared: CascadeStep) -> dict[str, Tensor]:
        """Return the generator's losses, summed over the scales."""
        return {name: torch.stack(terms).sum() for name, terms in self.per_scale_G(shared).items()}

    def judged(self, pictures: list[Tensor]) -> list[Any]:
        """Return what the discriminators judge of pictures, coarse to fine: these, or their frozen features."""
        return pictures if self.features is None else [self.features.taps(x)[FIRST_TAP:] for x in pictures]

    def per_scale_D(self, shared: CascadeStep) -> PerScale:
        """The discriminators' losses, coarse to fine; R1 in every so-manieth step."""
        fakes, reals = ([x.detach() for x in shared.seen(xs)] for xs in (shared.out.composite, shared.out.real))
        penalised = self.weighted("D/r1") and (self.step + 1) % self.r1_every == 0  # so that logged steps have it
        if penalised:
            reals = [real.requires_grad_() for real in reals]
        on_fake, on_real = self.call("netD")(shared.segs, *map(self.judged, (fakes, reals)))
        losses = {"D/fake": [hinge_fake(o[-1]) for o in on_fake], "D/real": [hinge_real(o[-1]) for o in on_real]}
        if penalised:
            losses["D/r1"] = [gradient_penalty(o[-1], real) for o, real in zip(on_real, reals, strict=True)]
        return losses

    def per_scale_G(self, shared: CascadeStep) -> PerScale:
        """The generator's losses, coarse to fine: adversarial on the composite, the others on what is compared."""
        losses: PerScale = {}
        out = shared.out
        pairs = list(zip(out.fake if self.compared == "raw" else out.composite, out.real, strict=True))
        if self.weighted("G/gan"):
            assert self.netD is not None
            matching = self.weighted("G/feat")
            seen = [shared.seen(pictures) for pictures in (out.composite, out.real)[: 1 + matching]]
            on_fake, *on_real = self.netD(shared.segs, *map(self.judged, seen))
            losses["G/gan"] = [hinge_generator(o[-1]) for o in on_fake]
            if matching:
                terms = [feature_matching(a, b) for a, b in zip(on_fake, on_real[0], strict=True)]
                losses["G/feat"] = [term / len(terms) for term in terms]
        if self.weighted("G/l1"):
            losses["G/l1"] = [F.l1_loss(fake, real) for fake, real in pairs]
        if self.perceptual is not None:
            losses["G/vgg"] = [self.perceptual(fake, real) for fake, real in pairs]
        return losses

    # --- inference -------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def generate(self, batch: Batch, seeds: list[int]) -> Tensor:
        """Return the finest composite (B, 3, H, W); without style codes, `seeds` have no influence."""
        return self.netG(*self.generator_inputs(batch)).composite[-1]

    # --- shared machinery ------------------------------------------------------------------------------------------
    def generator_inputs(self, batch: Batch) -> CascadeInputs:
        """Return what the generator is called with: labels and edges are zero outside the mask, as released."""
        seg, mask = one_hot(batch["label"], self.label_nc, self.ignore_label), batch["mask"]
        return CascadeInputs(batch["image"], seg * mask, batch["edge"] * mask, mask)
