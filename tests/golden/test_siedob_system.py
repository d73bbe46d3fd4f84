"""SIEDOB's steps and the whole system reproduce the authors' selection, decisions, pictures and losses."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from siedob_nets import (
    GOLDEN,
    LABEL_NC,
    InstanceScene,
    Objects,
    assert_golden,
    golden_network,
    golden_vgg,
)
from torch import Tensor

import models.siedob_background_model as background_module
from data.instances import dense_instances
from models.base_gan import GANTraining
from models.networks.blocks.discriminator import SetDiscriminator
from models.networks.siedob.boundary import Patch, patch_box
from models.siedob_background_model import SIEDOBBackgroundModel
from models.siedob_fusion_model import SIEDOBFusionModel
from models.siedob_inpaint_model import SIEDOBInpaintModel
from models.siedob_style_model import SIEDOBStyleModel
from models.style_bank import StyleBank
from util.images import to_uint8
from util.object_rules import ObjectRule

STEPS, FUSION = GOLDEN["steps"], GOLDEN["fusion_pipeline"]
RULES = (ObjectRule(26, 0.6), ObjectRule(24, 0.35, (2.0, 6.0)))
LOSS = 1e-3  # relative, as the golden file says
JUDGED = 1e-5  # absolute, for terms that are means of small scores


def judge(tag: str) -> SetDiscriminator:
    """Return a golden discriminator that judges sets."""
    net = golden_network(tag)
    first = net.layers[0].weight_orig
    judges = SetDiscriminator(first.shape[1], ndf=64, num_layers=6, padding_mode="zeros")
    judges.load_state_dict(net.state_dict())
    return judges.eval()


@pytest.fixture(scope="module")
def scene() -> InstanceScene:
    return InstanceScene()


@pytest.fixture(scope="module")
def batch(scene: InstanceScene) -> dict[str, Any]:
    dense, inst_id, inst_class = dense_instances(scene.inst[0].numpy(), scene.label[0].numpy())
    return {
        "image": scene.image,
        "label": scene.label,
        "inst": torch.from_numpy(dense)[None],
        "inst_id": torch.from_numpy(inst_id)[None],
        "inst_class": torch.from_numpy(inst_class)[None],
        "edge": scene.edge,  # under the mask already; once more changes nothing
        "mask": scene.mask,
        "name": ["golden"],
        "index": [0],
        "draw": [0],
    }


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return golden_vgg(tmp_path_factory.mktemp("vgg"))


def assert_losses(found: dict[str, Tensor], weights: dict[str, float], expected: dict[str, float]) -> None:
    """Compare weighted losses, by our names; values of weight zero are only logged."""
    found = {name: value for name, value in found.items() if weights.get(name, 1.0)}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert weights.get(name, 1.0) * found[name].item() == pytest.approx(value, rel=LOSS, abs=JUDGED), name


# --- selection ---
def boxes(objects: Any, label: int) -> list[list[int]]:
    return objects.box[objects.label == label].tolist()


def test_fusion_takes_the_authors_objects(cv2: ModuleType, batch: dict[str, Any]) -> None:
    model = fusion_model(cv2)
    objects = model.find(batch, any_aspect=True)
    assert boxes(objects, 26) == FUSION["cars"] and boxes(objects, 24) == FUSION["persons"]
    assert objects.union(1).sum() == FUSION["fg_mask_px"]
    shapes = objects.crop_where(64).flatten(1).sum(1)
    erased = (objects.crop_nearest(batch["mask"], 64) * objects.crop_where(64)).flatten(1).sum(1)
    assert shapes.tolist() == FUSION["car_inst_crop_px"] + FUSION["person_inst_crop_px"]
    assert erased.tolist() == FUSION["car_masked_inst_px"] + FUSION["person_masked_inst_px"]
    paths = ["generate" if a == b else "inpaint" for a, b in zip(shapes.tolist(), erased.tolist(), strict=True)]
    assert paths == FUSION["car_path"] + FUSION["person_path"]
    first = objects.crop(batch["image"] * (1 - batch["mask"]), 64)[0]
    assert_golden(first[None], {**FUSION["car_masked_img_crop0"], "shape": [1, 3, 64, 64]}, picture=True)


def test_background_takes_the_authors_objects(batch: dict[str, Any]) -> None:
    model = SIEDOBBackgroundModel(netG=golden_network("netG_BG"), rules=RULES, label_nc=LABEL_NC)
    objects = model.find(batch, min_erased=model.min_erased)
    facts = STEPS["background_step"]
    assert boxes(objects, 26) == facts["cars"] and boxes(objects, 24) == facts["persons"]
    assert objects.union(1).sum() == facts["fg_mask_px"]


# --- the whole system ---
def style_codes(cv2: ModuleType) -> dict[int, Tensor]:
    """Return the codes of the golden style pictures, one per class, as the authors read them at test time."""
    codes = {}
    for slot, (label, width) in enumerate(((26, 64), (24, 32))):
        y, x, c = np.mgrid[0:64, 0:width, 0:3]
        picture = np.floor(127.5 + 90 * np.cos(0.21 * x - 0.17 * y + 0.9 * c + slot)).astype(np.uint8)
        shape = ellipse_of(64, width)
        picture = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_LINEAR)
        shape = cv2.resize(shape, (64, 64), interpolation=cv2.INTER_NEAREST) > 0
        image = torch.from_numpy((picture / 255 - 0.5) / 0.5).float().movedim(-1, 0).flip(0)[None] * torch.from_numpy(
            shape
        )
        cls = torch.zeros(1, 3, 64, 64)
        cls[:, slot] = torch.from_numpy(shape).float()
        with torch.no_grad():
            codes[label] = golden_network("sty.netG").encode(image, cls)
    return codes


def ellipse_of(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    inside = ((y - height / 2) / (0.45 * height)) ** 2 + ((x - width / 2) / (0.45 * width)) ** 2 <= 1
    return inside.astype(np.uint8) * 255


def fusion_model(cv2: ModuleType, **how: Any) -> SIEDOBFusionModel:
    nets = {
        "netG": golden_network("netG_F"),
        "netB": golden_network("netG_BG"),
        "netI": golden_network("inp.netG"),
        "netO": golden_network("sty.netG"),
    }
    model = SIEDOBFusionModel(**nets, rules=RULES, label_nc=LABEL_NC, overlap="sum", gaps="released", **how)
    assert model.styles is not None
    model.styles.put(StyleBank(style_codes(cv2)))
    model.use_bank(model.styles.bank())
    return model


def test_system_reproduces_the_pictures(cv2: ModuleType, batch: dict[str, Any]) -> None:
    model = fusion_model(cv2)
    with torch.no_grad():
        composed = model.compose(batch, [0])
    # One grey level of OpenCV's resize of the person's style picture moves that person by up to 1e-2 (golden file).
    assert_golden(composed, FUSION["masked_G"], picture=True)
    fused = model.generate(batch, [0])
    assert_golden(fused, FUSION["masked_F"], picture=True)
    saved = to_uint8(fused)[0][..., ::-1].astype(int)  # as the authors write it, BGR
    for place, value in FUSION["saved_image_uint8"]["val"].items():
        row, column = map(int, place.split(","))
        assert np.abs(saved[row, column] - value).max() <= 1


def test_fusion_losses(cv2: ModuleType, batch: dict[str, Any], vgg: Any) -> None:
    training = GANTraining(judge("netD_F"), {"G/gan": 1.0, "G/l1": 0.0, "G/vgg": 10.0}, vgg)
    model = fusion_model(cv2, training=training)
    shared = model.begin_step(batch)
    wanted = FUSION["losses_eval_mode"]
    assert_losses(
        model.losses_D(shared),
        model.loss_weights,
        {"D/fake": wanted["loss_D_fake_F"], "D/real": wanted["loss_D_real_F"]},
    )
    assert_losses(model.losses_G(shared), model.loss_weights, {"G/gan": wanted["G_GAN_F"], "G/vgg": wanted["VGG_bg"]})


# --- the three steps before ---
def test_inpainting_losses(vgg: Any) -> None:
    case, wanted = Objects(), STEPS["inpainting_step"]["losses_eval_mode"]
    weights = {"G/gan": 1.0, "G/l1": 10.0, "G/vgg": 10.0}
    training = GANTraining(judge("inp.netD_inp"), weights, vgg)
    model = SIEDOBInpaintModel(netG=golden_network("inp.netG"), label_nc=3, training=training)
    shared = model.begin_step(object_batch(case))
    found_D = {"D/fake": wanted["loss_D_inp_fake"], "D/real": wanted["loss_D_inp_real"]}
    assert_losses(model.losses_D(shared), model.loss_weights, found_D)
    found_G = {"G/gan": wanted["G_GAN_inp"], "G/l1": wanted["L1"], "G/vgg": wanted["VGG_inp"]}
    assert_losses(model.losses_G(shared), model.loss_weights, found_G)


def object_batch(case: Objects) -> dict[str, Any]:
    """Return the golden objects as the data set of objects does: outside is the last class."""
    label = torch.where(case.object_mask[:, 0] > 0, case.cls.argmax(1), 2)
    style_mask = case.style_cls.sum(1)
    return {
        "image": case.image, "label": label, "mask": case.mask, "name": ["car", "person"],
        "style_image": case.style_image, "style_label": torch.where(style_mask > 0, case.style_cls.argmax(1), 2),
    }  # fmt: skip


def test_style_losses(vgg: Any) -> None:
    wanted = STEPS["style_step"]["losses_eval_mode"]
    weights = {"G/gan": 1.0, "G/l1": 10.0, "G/vgg": 10.0, "G/scc": 1.0}
    training = GANTraining(judge("sty.netD_style"), weights, vgg)
    model = SIEDOBStyleModel(netG=golden_network("sty.netG"), label_nc=3, training=training)
    shared = model.begin_step(object_batch(Objects()))
    assert_golden(shared.code[..., None, None], STEPS["style_step"]["all_sc"])
    assert shared.cycle is not None
    assert_golden(shared.cycle[..., None, None], STEPS["style_step"]["all_cycle_sc"])
    found_D = {"D/fake": wanted["loss_D_fake"], "D/real": wanted["loss_D_real"]}
    assert_losses(model.losses_D(shared), model.loss_weights, found_D)
    found_G = {"gan": "G_GAN", "l1": "L1", "vgg": "VGG", "scc": "style_cycle"}
    expected = {f"G/{ours}": wanted[theirs] for ours, theirs in found_G.items()}
    assert_losses(model.losses_G(shared), model.loss_weights, expected)


def test_background_losses(batch: dict[str, Any], vgg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = STEPS["background_step"]
    wanted = facts["losses_eval_mode"]
    patches = []
    for row, column, size in facts["patches_centre_row_col_size"]:
        box = patch_box(row, column, size, 256)
        patches.append(Patch(0, box[:2], box[2:]))

    def golden_patches(mask: Tensor, rngs: list[random.Random]) -> list[Patch]:
        assert mask.mean().item() == pytest.approx(facts["mask"]["mean"], abs=1e-7)
        return patches

    monkeypatch.setattr(background_module, "choose_patches", golden_patches)
    nets = {"netG": golden_network("netG_BG"), "netP": judge("netD_patch")}
    training = GANTraining(judge("netD_BG"), {"G/gan": 1.0, "G/l1": 1.0, "G/vgg": 10.0, "G/patch": 0.2}, vgg)
    model = SIEDOBBackgroundModel(**nets, rules=RULES, label_nc=LABEL_NC, training=training)
    shared = model.begin_step(batch)
    assert_golden(shared.raw, facts["bg_output"], picture=True)
    assert_golden(shared.fake, facts["masked_fake"], picture=True)
    terms = {
        "D": (model.losses_D(shared), {"D/fake": "loss_D_fake_BG", "D/real": "loss_D_real_BG"}),
        "P": (model.losses_P(shared), {"P/fake": "loss_Dpatch_fake", "P/real": "loss_Dpatch_real"}),
        "G": (
            model.losses_G(shared),
            {"G/gan": "G_GAN_bg", "G/patch": "G_GAN_Dpatch", "G/l1": "L1_bg", "G/vgg": "VGG_bg"},
        ),
    }
    for found, names in terms.values():
        assert_losses(found, model.loss_weights, {ours: wanted[theirs] for ours, theirs in names.items()})
