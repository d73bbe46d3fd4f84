"""SemIA reproduces the numbers recorded from the authors' code (tests/golden/semia_golden.json)."""

from __future__ import annotations

import zlib
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from semia_fill import GOLDEN, VALUES, check, fill, hashed, picture, segmentation, table
from semia_patches import WholeMaps
from torch import Tensor, nn

from data.warps import grid_points, progress, warp, warp_coordinates, zoom, zoom_indices
from models.losses.patch import PatchFeatures, PatchLoss
from models.losses.perceptual import build_features
from models.losses.semia import base_rate
from models.networks.semia.discriminator import PyramidDiscriminator
from models.networks.semia.generator import SemIAGenerator
from models.networks.semia.segmenter import LayoutSegmenter
from models.semia_model import SemIAModel

SCHEDULE = GOLDEN["augmentation_and_schedule"]
PICKS = [[((7 * i + 3) % 46, (11 * i + 5) % 62) for i in range(10)], [((5 * i + 2) % 24, (9 * i + 4) % 32) for i in range(5)]]  # fmt: skip  # noqa: E501
S, T, SEG_S, SEG_T = picture("src_img"), picture("tgt_img"), segmentation("src_seg"), segmentation("tgt_seg")
CLASSES = torch.zeros(48, 64, dtype=torch.int64)


def generator() -> SemIAGenerator:
    net = SemIAGenerator().double().eval()
    fill(net, "G")
    return net


def discriminator() -> PyramidDiscriminator:
    net = PyramidDiscriminator().double().eval()
    fill(net, "D")
    return net


def segmenter() -> LayoutSegmenter:
    net = LayoutSegmenter().double().eval()
    fill(net, "Aux")
    return net


