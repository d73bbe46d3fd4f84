"""SIEDOB's losses and boundary patches reproduce the numbers recorded from the authors' code."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hash_fill import assert_stats
from instance_edges import instance_edges
from siedob_nets import GOLDEN, InstanceScene, Objects, assert_golden, golden_network, golden_vgg, wave
from torch import Tensor, nn

from models.losses.gan import hinge_fake, hinge_generator, hinge_real
from models.losses.perceptual import PerceptualLoss
from models.losses.style import style_consistency
from models.networks.siedob.boundary import Patch, boundary_pixels, choose_patches, cut_patches, patch_box

STEPS = GOLDEN["steps"]


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> PerceptualLoss:
    return golden_vgg(tmp_path_factory.mktemp("vgg"))


def judged(net: nn.Module, fake: Tensor, real: Tensor) -> list[float]:
    """Return the discriminator's losses on fake and real pictures, and the generator's."""
    scores = net(fake)[-1]
    return [hinge_fake(scores).item(), hinge_real(net(real)[-1]).item(), hinge_generator(scores).item()]


def assert_losses(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found == pytest.approx({name: expected[name] for name in found}, rel=1e-3, abs=1e-6)
    assert found.keys() == expected.keys()


def test_perceptual_loss(vgg: PerceptualLoss) -> None:
    fake, real = wave(1, 64, 0.3), wave(1, 64, 0.8)
    assert vgg(fake, real).item() == pytest.approx(STEPS["vgg_loss"]["value"], rel=1e-5)
    for tap, stats in zip(vgg.taps(fake), STEPS["vgg_loss"]["taps"], strict=True):
        assert_stats(tap, stats, moments=1e-6)


@torch.no_grad()
def test_losses_of_object_inpainting(vgg: PerceptualLoss) -> None:
    case = Objects()
    made = golden_network("inp.netG")(case.masked, case.object_mask, case.mask, case.cls)
    composite = made * case.mask + case.masked
    seen = [torch.cat([picture, case.mask, case.cls], 1) for picture in (composite, case.image)]
    fake, real, gan = judged(golden_network("inp.netD_inp"), *seen)
    found = {
        "loss_D_inp_fake": fake,
        "loss_D_inp_real": real,
        "L1": 10 * F.l1_loss(made, case.image).item(),
        "G_GAN_inp": gan,
        "VGG_inp": 10 * vgg(made, case.image).item(),
    }
    assert_losses(found, STEPS["inpainting_step"]["losses_eval_mode"])


@torch.no_grad()
def test_losses_of_object_style(vgg: PerceptualLoss) -> None:
    """The object in its own style, then in its partner's."""
    case, net, expected = Objects(), golden_network("sty.netG"), STEPS["style_step"]
    cls, target = torch.cat([case.cls] * 2), torch.cat([case.image] * 2)
    styles, style_cls = torch.cat([case.image, case.style_image]), torch.cat([case.cls, case.style_cls])
    made, code, cycle = net(cls, styles, style_cls)
    cut = made * torch.cat([case.object_mask] * 2)
    assert_golden(code[..., None, None], expected["all_sc"])
    assert_golden(cycle[..., None, None], expected["all_cycle_sc"])
    fake, real, gan = judged(golden_network("sty.netD_style"), torch.cat([cut, cls], 1), torch.cat([target, cls], 1))
    found = {
        "loss_D_fake": fake,
        "loss_D_real": real,
        "L1": 10 * F.l1_loss(made[:2], case.image).item(),
        "G_GAN": gan,
        "VGG": 10 * vgg(made, target).item(),
        "style_cycle": style_consistency(code, cycle).item(),
    }
    assert_losses(found, expected["losses_eval_mode"])


