"""SIEDOB, the whole system (CVPR 2023; `fusion/` of its release): background, objects, and the network joining them."""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import MODELS
from models.base_bank import BankedModel
from models.base_gan import GANTraining
from models.base_model import BaseModel, Phase, Runs
from models.base_siedob import SceneModel, init_scene_networks, whole
from models.networks.blocks.discriminator import num_discriminator_layers
from models.networks.siedob.background_generator import BackgroundGenerator
from models.networks.siedob.crops import Objects, find_objects
from models.networks.siedob.fusion_generator import FusionGenerator
from models.networks.siedob.object_generators import ObjectInpainter, StyleObjectGenerator
from models.siedob_runs import STEPS, add_run_flags, bank_of_run, is_new, options_of_runs
from models.style_bank import CodeStore, StyleBank
from util.batch import Batch, on_host
from util.class_table import ClassTable
from util.device import send
from util.errors import UserError
from util.object_rules import ObjectRule
from util.opt import Opt

CROP_SIZE = 64  # of objects, unless the runs differ


@dataclass(frozen=True)
class FusionStep:
    """What the phases of a step share: picture, fusion network's own, and composite, each (B, 3, H, W)."""

    real: Tensor
    raw: Tensor
    fake: Tensor


@MODELS.register("siedob_fusion")
class SIEDOBFusionModel(SceneModel, BankedModel):
    """Step 4: composes a picture from three trained, frozen networks, and learns to harmonise it.

    An object with a visible pixel is completed, one without is made in a style of the bank; an instance that the
    rules reject is background. The three networks and the bank are part of this run's checkpoints.

    Args:
        netG: the fusion network; None composes only (ablation).
        netB: the background generator.
        netI, netO: the networks of partly and of fully erased objects; None where nothing is an object.
        object_size: S, pixels of a crop.
        overlap: see `Objects.paste`.
        gaps: "background" leaves pixels of an object that its pasted shape misses to netB; "released": they are 0.
        frozen_train: power-iterate the frozen networks' spectral norms in training, as the release does.
    """

    summary = "SIEDOB (CVPR 2023), step 4: the whole system, from runs of the other three"
    input_runs = tuple(STEPS)
    formerly = {**SceneModel.formerly, "object_gaps": "released"}

    def __init__(
        self, *, netG: FusionGenerator | None, netB: BackgroundGenerator, netI: ObjectInpainter | None,
        netO: StyleObjectGenerator | None, rules: Sequence[ObjectRule], label_nc: int, ignore_label: int | None = None,
        object_size: int = CROP_SIZE, overlap: str = "overwrite", gaps: str = "background",
        frozen_train: bool = False, training: GANTraining | None = None,
    ) -> None:  # fmt: skip
        super().__init__(netG=netG, rules=rules, label_nc=label_nc, ignore_label=ignore_label, training=training)
        self.netB, self.netI, self.netO = netB, netI, netO
        self.object_size, self.overlap, self.gaps, self.frozen_train = object_size, overlap, gaps, frozen_train
        self.styles = CodeStore() if netO is not None else None
        self.style_dim = netO.style_dim if netO is not None else 0
        for net in self.frozen_networks().values():
            net.requires_grad_(False).eval()

    # --- options ---------------------------------------------------------------------------------------------------
    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        group = cls.add_flags(parser, is_train=is_train, lambda_l1=0.0)
        cls.add_scene_flags(parser, group, is_train=is_train)
        switch: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        group.add_argument("--fusion", **switch, default=True, help="off: the composed picture as it is")
        group.add_argument(
            "--object_overlap", choices=("overwrite", "sum"), default="overwrite",
            help="where objects overlap: the later one is seen, or those of two classes are added (release)",
        )  # fmt: skip
        group.add_argument(
            "--object_gaps", choices=("background", "released"), default="background",
            help="pixels of an object that its pasted shape misses: the background network's, or mid-grey (release)",
        )  # fmt: skip
        add_run_flags(parser, is_train=is_train)
        if is_train:
            group.add_argument(
                "--frozen_train", **switch, default=False,
                help="power-iterate the frozen networks' spectral norms while training, as released",
            )  # fmt: skip

    @classmethod
    def complete_options(cls, opt: Opt, *, classes: ClassTable, runs: Runs) -> dict[str, Any]:
        if not runs and not is_new(opt):
            return cls.scene_options(opt, classes)
        taken = options_of_runs(opt, classes, runs)
        return taken | cls.scene_options(Opt(**vars(opt) | taken), classes)

    @classmethod
    def from_options(cls, opt: Opt, *, is_train: bool) -> SIEDOBFusionModel:
        if is_train and not opt.fusion and (opt.max_steps or opt.ema):
            raise UserError("--no-fusion leaves nothing to train: give --max_steps 0, and no --ema")
        rules = cls.foreground_rules(opt)
        classes = len(rules) + 1  # and "outside"
        netB = BackgroundGenerator(
            label_nc=opt.label_nc, ngf=opt.background_ngf, saspm=opt.background_saspm, things=cls.thing_ids(opt)
        )
        netI = netO = None
        if opt.separation:
            netI = ObjectInpainter(class_channels=classes, ngf=opt.inpaint_ngf)
            netO = StyleObjectGenerator(class_channels=classes, ngf=opt.style_ngf, style_dim=opt.style_dim)
        netG = FusionGenerator(ngf=opt.ngf) if opt.fusion else None
        return cls(
            netG=netG, netB=netB, netI=netI, netO=netO,
            rules=rules, label_nc=opt.label_nc, ignore_label=opt.ignore_label,
            object_size=opt.object_size or CROP_SIZE, overlap=opt.object_overlap, gaps=opt.object_gaps,
            frozen_train=is_train and opt.frozen_train,
            training=cls.training(opt, netG) if is_train and netG is not None else None,
        )  # fmt: skip

    @classmethod
    def training(cls, opt: Opt, netG: FusionGenerator) -> GANTraining:
        """Return what training needs; both networks are initialised."""
        cls.require_a_loss(opt, ("lambda_gan", "lambda_l1", "lambda_vgg"))
        netD = cls.discriminator(3, ndf=opt.ndf, num_layers=num_discriminator_layers(opt.crop_size))
        init_scene_networks(netG, netD)
        return GANTraining.from_options(opt, netD)

    @classmethod
    def tiny(cls, tmp_path: Path) -> list[str]:
        flags = "--model siedob_fusion --dataset_mode streets --streets_train_size 8 --streets_test_size 4"
        runs = [arg for flag, model in STEPS.items() for arg in (f"--{flag}", str(tmp_path / model))]
        return [*flags.split(), *"--crop_size 64 --ngf 2 --ndf 4 --lambda_vgg 0 --batch_size 2".split(), *runs]

    @classmethod
    def tiny_inputs(cls, tmp_path: Path) -> list[list[str]]:
        where = ["--checkpoints_dir", str(tmp_path), "--max_steps", "0"]
        return [[*MODELS.get(m).tiny(tmp_path), "--name", m, *where] for m in STEPS.values()]

    # --- networks --------------------------------------------------------------------------------------------------
    def frozen_networks(self) -> dict[str, nn.Module]:
        """The networks of other runs."""
        nets = {"netB": self.netB, "netI": self.netI, "netO": self.netO}
        return {name: net for name, net in nets.items() if net is not None}

    def networks(self) -> dict[str, nn.Module]:
        nets = {"netG": self.netG, "netD": self.netD, **self.frozen_networks(), "styles": self.styles}
        return {name: net for name, net in nets.items() if net is not None}

    def train(self, mode: bool = True) -> BaseModel:
        super().train(mode)
        for net in self.frozen_networks().values():
            net.train(mode and self.frozen_train)
        return self

    def load_input(
        self, flag: str, networks: Mapping[str, Mapping[str, Tensor]], run_dir: Path, *, weights: str
    ) -> None:
        net = {"background_run": self.netB, "inpaint_run": self.netI, "style_run": self.netO}[flag]
        if net is None:
            return
        net.load_state_dict(networks["netG"])
        if flag == "style_run":
            self.take_bank(run_dir, weights)

    def take_bank(self, run_dir: Path, weights: str) -> None:
        """Take over the style run's bank, its classes renamed to those of the scenes; raises `UserError`."""
        bank = bank_of_run(run_dir, style_dim=self.style_dim, weights=weights)
        assert self.styles is not None
        codes = {self.rules[k].label: rows for k, rows in bank.codes.items() if k < len(self.rules)}
        self.styles.put(StyleBank(codes))
        self.use_bank(self.styles.bank())

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        if "netS" in state:  # netO's name in runs of earlier versions
            state = {**state, "netO": state["netS"]}
        super().load_state(state)
        if self.styles is not None:
            self.use_bank(self.styles.bank())

    def compiled_parts(self) -> list[nn.Module]:
        """As the base, and the frozen network that sees whole pictures; the number of objects changes."""
        return [*super().compiled_parts(), self.netB]

    # --- composing -------------------------------------------------------------------------------------------------
    def compose(self, batch: Batch, seeds: list[int]) -> Tensor:
        """Return the picture (B, 3, H, W) of background and objects that the fusion network gets."""
        image, mask = batch["image"], batch["mask"]
        seg, edge = self.scene(batch)
        objects = self.find(batch, any_aspect=True)
        foreground = objects.union(len(image))
        pasted = torch.zeros_like(image)
        if len(objects):
            crops, shapes = self.make_objects(batch, objects, seeds)
            pasted = objects.paste(crops, shapes, len(image), overlap=self.overlap)
            if self.gaps == "background":  # netB takes them for parts of an instance that is no object
                foreground = foreground * objects.covered(shapes, len(image))
        foreground, known = send(foreground, image.device), image * (1 - mask)
        # Picture and mask are not cut by the objects here, unlike in the background's own training: as released
        background = self.netB(known, seg, edge, mask, 1 - foreground)
        made = pasted * foreground + background * (1 - foreground)
        return made * mask + image * (1 - mask)

    def make_objects(self, batch: Batch, objects: Objects, seeds: list[int]) -> tuple[Tensor, Tensor]:
        """Return the objects' pictures (N, 3, S, S), and their shapes (N, 1, S, S) on the CPU."""
        assert self.netI is not None and self.netO is not None
        size, mask, device = self.object_size, batch["mask"], batch["image"].device
        shapes = objects.crop_where(size)
        erased = objects.crop_nearest(on_host(batch)["mask"], size) * shapes
        is_hidden = erased.flatten(1).sum(1) == shapes.flatten(1).sum(1)
        cls = self.class_maps(objects, shapes, device)
        pictures = torch.zeros(len(objects), 3, size, size, device=device)
        if len(seen := (~is_hidden).nonzero()[:, 0]):
            chosen = send(seen, device)
            shape = send(shapes[seen], device)
            known = objects.crop(batch["image"] * (1 - mask), size)[chosen] * shape
            pictures[chosen] = self.netI(known, shape, send(erased[seen], device), cls[chosen]).float()
        if len(hidden := is_hidden.nonzero()[:, 0]):
            chosen = send(hidden, device)
            codes = send(self.draw_codes(objects, hidden, seeds), device)
            pictures[chosen] = self.netO.render(cls[chosen], codes).float()
        self.counters["objects completed"] += len(seen)
        return pictures, shapes

    def class_maps(self, objects: Objects, shapes: Tensor, device: torch.device) -> Tensor:
        """Return the class maps (N, K + 1, S, S) of objects with these shapes."""
        kinds = F.one_hot(objects.slot, len(self.rules) + 1)[..., None, None]
        return send(kinds, device).float() * send(shapes, device)

    def draw_codes(self, objects: Objects, hidden: Tensor, seeds: list[int]) -> Tensor:
        """Return a code for each object without a visible pixel, each picture's drawn from its own seed."""
        draws = [random.Random(seed) for seed in seeds]
        pairs = zip(objects.picture[hidden].tolist(), objects.label[hidden].tolist(), strict=True)
        return torch.stack([self.draw_code(label, draws[picture]) for picture, label in pairs])

    # --- training --------------------------------------------------------------------------------------------------
    def phases(self) -> list[Phase]:
        return super().phases() if self.netG is not None else []

    def begin_step(self, batch: Batch) -> FusionStep:
        real, mask = batch["image"], batch["mask"]
        with torch.no_grad():
            composed = self.compose(batch, batch["draw"])
        raw = self.call("netG")(composed, mask, batch["edge"] * mask)
        return FusionStep(real, raw, raw * mask + real * (1 - mask))

    def losses_D(self, shared: FusionStep) -> dict[str, Tensor]:
        return self.judge("netD", shared.fake, shared.real)

    def losses_G(self, shared: FusionStep) -> dict[str, Tensor]:
        """L1 is not in the release: it is for runs without a perceptual network, and its weight is 0 by default."""
        return self.generator_losses(shared.fake, shared.raw, shared.real)

    # --- inference -------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def generate(self, batch: Batch, seeds: list[int]) -> Tensor:
        """Each erased object takes a code of its class, in the order of `Objects`, drawn from the picture's seed."""
        picture, mask = self.compose(batch, seeds), batch["mask"]
        if self.netG is not None:
            picture = self.netG(picture, mask, batch["edge"] * mask)
        return picture * mask + batch["image"] * (1 - mask)

    @property
    def draws_codes(self) -> bool:
        return False  # not gathered by this run but taken from the style run

    def choose_styles(self, source: str) -> None:
        if self.netO is None:
            BaseModel.choose_styles(self, source)
        else:
            super().choose_styles(source)

    def has_style(self, label: int) -> bool:
        return label in {rule.label for rule in self.rules}

    def instance_codes(self, batch: Batch) -> Tensor:
        """Codes of the instances of foreground classes, even if they fill little of their boxes; zeros for others."""
        assert self.netO is not None
        host, device = on_host(batch), batch["image"].device
        codes = torch.zeros(*batch["inst_id"].shape, self.style_dim, device=device)
        maps = (host["label"], host["inst"], host["inst_id"])
        objects = find_objects(*maps, whole(host["mask"]), rules=[ObjectRule(r.label, 0.0) for r in self.rules])
        if len(objects):
            shapes = objects.crop_where(self.object_size)
            seen = objects.crop(batch["image"], self.object_size) * send(shapes, device)
            place = send(objects.picture, device), send(objects.number, device)
            codes[place] = self.netO.encode(seen, self.class_maps(objects, shapes, device))
        return codes