class Features(PatchFeatures):
    """With the golden weights instead of a file's."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.layers = build_features("vgg19")[:7].double()
        slices = {0: "slice1", 2: "slice2", 5: "slice2"}
        fill(self.layers, "VGG", lambda key: f"{slices[int(key.split('.')[0])]}.{key}")
        self.requires_grad_(False)


@cache
def fake() -> Tensor:
    with torch.no_grad():
        return generator()(S, SEG_S, SEG_T).image


def test_the_hash_is_theirs() -> None:
    expected = GOLDEN["description"]["hash_check"]
    assert hashed("src_img", 4).tolist() == pytest.approx(expected["U('src_img',4)"], abs=1e-11)
    key = "G.encoder_c.head_block.main.1.weight_orig"
    assert hashed(key, 3).tolist() == pytest.approx(expected[f"U('{key}',3)"], abs=1e-11)
    for name, tensor in (("src_img", S), ("tgt_img", T), ("src_seg", SEG_S), ("tgt_seg", SEG_T)):
        check(tensor, VALUES["inputs"][name])


@pytest.mark.parametrize(
    ("net", "section", "count"),
    [
        (SemIAGenerator, "G", 5_511_686 - 590_336),
        (PyramidDiscriminator, "D", 1_058_625),
        (LayoutSegmenter, "Aux", 221_315),
    ],
)
def test_keys_and_shapes_are_the_released_ones(net: Any, section: str, count: int) -> None:
    with torch.device("meta"):
        state = net()
    assert {key: tuple(value.shape) for key, value in state.state_dict().items()} == table(section)
    assert sum(p.numel() for p in state.parameters()) == count


def test_generator() -> None:
    net, expected = generator(), VALUES["G_eval"]
    with torch.no_grad():
        ratios, differences = net.changes(SEG_S, SEG_T)
        out = net(S, SEG_S, SEG_T)
        for level in range(3):
            check(net.encoder_c.features(SEG_S)[level], expected["enc_c(src_seg)"][level])
            check(ratios[level], expected["ratio"][level])
            check(differences[level], expected["diff"][level])
            check(out.alpha[level], expected["alpha"][level])
            check(out.beta[level], expected["beta"][level])
        check(out.image, expected["fake"])
        same = net(T, SEG_T, SEG_T)
    for level in range(3):
        check(same.alpha[level], VALUES["G_eval_identity"]["alpha"][level])
    check(same.image, VALUES["G_eval_identity"]["fake"])


def test_generator_in_training() -> None:
    net, expected = generator().train(), VALUES["G_train_one_forward"]
    with torch.no_grad():
        out = net(S, SEG_S, SEG_T)
    check(out.image, expected["fake"], 1e-7)
    state = net.state_dict()
    for name, wanted in expected.items():
        if name.startswith(("encoder", "decoder")) and not name.endswith("shape"):
            key = name.split(" ")[0].removesuffix("[:4]")
            found = state[key].flatten()[:4] if "[" in name else state[key]
            assert found.tolist() == pytest.approx(wanted, rel=1e-7), name


def test_discriminator() -> None:
    with torch.no_grad():
        for net, pair, name in (
            (discriminator(), [T, fake()], "D_eval"),
            (discriminator().train(), [T, S], "D_train_one_forward"),
        ):
            scores, features = net(torch.cat(pair))
            for k in range(2):
                check(scores[k], VALUES[name]["preds"][k], 1e-7)
                check(features[k], VALUES[name]["feats"][k], 1e-7)


def test_segmenter() -> None:
    with torch.no_grad():
        found = segmenter()(S)
    check(found, VALUES["Aux_eval"]["pred_of_src_img"])
    assert (found - SEG_S).abs().mean().item() == pytest.approx(VALUES["Aux_eval"]["L1_to_src_seg"], rel=1e-9)


def test_vgg_and_patch_loss() -> None:
    features = Features()
    for found, name in zip(features(S), ("relu1_1(src_img)", "relu2_1(src_img)"), strict=True):
        check(found, VALUES["VGG"][name])
    identity = WholeMaps.__new__(WholeMaps)
    nn.Module.__init__(identity)
    identity.forward = lambda x: [x, nn.functional.avg_pool2d(x, 2)]  # type: ignore[method-assign]
    for net, name in (
        (features, "PatchLoss(source=src_img,target=tgt_img)"),
        (identity, "PatchLoss_identity_features"),
    ):
        loss = PatchLoss(features=net, semantic=False)
        value = loss(T, loss.banks(S, CLASSES), CLASSES, PICKS)
        assert value.item() == pytest.approx(VALUES[name], rel=1e-9)


def model(**settings: Any) -> SemIAModel:
    built = SemIAModel(
        netG=generator(), netD=discriminator(), netS=segmenter(), noise=False,
        patch=PatchLoss(features=Features(), semantic=False), **settings,
    )  # fmt: skip
    assert built.patch is not None
    built.patch.draw = lambda size: PICKS  # type: ignore[method-assign]
    return built


def batch() -> Any:
    seg = {"image": S, "seg": SEG_S, "label": CLASSES[None]}
    return {**seg, "target_image": T, "target_seg": SEG_T, "target_label": CLASSES[None], "name": ["a"]}


def gradients(net: nn.Module, losses: dict[str, Tensor], weights: dict[str, float]) -> dict[str, Tensor]:
    net.zero_grad()
    total = sum(weights.get(name, 1.0) * value for name, value in losses.items())
    total.backward()  # type: ignore[union-attr]
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def compare_gradients(found: dict[str, Tensor], expected: dict[str, Any], *, absolute: float = 0.0) -> None:
    for name, norms in expected.items():
        if norms is None or name == "params_without_grad":
            continue
        assert found[name].norm().item() == pytest.approx(norms["l2"], rel=1e-5, abs=absolute), name
        if "sum_abs" in norms:
            assert found[name].abs().sum().item() == pytest.approx(norms["sum_abs"], rel=1e-5, abs=absolute), name


@pytest.mark.parametrize("alignment", ["released", "paper"])
def test_losses_of_the_sampling_mode(alignment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    semia, expected = model(alignment=alignment), VALUES["G_losses_sample_mode"]
    monkeypatch.setattr(torch, "rand", lambda *size: torch.ones(*size))
    semia.step = 1
    losses = semia.losses_G(semia.begin_step(batch()))
    names = {"G/gan": "G/GAN", "G/feat": "G/Feat", "G/patch": "G/PatchLoss"}
    if alignment == "paper":  # the released value has no gradient; ours has
        names["G/align"] = "G/AuxLoss"
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(
        {ours: expected[theirs] for ours, theirs in names.items()}, rel=1e-8
    )
    found = gradients(semia.netG, losses, semia.loss_weights)
    if alignment == "released":
        compare_gradients(found, VALUES["G_grads_sample_mode"])
    else:
        key = "decoder_i.tail_block.main.2.weight"
        assert found[key].norm().item() != pytest.approx(VALUES["G_grads_sample_mode"][key]["l2"], rel=1e-3)


def test_losses_of_the_reconstruction_mode() -> None:
    semia, expected = model(), VALUES["G_losses_rec_mode"]
    losses = semia.losses_G(semia.begin_step(batch()))
    weighted = {name: semia.loss_weights.get(name, 1.0) * value.item() for name, value in losses.items()}
    wanted = {
        "G/gan": "G/GAN", "G/feat": "G/Feat", "G/rec": "G/Rec", "G/alpha": "G/alpha_fixedpoint",
        "G/beta": "G/beta_fixedpoint",
    }  # fmt: skip
    assert weighted == pytest.approx({ours: expected[theirs] for ours, theirs in wanted.items()}, rel=1e-8)
    assert sum(weighted.values()) == pytest.approx(expected["total"], rel=1e-8)
    found = gradients(semia.netG, losses, semia.loss_weights)
    compare_gradients(found, VALUES["G_grads_rec_mode"], absolute=1e-9)


def test_losses_of_discriminator_and_segmenter(monkeypatch: pytest.MonkeyPatch) -> None:
    semia = model()
    monkeypatch.setattr(torch, "rand", lambda *size: torch.ones(*size))
    semia.step = 1
    shared = semia.begin_step(batch())
    losses = semia.losses_D(shared)
    expected = VALUES["D_losses"]
    assert {k: v.item() for k, v in losses.items()} == pytest.approx({k: expected[k] for k in losses}, rel=1e-8)
    compare_gradients(gradients(semia.netD, losses, {}), VALUES["D_grads"])
    assert semia.losses_S(shared)["S/l1"].item() == pytest.approx(VALUES["Aux_eval"]["L1_to_src_seg"], rel=1e-9)


def test_schedules() -> None:
    for step, factor in SCHEDULE["iter_factor"].items():
        assert progress(int(step), 1000) == factor
    rates = {"lr": 0.01, "stable_steps": 1000, "decay_steps": 1500}
    for step, rate in SCHEDULE["base_lr_used_at_iteration"].items():
        assert base_rate(int(step), **rates) == pytest.approx(rate, rel=1e-9)  # type: ignore[arg-type]
    assert base_rate(2500, **rates) == pytest.approx(SCHEDULE["base_lr_after_training"], rel=1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_zoom(offset: float) -> None:
    expected = SCHEDULE["affine_scale_1.137_on_30x20"][f"centre_offset_{offset}"]
    assert zoom_indices(30, 1.137, centre_offset=offset).tolist() == expected["src_col_for_out_col"]
    assert zoom_indices(20, 1.137, centre_offset=offset).tolist() == expected["src_row_for_out_row"]
    row, column = np.mgrid[0:20, 0:30]
    image = np.stack([8 * column, 12 * row, (7 * column + 13 * row) % 256], -1).astype(np.uint8)
    assert zlib.crc32(zoom(image, 1.137, centre_offset=offset).tobytes()) == expected["crc32_rgb_bytes"]


@pytest.mark.parametrize("size", [(50, 70), (51, 71)])
@pytest.mark.parametrize("strength", ["zero", "full"])
def test_thin_plate_warp(size: tuple[int, int], strength: str) -> None:
    height, width = size
    expected = SCHEDULE[f"tps_{height}x{width}"]
    assert grid_points(height, width).tolist() == expected["grid_points"]
    moves = hashed("tps_vecs", 18).reshape(9, 2).numpy() * (0.02 * width if strength == "full" else 0)
    assert moves.ravel().tolist() == pytest.approx(np.ravel(expected[strength]["vecs"]).tolist(), abs=1e-9)
    found = warp_coordinates(height, width, moves)
    for row, column, *source in expected[strength]["sample_coords(row,col)->(src_row,src_col)"]:
        assert found[row, column].tolist() == pytest.approx(source, abs=1e-8)
    row, column = np.mgrid[0:height, 0:width]
    image = np.stack([3 * row, 3 * column, (5 * column + 9 * row) % 256], -1).astype(np.uint8)
    out = warp(image, found)
    for r, c, *rgb in expected[strength]["pixels"]:
        assert out[r, c].tolist() == rgb
    # In theirs the spline's own rounding (1e-13) decides where the source lies half between two values: some 15 of 3500
    assert out.mean((0, 1)).tolist() == pytest.approx(expected[strength]["out_mean_per_channel"], abs=0.006)