@torch.no_grad()
def test_losses_and_patches_of_the_background(vgg: PerceptualLoss) -> None:
    """The objects that the background's rule selects: two cars and a person."""
    scene, expected = InstanceScene(), STEPS["background_step"]
    objects = scene.objects(26000, 26001, 24000)
    background = 1 - objects
    assert objects.sum() == expected["fg_mask_px"]
    mask = scene.mask * background
    assert_golden(mask, expected["mask"])
    masked = scene.image * (1 - scene.mask) * background
    assert_golden(masked, expected["masked_img"], picture=True)
    made = golden_network("netG_BG")(masked, scene.seg, scene.edge, mask, background)
    assert_golden(made, expected["bg_output"], picture=True)
    composite, target = made * mask + scene.image * (1 - mask), scene.image * background
    assert_golden(composite, expected["masked_fake"], picture=True)

    marked = boundary_pixels(mask)[0, 0].nonzero()
    assert len(marked) == expected["boundary_px"]
    assert marked.sum(0).tolist() == [expected["boundary_row_sum"], expected["boundary_col_sum"]]
    patches = choose_patches(mask, [random.Random(1234)] * len(mask))  # the authors' seed and order of draws
    boxes = [patch_box(*centre_and_size, 256) for centre_and_size in expected["patches_centre_row_col_size"]]
    assert patches == [Patch(0, box[:2], box[2:]) for box in boxes]
    fake_patch, real_patch = (cut_patches(torch.cat([x, scene.seg], 1), patches) for x in (composite, scene.image))
    for patch, name in ((fake_patch, "fake_patch"), (real_patch, "real_patch")):
        assert_golden(torch.cat([patch[:, :3].flip(1), patch[:, 3:]], 1), expected[name])

    seen = [torch.cat([scene.seg, picture], 1) for picture in (composite, scene.image)]
    fake, real, gan = judged(golden_network("netD_BG"), *seen)
    fake_p, real_p, gan_p = judged(golden_network("netD_patch"), fake_patch, real_patch)
    found = {
        "loss_D_fake_BG": fake,
        "loss_D_real_BG": real,
        "loss_Dpatch_fake": 0.2 * fake_p,
        "loss_Dpatch_real": 0.2 * real_p,
        "L1_bg": F.l1_loss(made, target).item(),
        "G_GAN_bg": gan,
        "G_GAN_Dpatch": 0.2 * gan_p,
        "VGG_bg": 10 * vgg(made, target).item(),
    }
    assert_losses(found, expected["losses_eval_mode"])


# --- boundary and windows ---


def boundary_case(name: str) -> Tensor:
    mask = torch.zeros(1, 1, 256, 256)
    if name == "edge_right_half":
        mask[..., 128:] = 1
    elif name == "edge_rect_100_150_80_120":
        mask[..., 100:150, 80:120] = 1
    else:
        mask[:] = 1
        mask[..., 60:188, 50:178] = 0
    return mask


@pytest.mark.parametrize("name", [name for name in STEPS if name.startswith("edge_")])
def test_boundary_pixels(name: str) -> None:
    rows, columns = boundary_pixels(boundary_case(name))[0, 0].nonzero().T
    found: dict[str, Any] = {"n": len(rows), "rows_sum": rows.sum(), "cols_sum": columns.sum()}
    found |= {"row_min": rows.min(), "row_max": rows.max(), "col_min": columns.min(), "col_max": columns.max()}
    assert found == STEPS[name]


@pytest.mark.parametrize(("name", "box"), STEPS["patch_boxes_row0_row1_col0_col1"].items())
def test_patch_windows(name: str, box: list[int]) -> None:
    row, column, size = map(int, re.findall(r"\d+", name))
    assert list(patch_box(row, column, size, 256)) == box


@pytest.mark.parametrize("extent", [64, 128, 256, 320])
def test_windows_lie_in_the_picture_and_resize_to_one_size(extent: int) -> None:
    mask = torch.zeros(3, 1, extent, extent)
    mask[0, :, 1:, :] = 1
    mask[2, :, -1, -1] = 1  # the second picture has no boundary
    patches = choose_patches(mask, [random.Random(0)] * len(mask), count=20)
    assert [p.picture for p in patches] == [0] * 20 + [2] * 20
    for patch in patches:
        for first, end in (patch.rows, patch.columns):
            assert 0 <= first < end <= extent - 1
            assert 0.37 * extent <= end - first <= 0.63 * extent
    x = torch.rand(3, 2, extent, extent)
    cut = cut_patches(x, patches)
    assert cut.shape == (40, 2, 5 * extent // 8, 5 * extent // 8)
    whole = [p for p in patches if p.rows[1] - p.rows[0] == cut.shape[-1]]
    for patch in whole:
        expected = x[patch.picture, :, slice(*patch.rows), slice(*patch.columns)]
        assert torch.equal(cut[patches.index(patch)], expected)


def test_pictures_without_a_boundary_have_no_patch() -> None:
    masks = torch.stack([torch.zeros(1, 64, 64), torch.ones(1, 64, 64)])
    assert choose_patches(masks, [random.Random(0)] * len(masks)) == []


def test_edges_of_the_3x3_example() -> None:
    case = STEPS["edges_3x3"]
    assert instance_edges(torch.tensor(case["in"]))[0].tolist() == case["out"]


def test_style_consistency_is_zero_for_parallel_codes_and_two_for_opposed_ones() -> None:
    code = torch.randn(5, 8)
    assert style_consistency(code, 3 * code).item() == pytest.approx(0, abs=1e-6)
    assert style_consistency(code, -code).item() == pytest.approx(2, abs=1e-6)
