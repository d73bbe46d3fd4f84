"""What SIEDOB's four steps share (CVPR 2023, arXiv 2303.13062): flags, losses, and how scenes and objects are read.

Scenes are split into objects, which two networks of 64 x 64 crops make, and a background, which a third makes; a fourth
joins them. Each is trained in its own run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base_gan import GANModel, GANTraining
from models.losses.gan import hinge_fake, hinge_generator, hinge_real
from models.networks.blocks.discriminator import SetDiscriminator
from models.networks.blocks.init import init_normal
from models.networks.siedob.crops import Objects, find_objects
from util.batch import Batch, on_host, one_hot
from util.class_table import ClassTable
from util.errors import UserError
from util.files import write_text
from util.images import save_png
from util.object_rules import ObjectRule, parse_rules
from util.opt import Opt
from util.shared_flags import add_shared

LR = 2e-4  # of all networks, as released


class SIEDOBModel(GANModel):
    """One step of SIEDOB: composites against a discriminator, L1 and a perceptual loss on what is compared."""

    default_ngf: ClassVar[int] = 32

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser, *, is_train: bool, lambda_l1: float) -> Any:
        """Add the flags that every step has and return their group."""
        group = parser.add_argument_group(f"model {cls.own_name()}")
        add_shared(group, "ngf", default=cls.default_ngf)
        if is_train:
            cls.add_training_flags(group, lr_G=LR, lr_D=LR, lambda_l1=lambda_l1)
        return group

    @staticmethod
    def discriminator(in_channels: int, *, ndf: int, num_layers: int) -> SetDiscriminator:
        """Return a discriminator whose convolutions are padded with zeros, as released."""
        return SetDiscriminator(in_channels, ndf=ndf, num_layers=num_layers, padding_mode="zeros")

    def judge(self, name: str, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Return a discriminator's hinge losses on detached fakes and on real pictures, in this order.

        Args:
            name: of a `SetDiscriminator`, whose last letter names the phase ("netD" gives "D/fake" and "D/real").
        """
        phase = name[-1]
        on_fake, on_real = self.call(name)(fake.detach(), real)
        return {f"{phase}/fake": hinge_fake(on_fake[-1]), f"{phase}/real": hinge_real(on_real[-1])}

    def adversarial(self, name: str, fake: Tensor) -> Tensor:
        """Return the generator's hinge loss against a discriminator."""
        return hinge_generator(self.call(name)(fake)[0][-1])

    def generator_losses(self, judged: Tensor, raw: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Return the terms of the generator that have a weight.

        Args:
            judged: what the discriminator sees of the composite.
            raw: the network's own pictures.
            wanted: what they should be; of fewer, L1 compares the first ones, and the perceptual loss all in turn.
        """
        losses = {}
        if self.weighted("G/gan"):
            losses["G/gan"] = self.adversarial("netD", judged)
        if self.weighted("G/l1"):
            losses["G/l1"] = F.l1_loss(raw[: len(wanted)], wanted)
        if self.weighted("G/vgg") and self.perceptual is not None:
            losses["G/vgg"] = self.perceptual(raw, wanted)
        return losses


# --- scenes ---
class SceneModel(SIEDOBModel):
    """A step that works on scenes: it knows which classes are foreground.

    Args:
        rules: foreground classes; empty where everything is background.
        label_nc, ignore_label: as in the data set.
    """

    def __init__(
        self, *, netG: nn.Module | None, rules: Sequence[ObjectRule], label_nc: int, ignore_label: int | None = None,
        training: GANTraining | None = None,
    ) -> None:  # fmt: skip
        super().__init__(netG=netG, training=training)
        self.rules, self.label_nc, self.ignore_label = tuple(rules), label_nc, ignore_label

    @staticmethod
    def add_scene_flags(parser: argparse.ArgumentParser, group: Any, *, is_train: bool) -> None:
        """Add the flags that say which instances are objects."""
        group.add_argument(
            "--foreground", metavar="CLASS[:FILL[:LOW:HIGH]],...",
            help="classes whose instances are objects: more than FILL of their box, height/width between LOW and HIGH; "
            "default: by data set, or those of the object runs",
        )  # fmt: skip
        group.add_argument("--things", metavar="ID,...", help="classes that lend no style; default: by data set")
        group.add_argument(
            "--separation", action=argparse.BooleanOptionalAction, default=True,
            help="objects apart from the background; off: everything is background",
        )  # fmt: skip
        if is_train:
            parser.set_defaults(mask_types="free_form,extension,outpainting", mask_boxes=0.5)

    @staticmethod
    def foreground_rules(opt: Opt) -> Sequence[ObjectRule]:
        """Return the classes whose instances are objects."""
        return parse_rules(opt.foreground, [], (), "--foreground") if opt.separation else ()

    @staticmethod
    def scene_options(opt: Opt, classes: ClassTable) -> dict[str, Any]:
        """Return `foreground` and `things` with ids instead of names, from the data set where they are not given."""
        rules = classes.foreground
        if opt.foreground is not None:
            rules = parse_rules(opt.foreground, list(classes.names), rules, "--foreground")
        if opt.separation and not rules:
            raise UserError(
                f"--dataset_mode {opt.dataset_mode} describes no class of single things: name the foreground classes "
                "by --foreground, or give --no-separation"
            )
        for rule in rules if opt.foreground is not None else ():
            if rule.label >= opt.label_nc:
                raise UserError(
                    f"--foreground {opt.foreground}: no class {rule.label}; ids are 0 to {opt.label_nc - 1}"
                )
        things = opt.things
        if things is None:
            things = ",".join(str(label) for label in sorted(classes.things) if label < opt.label_nc)
        return {"foreground": ",".join(map(str, rules)), "things": things}

    @staticmethod
    def thing_ids(opt: Opt) -> list[int]:
        """Return the ids of --things; raises `UserError`."""
        try:
            ids = [int(part) for part in opt.things.split(",") if part]
        except ValueError:
            ids = [-1]
        if not all(0 <= label < opt.label_nc for label in ids):
            raise UserError(f"--things {opt.things}: class ids below {opt.label_nc} with commas, as in 24,25,26")
        return ids

    def find(self, batch: Batch, *, min_erased: float = 0.0, any_aspect: bool = False) -> Objects:
        """Return the objects that the mask touches, see `find_objects`."""
        host = on_host(batch)
        maps = (host["label"], host["inst"], host["inst_id"], host["mask"])
        return find_objects(*maps, rules=self.rules, min_erased=min_erased, any_aspect=any_aspect)

    def scene(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return one-hot labels (B, N, H, W) of the whole picture and edges (B, 1, H, W) under the mask."""
        return one_hot(batch["label"], self.label_nc, self.ignore_label), batch["edge"] * batch["mask"]


# --- objects ---
class ObjectModel(SIEDOBModel):
    """A step that works on crops of single objects; their last class is "outside"."""

    dataset_modes = ("objects",)

    def __init__(self, *, netG: nn.Module, label_nc: int, training: GANTraining | None = None) -> None:
        super().__init__(netG=netG, training=training)
        self.label_nc = label_nc

    def object_maps(self, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return the object's shape (B, 1, S, S) and its class map (B, K, S, S), zero outside the object."""
        shape = (label != self.label_nc - 1)[:, None].float()
        return shape, one_hot(label, self.label_nc) * shape

    @classmethod
    def training(cls, opt: Opt, *, judged: int, weights: Mapping[str, float]) -> GANTraining:
        """Return what training needs.

        Args:
            judged: channels of what the discriminator sees.
            weights: of further losses of the generator.
        """
        cls.require_a_loss(opt, ("lambda_gan", "lambda_l1", "lambda_vgg"))
        netD = cls.discriminator(judged, ndf=opt.ndf, num_layers=opt.crop_size.bit_length() - 1)
        return GANTraining.from_options(opt, netD, weights)

    @classmethod
    def tiny(cls, tmp_path: Path) -> list[str]:
        """Return the flags of a training on crops drawn into `tmp_path`."""
        root = tmp_path / "objects"
        if not root.exists():
            write_tiny_objects(root)
        flags = "--dataset_mode objects --crop_size 64 --batch_size 2 --ngf 2 --ndf 4 --lambda_vgg 0"
        return ["--model", cls.own_name(), *flags.split(), "--dataroot", str(root)]


def write_tiny_objects(root: Path) -> None:
    """Write a few 16 x 16 crops of two classes, as scripts/prepare_objects.py lays them out, for `tiny`."""
    rng = np.random.RandomState(0)
    entries = [{"id": k, "name": name, "scene_id": 6 + k} for k, name in enumerate(("car", "person"))]
    for entry in entries:
        for split, count in (("train", 4), ("test", 2)):
            for index in range(count):
                shape = np.zeros((16, 16), np.uint8)
                shape[index : 12 + index, 2:14] = 255
                name = f"{entry['name']}_{index:02d}.png"
                folder = root / str(entry["name"]) / split
                save_png(rng.randint(0, 256, (16, 16, 3)).astype(np.uint8), folder / "images" / name)
                save_png(shape, folder / "inst_mask" / name)
    write_text(root / "classes.json", json.dumps({"num_classes": 2, "classes": entries}))


def init_scene_networks(*nets: nn.Module) -> None:
    """Initialise as the release does for scenes; the object networks keep PyTorch's own values."""
    for net in nets:
        init_normal(net)


def whole(mask: Tensor) -> Tensor:
    """Return a mask of the same size that erases everything."""
    return torch.ones_like(mask)
