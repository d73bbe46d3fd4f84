"""Each ablation flag changes what it says, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from data import DATASETS
from models import MODELS
from models.base_cascade_gan import CascadeGAN
from models.losses.gan import feature_matching
from options.train_options import TrainOptions
from util.batch import Batch, collate
from util.errors import UserError


def build(name: str, *flags: str) -> CascadeGAN:
    """Build a tiny model from the command line, its weights a function of the flags alone."""
    opt = TrainOptions().parse([*MODELS.get(name).tiny(Path()), "--name", "x", *flags])
    torch.manual_seed(0)
    model: Any = MODELS.get(name).from_options(opt, is_train=True)
    return model.train()


@pytest.fixture(scope="module")
def batch() -> Batch:
    opt = TrainOptions().parse([*MODELS.get("divsem").tiny(Path()), "--name", "x"])
    dataset = DATASETS.get("streets").from_options(opt, split="test", augment=False, task="extension")
    return collate([dataset[i] for i in range(2)])


def step(model: CascadeGAN, batch: Batch) -> dict[str, float]:
    shared = model.begin_step(batch)
    return {
        name: loss.item()
        for losses in (model.losses_D(shared), model.losses_G(shared))
        for name, loss in losses.items()
    }


def shapes(model: CascadeGAN) -> dict[str, tuple[int, ...]]:
    return {f"{net}.{k}": tuple(v.shape) for net, m in model.networks().items() for k, v in m.state_dict().items()}


def test_without_style_encoding_divsem_is_spmpgan(batch: Batch) -> None:
    ours, base = build("divsem", "--no-style_encoding"), build("spmpgan")
    for name, net in base.networks().items():
        own = ours.networks()[name].state_dict()
        assert own.keys() == net.state_dict().keys()
        assert all(torch.equal(own[k], v) for k, v in net.state_dict().items())
    assert step(ours, batch) == step(base, batch)
    ours.eval(), base.eval()
    assert torch.equal(ours.generate(batch, [0, 1]), base.generate(batch, [0, 1]))


@pytest.mark.parametrize(
    ("flags", "gone"),
    [
        (["--no-valid_ratio"], ("netG.style_encoder.gamma", "netG.style_encoder.beta")),
        (["--no-multi_scale"], ("netG.stages", "netD.scales")),
        (["--modulation", "spade"], ("feat_", "ctx_gamma", "ctx_beta")),
        (["--no-dual_encoding"], ()),
        (["--no-raw_modulation"], ()),
        (["--style_pool", "all"], ()),
        (["--ratio_input", "one"], ()),
        (["--hole_entry", "picture"], ()),
        (["--hole_entry", "instance"], ()),
        (["--compared", "composite"], ()),
    ],
)
def test_an_ablation_removes_its_own_tensors_alone(flags: list[str], gone: tuple[str, ...], batch: Batch) -> None:
    full, ablated = shapes(build("divsem")), shapes(build("divsem", *flags))
    differ = {k for k in full.keys() | ablated.keys() if full.get(k) != ablated.get(k)}
    assert bool(differ) == bool(gone)
    assert all(any(part in key for part in gone) for key in differ)
    assert step(build("divsem", *flags), batch) != step(build("divsem"), batch)


def test_r1_is_the_squared_gradient_of_real_pictures_in_every_so_manieth_step(batch: Batch) -> None:
    """Against differences of the scores; its own gradient against differences of the term."""
    model = build("spmpgan", "--r1_gamma", "3", "--r1_every", "4")
    assert model.loss_weights["D/r1"] == 12
    model.netD.eval().double()  # no power iterations in between
    shared = model.begin_step(batch)
    shared = replace(shared, segs=[seg.double() for seg in shared.segs])
    out = shared.out
    out.real, out.composite = ([x.detach().double() for x in pictures] for pictures in (out.real, out.composite))
    model.step = 3
    found = model.per_scale_D(shared)["D/r1"]

    def score(scale: int, real: torch.Tensor) -> torch.Tensor:
        return model.netD.scales[scale](torch.cat([shared.segs[scale], real], 1))[-1].flatten(1).mean(1)

    step_size = 1e-5
    for scale, real in enumerate(out.real):
        direction = torch.autograd.functional.jacobian(lambda x, s=scale: score(s, x).sum(), real)
        unit = direction / direction.flatten(1).norm(dim=1)[:, None, None, None]
        slope = (score(scale, real + step_size * unit) - score(scale, real - step_size * unit)) / (2 * step_size)
        assert found[scale].item() == pytest.approx((slope**2).mean().item() / 2, rel=1e-4)
    weight = model.netD.scales[0].layers[0].weight_orig
    torch.stack(found).sum().backward()
    place = weight.grad.abs().argmax()
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.view(-1)[place] += sign * step_size
        ends.append(torch.stack(model.per_scale_D(shared)["D/r1"]).sum().item())
        with torch.no_grad():
            weight.view(-1)[place] -= sign * step_size
    assert weight.grad.view(-1)[place].item() == pytest.approx((ends[0] - ends[1]) / (2 * step_size), rel=1e-3)
    present = []
    for model.step in range(9):
        present += ["D/r1" in model.per_scale_D(shared)]
    assert present == [number % 4 == 0 for number in range(1, 10)]


def test_without_weight_r1_changes_nothing(batch: Batch) -> None:
    plain = step(build("divsem"), batch)
    assert step(build("divsem", "--r1_gamma", "0", "--r1_every", "1"), batch) == plain
    penalised = step(build("divsem", "--r1_gamma", "1", "--r1_every", "1"), batch)
    assert penalised.pop("D/r1") > 0 and penalised == plain, "the other terms are the same"


def test_composites_are_compared_where_pixels_are_made(batch: Batch) -> None:
    """Known pixels cost nothing, and the networks learn nothing from them but by what surrounds them."""
    model = build("spmpgan", "--compared", "composite")
    shared = model.begin_step(batch)
    found = model.per_scale_G(shared)["G/l1"]
    for loss, fake, real in zip(found, shared.out.fake, shared.out.real, strict=True):
        mask = F.interpolate(batch["mask"], size=fake.shape[-2:])
        assert loss.item() == pytest.approx(((fake - real) * mask).abs().mean().item(), rel=1e-5)
    (grad,) = torch.autograd.grad(found[-1], shared.out.fake[-1])
    assert not grad[(batch["mask"] == 0).expand_as(grad)].any() and grad.any()


def test_instances_fill_the_hole_only_where_they_are_known() -> None:
    with pytest.raises(UserError, match=r"--hole_entry instance needs the style encoding: .* --hole_entry picture"):
        build("divsem", "--no-style_encoding", "--hole_entry", "instance")
    with pytest.raises(UserError, match="--hole_entry: invalid choice: 'instance'"):
        build("spmpgan", "--hole_entry", "instance")


def test_edge_input_is_one_channel_of_the_context(batch: Batch) -> None:
    full, without = shapes(build("divsem")), shapes(build("divsem", "--no-edge_input"))
    differ = {k for k in full if full[k] != without[k]}
    assert differ == {k for k in full if k.endswith("ctx_hidden.weight")}
    assert all(full[k][1] - without[k][1] == 1 for k in differ)
    other: Any = {**batch, "edge": 1 - batch["edge"]}
    model = build("divsem", "--no-edge_input")
    assert step(model.eval(), batch) == step(model.eval(), other)
    assert step(build("divsem").eval(), batch) != step(build("divsem").eval(), other)


def test_single_scale_is_the_last_stage_fed_with_the_masked_picture(batch: Batch) -> None:
    model = build("divsem", "--no-multi_scale")
    shared = model.begin_step(batch)
    assert [p.shape[-1] for p in shared.out.fake] == [64]
    assert torch.equal(shared.out.entry[0], batch["image"] * (1 - batch["mask"]))
    assert len(model.per_scale_D(shared)["D/real"]) == 1


def style_of(model: CascadeGAN, batch: Batch) -> torch.Tensor:
    assert model.netG.style_encoder is not None
    count = batch["inst_id"].shape[1]
    return model.netG.style_encoder(batch["image"], batch["mask"], batch["inst"], count)


@torch.no_grad()
def test_without_valid_ratio_codes_stay_raw(batch: Batch) -> None:
    nothing_erased: Any = {**batch, "mask": torch.zeros_like(batch["mask"])}
    model = build("divsem", "--no-valid_ratio")
    encoder = model.netG.style_encoder  # type: ignore[union-attr]
    raw = encoder.raw_codes(batch["image"], batch["inst"], batch["inst_id"].shape[1])
    style = style_of(model, nothing_erased)
    assert torch.allclose(style, raw, atol=1e-6)


@torch.no_grad()
def test_with_the_ratio_fixed_at_1_codes_do_not_depend_on_the_visible_share() -> None:
    """The map of the codes stays: they are neither raw nor those of another share."""
    visible, fixed = (build("divsem", *flags).netG.style_encoder for flags in ([], ["--ratio_input", "one"]))
    assert visible is not None and fixed is not None
    for encoder in (visible, fixed):
        encoder.gamma.weight.fill_(2.0)
    codes, all_seen, some_seen = torch.rand(1, 3, 8), torch.ones(1, 3), torch.full((1, 3), 0.25)
    assert torch.equal(fixed.normalise(codes, some_seen), fixed.normalise(codes, all_seen))
    assert torch.equal(fixed.normalise(codes, all_seen), visible.normalise(codes, all_seen))
    assert not torch.allclose(visible.normalise(codes, some_seen), visible.normalise(codes, all_seen), atol=1e-3)


@torch.no_grad()
def test_without_dual_encoding_the_unerased_picture_is_never_read(batch: Batch) -> None:
    other: Any = {**batch, "image": torch.where(batch["mask"] > 0, -batch["image"], batch["image"])}
    single, dual = build("divsem", "--no-dual_encoding"), build("divsem")
    assert torch.equal(style_of(single, batch), style_of(single, other))
    assert not torch.equal(style_of(dual, batch), style_of(dual, other))
    single.eval().generate(batch, [0, 1])  # without any bank
    assert single.counters == {}


def test_normalised_first_modulation_forgets_scale_and_shift(batch: Batch) -> None:
    x, ctx = torch.rand(2, 3, 16, 16), torch.rand(2, 11, 16, 16)
    for flags, forgets in (([], False), (["--no-raw_modulation"], True)):
        block: Any = build("divsem", *flags).netG.stages[0].enc1  # type: ignore[union-attr]
        for parameter in block.parameters():
            torch.nn.init.normal_(parameter, 0, 0.3)
        same = torch.allclose(block(x, ctx), block(5 * x, ctx), rtol=0.02, atol=0.02)
        assert same == forgets


def test_spade_modulates_by_the_context_alone() -> None:
    block: Any = build("divsem", "--modulation", "spade").netG.stages[0].enc1
    x, ctx = torch.rand(2, 3, 16, 16), torch.rand(2, 11, 16, 16)
    c = F.relu(block.ctx_hidden(ctx))
    wanted = F.instance_norm(block.conv(x)) * (1 + block.ctx_gamma(c)) + block.ctx_beta(c)
    assert torch.allclose(block(x, ctx), F.leaky_relu(wanted, 0.2), atol=1e-6)


def test_feature_matching_is_off_unless_weighted(batch: Batch) -> None:
    assert "G/feat" not in step(build("divsem"), batch)
    model = build("divsem", "--lambda_feat", "10")
    assert model.loss_weights["G/feat"] == 10
    losses = step(model, batch)
    assert losses["G/feat"] > 0
    model.eval()
    shared = model.begin_step(batch)
    on_fake, on_real = model.netD(shared.segs, shared.out.composite, shared.out.real)  # type: ignore[misc]
    layers = [pair for f, r in zip(on_fake, on_real, strict=True) for pair in zip(f[:-1], r[:-1], strict=True)]
    by_hand = sum((a - b).abs().mean().item() for a, b in layers)
    assert model.losses_G(shared)["G/feat"].item() == pytest.approx(by_hand / 3, rel=1e-5)
    a, b = ([torch.randn(2, 3, requires_grad=True) for _ in range(3)] for _ in range(2))
    feature_matching(a, b).backward()
    assert a[0].grad is not None
    assert b[0].grad is None
    assert a[-1].grad is None  # the scores are left out


@pytest.mark.parametrize("dim", [64, 128, 256])
def test_style_dim(dim: int) -> None:
    widths = {
        s[1] for k, s in shapes(build("divsem", "--style_dim", str(dim))).items() if "dec2.spm.ctx_hidden.weight" in k
    }
    assert widths == {dim + 9 + 2}
