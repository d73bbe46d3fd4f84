"""SemIA: Semantic Image Analogy with a Conditional Single-Image GAN (ACM MM 2020, doi 10.1145/3394171.3413601).

Trained on one picture and its layout. A step is either a reconstruction (every fifth: the augmented pair onto itself)
or a sampling (original and augmented pair, in random roles): one update of the discriminator, in reconstructions one
of the segmentation network, ten of the generator, one more of the discriminator.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import MODELS
from models.base_model import BaseModel, Phase
from models.losses.patch import PatchBank, PatchFeatures, PatchLoss
from models.losses.perceptual import PerceptualLoss
from models.losses.semia import base_rate, fixed_point, least_squares, matching
from models.networks.semia.discriminator import PyramidDiscriminator
from models.networks.semia.generator import Rendering, SemIAGenerator, init_semia, input_noise
from models.networks.semia.segmenter import LayoutSegmenter
from models.semia_flags import LAMBDAS, add_flags
from util.batch import Batch, on_host
from util.errors import UserError
from util.images import save_png
from util.opt import Opt
from util.single_image import SingleImageBatch, picture_row, picture_strip

NETWORK_INPUTS = ("image", "seg", "target_image", "target_seg")
COLOUR_CHANNELS = 3  # of a layout that is a picture; a map of ids has one per class


@dataclass(frozen=True)
class Side:
    """A picture with its layout, as network input and as classes."""

    image: Tensor
    seg: Tensor
    label: Tensor


@dataclass(frozen=True)
class SemIAStep:
    """What the updates of a step share: its mode and the roles of the two sides.

    Args:
        source, target: the source is rendered for the target's layout.
        reconstructs: the two are the same.
        banks: the source's patches, in samplings with a patch loss.
        real: the target picture's features by the discriminator as it is, once the generator's first update after the
            discriminator's has made them.
    """

    source: Side
    target: Side
    reconstructs: bool
    banks: Sequence[PatchBank] = ()
    real: list[Tensor] = field(default_factory=list)


@MODELS.register("semia")
class SemIAModel(BaseModel):
    """A single picture's method, see the module.

    Args:
        netG, netD, netS: generator, discriminator, segmentation network; the last two for training.
        patch: patch coherence loss; perceptual: to the source picture. None: without.
        alignment: "paper" trains the generator by the segmentation network's reading of its result; the released loss
            has no gradient, so "released" leaves it out.
        rec_every: steps between reconstructions.
        g_steps: updates of the generator in a step.
        weights: of the losses.
        lr, stable_steps, decay_steps: base rate and its schedule (`base_rate`); the generator and the segmentation
            network learn at half of it (the latter without decay), the discriminator at twice.
        noise: add the input noise.
    """

    summary = "SemIA (2020): trained on one picture and its layout, renders it for any other layout"
    flow = "analogy"
    channels_last = True
    dataset_modes = ("single_image",)

    def __init__(
        self, *, netG: SemIAGenerator, netD: PyramidDiscriminator | None = None, netS: LayoutSegmenter | None = None,
        patch: PatchLoss | None = None, perceptual: PerceptualLoss | None = None, alignment: str = "paper",
        rec_every: int = 5, g_steps: int = 10, weights: Mapping[str, float] | None = None,
        lr: float = 0.01, stable_steps: int = 1000, decay_steps: int = 1500, noise: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.netG, self.netD, self.netS = netG, netD, netS
        self.patch, self.perceptual, self.alignment = patch, perceptual, alignment
        self.rec_every, self.g_steps, self.noise = rec_every, g_steps, noise
        self.rate = {"lr": lr, "stable_steps": stable_steps, "decay_steps": decay_steps}
        if netD is None or netS is None:
            return
        given = {"gan": 1.0, "rec": 5.0, "fixed": 1.0, "patch": 1.0, "feat": 1.0, "align": 1.0, "vgg": 0.0}
        given |= weights or {}
        self.loss_weights = {f"G/{name}": value for name, value in given.items() if name != "fixed"}
        self.loss_weights |= {"G/alpha": given["fixed"], "G/beta": given["fixed"]}
        self.loss_weights |= {"D/real": given["gan"], "D/fake": given["gan"]}
        adam: Callable[..., torch.optim.Adam] = torch.optim.Adam
        self.optimizer_G = adam(netG.parameters(), lr=lr / 2, betas=(0.0, 0.9))
        self.optimizer_D = adam(netD.parameters(), lr=lr * 2, betas=(0.0, 0.9))
        self.optimizer_S = adam(netS.parameters(), lr=lr / 2, betas=(0.0, 0.9))

    # --- options ---------------------------------------------------------------------------------------------------
    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        add_flags(parser, is_train=is_train)

    @classmethod
    def from_options(cls, opt: Opt, *, is_train: bool) -> SemIAModel:
        if opt.batch_size != 1:
            raise UserError(f"--batch_size {opt.batch_size}: semia works on one picture; leave the flag out")
        if is_train and opt.accumulate != 1:
            raise UserError(f"--accumulate {opt.accumulate}: semia works on one picture; leave the flag out")
        seg_nc = COLOUR_CHANNELS if opt.label_kind == "colours" else opt.label_nc
        netG = SemIAGenerator(seg_nc=seg_nc, ngf=opt.ngf, ratio_limit=opt.ratio_limit)
        netS = LayoutSegmenter(seg_nc=seg_nc, width=opt.nsf)
        init_semia(netG)
        init_semia(netS)
        if not is_train:
            return cls(netG=netG, netS=netS)
        netD = PyramidDiscriminator(ndf=opt.ndf)
        init_semia(netD)
        network: dict[str, Any] = {"arch": opt.perceptual, "weights": opt.vgg_weights}
        patch = None
        if opt.lambda_patch:
            patch = PatchLoss(features=PatchFeatures(**network), semantic=opt.patch_loss == "semantic")
        return cls(
            netG=netG,
            netD=netD,
            netS=netS,
            patch=patch,
            perceptual=PerceptualLoss(**network) if opt.lambda_vgg else None,
            alignment=opt.semantic_alignment,
            rec_every=opt.rec_every,
            g_steps=opt.g_steps,
            weights={name: getattr(opt, f"lambda_{name}") for name in LAMBDAS},
            lr=opt.lr,
            stable_steps=opt.stable_steps,
            decay_steps=opt.decay_steps,
        )

    @classmethod
    def tiny(cls, tmp_path: Path) -> list[str]:
        """See the base; the picture is two fields of noise, its layout and two targets halves and a disc."""
        folder, rng = tmp_path / "analogy", np.random.RandomState(0)
        rows, columns = np.mgrid[0:40, 0:48]
        layouts = {
            "label": rows > 20,
            "cond/higher": rows > 12,
            "cond/disc": (rows - 20) ** 2 + (columns - 24) ** 2 < 90,
        }
        colours = np.array([(0, 253, 255), (0, 249, 0)], np.uint8)
        for name, inside in layouts.items():
            save_png(colours[inside.astype(int)], folder / f"{name}.png")
        noise = rng.randint(-20, 20, (40, 48, 3))
        means = np.where((rows > 20)[..., None], (60, 130, 40), (120, 170, 220))
        save_png((means + noise).astype(np.uint8), folder / "img.png")
        flags = "--model semia --dataset_mode single_image --ngf 4 --ndf 4 --nsf 8 --g_steps 2 --rec_every 2"
        return [*flags.split(), "--stable_steps", "2", "--lambda_patch", "0", "--dataroot", str(folder)]

    # --- training --------------------------------------------------------------------------------------------------
    def networks(self) -> dict[str, nn.Module]:
        nets: dict[str, nn.Module | None] = {"netG": self.netG, "netD": self.netD, "netS": self.netS}
        return {name: net for name, net in nets.items() if net is not None}

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """See the base; converted weights have no segmentation network, and generation needs none."""
        if self.netD is None and "netS" not in state:
            self.netS = None
        super().load_state(state)

    def to(self, device: torch.device) -> BaseModel:
        for loss in (self.patch, self.perceptual):
            if loss is not None:
                loss.to(device)
        return super().to(device)

    def arrange(self, net: nn.Module, device: torch.device) -> None:
        """Weights stay as they are: only the pictures are laid out otherwise, see `laid_out`."""

    def distribute(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        raise UserError("--model semia trains on one picture: start train.py without torchrun")

    def phases(self) -> list[Phase]:
        D = Phase("D", ("netD",), self.optimizer_D, self.losses_D)
        S = Phase("S", ("netS",), self.optimizer_S, self.losses_S, every=self.rec_every)
        G = Phase("G", ("netG",), self.optimizer_G, self.losses_G, repeat=self.g_steps)
        return [D, S, G, D] if self.weighted("G/gan") or self.weighted("G/feat") else [S, G]

    def begin_step(self, batch: Batch) -> SemIAStep:
        """Choose mode and roles, and set the step's learning rates."""
        pair = self.laid_out(cast(SingleImageBatch, batch))
        rate = base_rate(self.step, **self.rate)  # type: ignore[arg-type]
        for optimizer, factor in ((self.optimizer_G, 0.5), (self.optimizer_D, 2.0)):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        # On the CPU, where they decide which patches are compared: asking a GPU for each would be a wait each
        host = cast(SingleImageBatch, on_host(batch))
        labels = [host[name][0] for name in ("label", "target_label")]
        source = Side(pair["image"], pair["seg"], labels[0])
        target = Side(pair["target_image"], pair["target_seg"], labels[1])
        if self.step % self.rec_every == 0:
            return SemIAStep(target, target, reconstructs=True)
        if torch.rand(()) < 0.5:
            source, target = target, source
        banks = () if self.patch is None else self.patch.banks(source.image, source.label)
        return SemIAStep(source, target, reconstructs=False, banks=banks)

    def laid_out(self, pair: SingleImageBatch) -> SingleImageBatch:
        """Return the batch in the order that all maps inherit; channels last is a seventh faster on a CPU."""
        if not self.is_channels_last(pair["image"].device):
            return pair
        kept = {name: pair[name] for name in pair if name not in NETWORK_INPUTS}  # type: ignore[literal-required]
        moved = {name: pair[name].contiguous(memory_format=torch.channels_last) for name in NETWORK_INPUTS}  # type: ignore[literal-required]
        return cast(SingleImageBatch, kept | moved)

    def render(self, shared: SemIAStep) -> Rendering:
        """Render the source for the target's layout, with fresh input noise."""
        source = shared.source
        image = input_noise(source.image) if self.noise else source.image
        out: Rendering = self.netG(image, source.seg, shared.target.seg)
        return out

    def discriminate(self, real: Tensor, fake: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Return scores and features of the target picture and of a result, from one pass."""
        assert self.netD is not None
        scores, features = self.netD(torch.cat([real, fake]))
        on_real, on_fake = ([x[k : k + 1] for x in scores] for k in range(2))
        return on_real, on_fake, [x[:1] for x in features], [x[1:] for x in features]

    def losses_D(self, shared: SemIAStep) -> dict[str, Tensor]:
        shared.real.clear()
        with torch.no_grad():
            fake = self.render(shared).image
        on_real, on_fake, _, _ = self.discriminate(shared.target.image, fake)
        return {"D/real": least_squares(on_real, 1.0), "D/fake": least_squares(on_fake, 0.0)}

    def losses_S(self, shared: SemIAStep) -> dict[str, Tensor]:
        assert self.netS is not None
        return {"S/l1": F.l1_loss(self.netS(shared.source.image), shared.source.seg)}

    def losses_G(self, shared: SemIAStep) -> dict[str, Tensor]:
        source, target, out = shared.source, shared.target, self.render(shared)
        losses: dict[str, Tensor] = {}
        if self.weighted("G/gan") or self.weighted("G/feat"):
            if shared.real:
                # Only spectral norms have changed since, and the instance norms cancel a convolution's scale
                assert self.netD is not None
                on_fake, fake = self.netD(out.image)
            else:
                _, on_fake, real, fake = self.discriminate(target.image, out.image)
                shared.real.extend(feature.detach() for feature in real)
            losses |= {"G/gan": least_squares(on_fake, 1.0), "G/feat": matching(fake, shared.real)}
        if shared.reconstructs:
            losses["G/rec"] = F.l1_loss(out.image, target.image)
            losses |= {"G/alpha": fixed_point(out.alpha, 1.0), "G/beta": fixed_point(out.beta, 0.0)}
        else:
            if self.patch is not None:
                losses["G/patch"] = self.patch(out.image, shared.banks, target.label)
            if self.alignment == "paper":
                losses["G/align"] = self.misalignment(out.image, target.seg)
        if self.perceptual is not None:
            losses["G/vgg"] = self.perceptual(out.image, source.image)
        return {name: loss for name, loss in losses.items() if self.weighted(name)}

    def misalignment(self, fake: Tensor, layout: Tensor) -> Tensor:
        """Return the L1 distance between a layout and the segmentation network's reading of a result.

        Differs from SemIA's release: it computes this without a gradient.
        """
        assert self.netS is not None
        read = self.netS.judge if self.netS.training else self.netS
        return F.l1_loss(read(fake), layout)

    # --- inference -------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def generate(self, batch: Batch, seeds: list[int]) -> Tensor:
        """Return the source rendered for the target layout (1, 3, H, W); deterministic, so `seeds` are not used."""
        pair = cast(SingleImageBatch, batch)
        image: Tensor = self.netG(pair["image"], pair["seg"], pair["target_seg"]).image
        return image

    def preview_grid(self, batch: Batch, palette: np.ndarray) -> np.ndarray:
        """Return the strip source, its layout, target layout, result."""
        return picture_strip([picture_row(cast(SingleImageBatch, batch), self.preview(batch))])
