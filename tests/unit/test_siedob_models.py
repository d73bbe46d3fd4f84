"""SIEDOB's four models: what they make of odd scenes, what each flag changes, what they take from one another."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from siedob_tiny import (
    CAR,
    HIDDEN,
    LABEL_NC,
    OTHER,
    PERSON,
    ROAD,
    SEEN,
    TYPICAL,
    batch_of,
    build,
    make_runs,
    scene,
    train,
)
from torch import Tensor

from models.losses.style import code_spread
from models.siedob_fusion_model import SIEDOBFusionModel
from models.style_bank import StyleBank
from models.style_sources import NoiseSource
from options.test_options import TestOptions
from util.batch import Batch
from util.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("siedob"))


@pytest.fixture(scope="module")
def everything(root: Path) -> Path:
    """A run of the background network that makes the objects too."""
    return train(root, "siedob_background", "everything", "--no-separation", "--max_steps", "0")


@pytest.fixture(scope="module")
def composer(root: Path) -> SIEDOBFusionModel:
    """The system without its fusion network, whose pictures show what was composed."""
    model: SIEDOBFusionModel = build(root, "siedob_fusion", "--no-fusion", "--max_steps", "0", is_train=False)
    return model


@pytest.fixture(scope="module")
def system(root: Path) -> SIEDOBFusionModel:
    model: SIEDOBFusionModel = build(root, "siedob_fusion", is_train=False)
    return model


def generate(model: Any, batch: Batch, seeds: list[int] | None = None) -> Tensor:
    """Generate, and check what always holds: known pixels come back as they are."""
    model.counters.clear()
    made: Tensor = model.generate(batch, seeds or [3] * len(batch["name"]))
    known = (batch["mask"] < 0.5).expand_as(made)
    assert torch.equal(made[known], batch["image"][known])
    assert torch.isfinite(made).all()
    return made


@pytest.mark.parametrize("size", [64, 128])
def test_objects_are_drawn_or_completed_and_all_else_stays(
    composer: SIEDOBFusionModel, system: SIEDOBFusionModel, size: int
) -> None:
    samples = [scene(HIDDEN, SEEN, OTHER, **TYPICAL, size=size), scene(SEEN, mask=(0, size, 20, 50), size=size, seed=1)]
    batch = batch_of(*samples)
    for model in (composer, system):
        made = generate(model, batch)
        assert model.counters["objects completed"] == 3
        assert model.counters["instances drawn from the bank"] == 1
        alone = [generate(model, batch_of(sample))[0] for sample in samples]
        assert torch.allclose(made, torch.stack(alone), atol=1e-5)  # pictures of a batch do not see each other


def test_draws_differ_on_hidden_objects_and_nowhere_else(
    composer: SIEDOBFusionModel, system: SIEDOBFusionModel
) -> None:
    batch = batch_of(scene(HIDDEN, SEEN, OTHER, **TYPICAL))
    first, again, other = (generate(composer, batch, [seed]) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    hidden = batch["inst"][0] == batch["inst_id"][0].tolist().index(6000)
    different = (first != other)[0].any(0)
    assert different[hidden].float().mean() > 0.9
    assert not different[~hidden].any()
    fused = [generate(system, batch, [seed]) for seed in (1, 2)]
    assert not torch.equal(*fused)
    without = batch_of(scene(SEEN, OTHER, **TYPICAL))
    assert torch.equal(*(generate(system, without, [seed]) for seed in (1, 2)))


def test_each_picture_draws_from_its_own_seed(composer: SIEDOBFusionModel) -> None:
    twice = batch_of(*[scene(HIDDEN, **TYPICAL)] * 2)
    a, b = generate(composer, twice, [1, 2])
    assert not torch.equal(a, b)
    assert torch.allclose(torch.stack([b, a]), generate(composer, twice, [2, 1]), atol=1e-5)


def test_the_style_of_a_hidden_object_is_chosen(root: Path, everything: Path, composer: SIEDOBFusionModel) -> None:
    batch, bank, mean = batch_of(scene(HIDDEN, **TYPICAL)), composer.bank, composer.mean_code
    try:
        drawn = generate(composer, batch, [1])
        composer.choose_styles("mean")
        means = [generate(composer, batch, [seed]) for seed in (1, 2)]
        composer.use_bank(composer.styles.bank())  # type: ignore[union-attr]
        composer.choose_styles("noise")
        noise = [generate(composer, batch, [seed]) for seed in (1, 2)]
    finally:
        composer.bank, composer.mean_code = bank, mean
    assert torch.equal(*means)
    assert not torch.equal(*noise)
    assert not torch.equal(means[0], drawn)
    assert not torch.equal(noise[0], drawn)
    joint = build(root, "siedob_fusion", "--no-separation", f"--background_run={everything}", is_train=False)
    for source in ("mean", "noise"):
        with pytest.raises(UserError, match="no style codes"):
            joint.choose_styles(source)


def test_a_class_without_codes_takes_the_mean_code_and_is_counted(composer: SIEDOBFusionModel) -> None:
    batch, bank, mean = batch_of(scene(HIDDEN, mask=(0, 64, 0, 64))), composer.bank, composer.mean_code
    assert isinstance(bank, StyleBank)
    try:
        composer.use_bank(StyleBank({label: rows for label, rows in bank.codes.items() if label == PERSON}))
        made = generate(composer, batch, [1])
        assert composer.counters["instances whose class has no code (mean code used)"] == 1
        assert torch.equal(made, generate(composer, batch, [2]))
    finally:
        composer.bank, composer.mean_code = bank, mean


def test_the_background_makes_what_pasted_shapes_miss(root: Path, composer: SIEDOBFusionModel) -> None:
    batch = batch_of(scene((7, 28, 9, 30, CAR, 6000), (33, 60, 35, 62, CAR, 6001), mask=(0, 64, 0, 64)))
    objects = composer.find(batch, any_aspect=True)
    shapes = objects.crop_where(composer.object_size)
    missed = (objects.union(1) * (1 - objects.covered(shapes, 1)))[0, 0] > 0
    share = missed.sum() / objects.union(1).sum()
    assert 0 < share < 0.2
    released: Any = build(root, "siedob_fusion", "--no-fusion", "--max_steps", "0", "--object_gaps", "released")
    filled, grey = generate(composer, batch), generate(released, batch)
    assert not grey[0, :, missed].any()
    assert filled[0, :, missed].abs().max() > 0
    kept = objects.union(1)[0, 0].bool() & ~missed
    assert torch.equal(filled[0, :, kept], grey[0, :, kept])


def test_an_object_is_made_anew_in_its_own_style(root: Path, composer: SIEDOBFusionModel) -> None:
    model, batch = build(root, "siedob_style", is_train=False), crop_batch()
    model.choose_styles("own")
    own = [generate(model, batch, [seed]) for seed in (1, 2)]
    assert torch.equal(*own)
    codes = model.netG.encode(batch["image"], model.object_maps(batch["label"])[1])
    assert torch.equal(own[0], model.composite(batch, codes))
    model.choose_styles("noise")
    assert not torch.equal(generate(model, batch, [1]), own[0])
    with pytest.raises(UserError, match="does not see what is erased"):
        composer.choose_styles("own")


# --- odd scenes ---
def background_alone(model: SIEDOBFusionModel, batch: Batch) -> bool:
    """Tell whether a picture is all background."""
    made = generate(model, batch)
    everything = torch.ones_like(batch["mask"])
    known = batch["image"] * (1 - batch["mask"])
    with torch.no_grad():
        raw = model.netB(known, *model.scene(batch), batch["mask"], everything)
    assert not model.counters["objects completed"] + model.counters["instances drawn from the bank"]
    return torch.equal(made, raw * batch["mask"] + batch["image"] * (1 - batch["mask"]))


@pytest.mark.parametrize(
    "sample",
    [
        scene(HIDDEN, SEEN, **TYPICAL, inst=False),
        scene((8, 24, 8, 28, ROAD, 6000), **TYPICAL),
        scene((8, 24, 8, 28, 5, 5000), **TYPICAL),
        scene((8, 9, 8, 9, CAR, 6000), (12, 13, 8, 20, CAR, 6001), **TYPICAL),
        scene((8, 24, 8, 28, CAR, CAR), **TYPICAL),
        scene(HIDDEN, mask=(60, 64, 60, 64)),
        scene(mask=(0, 64, 0, 64)),
        scene(mask=(0, 0, 0, 0)),
    ],
    ids=["no ids", "label not its class", "no foreground", "speck and line", "group", "untouched", "empty", "no mask"],
)
def test_what_is_no_object_is_background(root: Path, composer: SIEDOBFusionModel, sample: Any) -> None:
    batch = batch_of(sample)
    assert background_alone(composer, batch)
    model = build(root, "siedob_background", is_train=False)
    generate(model, batch)
    assert model.counters["objects kept as in the input (no task of the background)"] == 0


def test_objects_at_every_border_and_a_crowd(composer: SIEDOBFusionModel, system: SIEDOBFusionModel) -> None:
    border = scene((0, 16, 0, 20, CAR, 6000), (48, 64, 44, 64, CAR, 6001), (0, 64, 28, 40, PERSON, 7000),
                   (50, 64, 0, 20, CAR, 6002), mask=(0, 64, 0, 64))  # fmt: skip
    crowd = [(r, r + 7, c, c + 7, CAR, 6000 + 16 * r + c) for r in range(0, 128, 8) for c in range(0, 104, 8)]
    for sample, count in ((border, 4), (scene(*crowd, size=128, mask=(0, 128, 0, 128)), 208)):
        for model in (composer, system):
            generate(model, batch_of(sample))
            assert model.counters["instances drawn from the bank"] == count


def test_pixels_of_the_ignored_label_have_no_channel(root: Path) -> None:
    model = build(root, "siedob_fusion", "--ignore_label", "255", is_train=False)
    batch = batch_of(scene(HIDDEN, (0, 64, 50, 64, 255, 255), **TYPICAL))
    assert model.scene(batch)[0][0, :, :, 50:].sum() == 0
    generate(model, batch)


# --- flags ---
def names(model: Any) -> set[str]:
    return set(model.networks())


def keys(model: Any, net: str) -> set[str]:
    return set(model.networks()[net].state_dict())


def terms(model: Any, batch: Batch) -> dict[str, float]:
    """Return the losses of one step, phase by phase."""
    model.train()
    shared = model.begin_step(batch)
    return {name: loss.item() for phase in model.phases() for name, loss in phase.losses(shared).items()}


GAN, PATCH = {"D/fake", "D/real", "G/gan"}, {"P/fake", "P/real", "G/patch"}
SPREAD = {"codes/cosine", "codes/first_component"}


def crop_batch() -> Any:
    """Return a crop of an object, which is its own style partner."""
    sample = scene(mask=(0, 64, 0, 64))
    shape = torch.full((64, 64), 2)
    shape[8:56, 8:56] = 1
    image = sample["image"] * (shape != 2)
    return batch_of({**sample, "label": shape, "image": image, "style_image": image, "style_label": shape})


def test_saspm_and_patches_are_parts_of_their_own(root: Path) -> None:
    batch = batch_of(scene(HIDDEN, SEEN, **TYPICAL), scene(OTHER, **TYPICAL, seed=1))
    full, plain = build(root, "siedob_background"), build(root, "siedob_background", "--no-saspm")
    gone = keys(full, "netG") - keys(plain, "netG")
    assert gone
    assert not keys(plain, "netG") - keys(full, "netG")
    assert {key for key in keys(full, "netG") if "refine" in key} == gone
    unjudged = build(root, "siedob_background", "--lambda_patch", "0")
    assert set(terms(full, batch)) == set(terms(plain, batch)) == GAN | PATCH | {"G/l1"}
    assert set(terms(unjudged, batch)) == GAN | {"G/l1"}
    for net in names(unjudged):
        assert keys(unjudged, net) == keys(full, net)


def test_without_separation_everything_is_background(root: Path, everything: Path) -> None:
    batch = batch_of(scene(HIDDEN, SEEN, **TYPICAL))
    full, all_in_one = (build(root, "siedob_background", *flags) for flags in ([], ["--no-separation"]))
    assert names(full) == names(all_in_one)
    assert keys(full, "netG") == keys(all_in_one, "netG")
    assert not generate(full, batch)[0, :, 8:24, 8:28].ne(batch["image"][0, :, 8:24, 8:28]).any()
    assert generate(all_in_one, batch)[0, :, 8:24, 8:28].ne(batch["image"][0, :, 8:24, 8:28]).all()
    system = build(root, "siedob_fusion", "--no-separation", f"--background_run={everything}")
    assert names(system) == {"netG", "netD", "netB"}
    assert names(build(root, "siedob_fusion")) == {"netG", "netD", "netB", "netI", "netO", "styles"}
    generate(system, batch)
    assert not system.counters


def test_without_the_fusion_network_there_is_nothing_to_train(root: Path) -> None:
    model = build(root, "siedob_fusion", "--no-fusion", "--max_steps", "0")
    assert names(model) == {"netB", "netI", "netO", "styles"}
    assert model.phases() == []
    for flags in (["--max_steps", "1"], ["--max_steps", "0", "--ema", "0.9"]):
        with pytest.raises(UserError, match="nothing to train"):
            build(root, "siedob_fusion", "--no-fusion", *flags)


def test_style_consistency_is_a_term_of_its_own(root: Path) -> None:
    batch = crop_batch()
    full, none = (build(root, "siedob_style", *flags) for flags in ([], ["--lambda_scc", "0"]))
    assert names(full) == names(none)
    assert keys(full, "netG") == keys(none, "netG")
    found, rest = terms(full, batch), terms(none, batch)
    for model in (full, none):  # processes that train together wait for the gradient of every trained parameter
        sum(model.losses_G(model.begin_step(batch)).values()).backward()
        assert all(p.grad is not None for p in model.netG.parameters() if p.requires_grad)
    assert not any(p.requires_grad for p in none.netG.cycle_encoder.parameters())
    assert 0 <= found.pop("G/scc") <= 2
    assert found == rest
    assert set(rest) == GAN | {"G/l1"} | SPREAD


@pytest.mark.parametrize(("flags", "reached"), [([], False), (["--scc_target", "released"], True)])
def test_style_consistency_trains_the_encoder_of_its_target_only_as_released(
    root: Path, flags: list[str], reached: bool
) -> None:
    model = build(root, "siedob_style", *flags)
    shared = model.begin_step(crop_batch())
    code, cycle = (x.detach().requires_grad_() for x in (shared.code, shared.cycle))
    losses = model.losses_G(replace(shared, code=code, cycle=cycle))
    losses["G/scc"].backward()
    assert (code.grad is not None, cycle.grad is not None) == (reached, True)


def test_noise_codes_in_training_take_the_place_of_the_partners(root: Path) -> None:
    """The object's own style stays encoded, what L_SCC compares with the noise is read off the picture made of it."""
    model, batch = build(root, "siedob_style", "--style_source", "noise"), crop_batch()
    model.eval()  # spectral norms stay
    shared = model.begin_step(batch)
    own = model.netG.encode(batch["image"], model.object_maps(batch["label"])[1])
    noise = NoiseSource(model.style_dim).draw(0, random.Random(batch["draw"][0]))
    assert torch.equal(shared.code, torch.cat([own, noise[None]]))
    assert torch.equal(model.begin_step({**batch, "style_image": batch["image"] * 0}).raw, shared.raw)
    assert not torch.equal(model.begin_step({**batch, "draw": [batch["draw"][0] + 1]}).raw, shared.raw)
    losses = model.losses_G(shared)
    bank = build(root, "siedob_style")
    assert losses.keys() == bank.losses_G(bank.begin_step(batch)).keys()
    assert losses["codes/cosine"] == code_spread(own)[0], "of the encoder's codes alone"


def test_a_run_trained_with_noise_is_tested_with_noise(root: Path) -> None:
    train(root, "siedob_style", "noisy", "--style_source", "noise", "--max_steps", "0")
    tested = ["--name", "noisy", "--checkpoints_dir", str(root), "--task", "instance"]
    assert TestOptions().parse(tested).style_source == "noise"
    assert TestOptions().parse([*tested, "--style_source", "own"]).style_source == "own"


def test_the_spread_of_codes_is_logged_and_moves_nothing(root: Path) -> None:
    run = train(root, "siedob_style", "spread", "--max_steps", "1")
    line = json.loads((run / "stats.jsonl").read_text().splitlines()[-1])["losses"]
    assert -1 <= line["codes/cosine"] <= 1
    assert 0 <= line["codes/first_component"] <= 1
    model = build(root, "siedob_style")
    losses = model.losses_G(model.begin_step(crop_batch()))
    assert not any(losses[name].requires_grad or model.loss_weights[name] for name in SPREAD)


def test_spread_of_codes() -> None:
    ray = torch.linspace(1, 3, 7)[:, None] * torch.randn(1, 5, generator=torch.Generator().manual_seed(0))
    assert [x.item() for x in code_spread(ray)] == pytest.approx([1, 1])
    assert [x.item() for x in code_spread(torch.eye(4))] == pytest.approx([0, 1 / 3])  # three equal components
    codes = torch.randn(40, 16, generator=torch.Generator().manual_seed(1)) + 1
    codes[:, 0] *= 4
    unit = codes / codes.norm(dim=1, keepdim=True)
    cosines = (unit @ unit.T).numpy()
    values = torch.linalg.svdvals((codes - codes.mean(0)).double()).square()
    found = [x.item() for x in code_spread(codes)]
    assert found == pytest.approx(
        [cosines[~np.eye(40, dtype=bool)].mean(), (values[0] / values.sum()).item()], rel=1e-4
    )
    assert [x.item() for x in code_spread(torch.ones(3, 4))] == pytest.approx([1, 0])  # no variance at all


@pytest.mark.parametrize("mask", [(0, 0, 0, 0), (0, 64, 0, 64)], ids=["nothing erased", "all erased"])
def test_a_picture_without_a_boundary_has_no_patch_and_moves_nothing(
    root: Path, mask: tuple[int, int, int, int]
) -> None:
    model = build(root, "siedob_background")
    found = terms(model, batch_of(scene(mask=mask)))
    assert found["P/fake"] == found["P/real"] == found["G/patch"] == 0
    assert all(np.isfinite(list(found.values())))
    sum(model.losses_P(model.begin_step(batch_of(scene(mask=mask)))).values()).backward()
    assert not any(p.grad.any() for p in model.netP.parameters() if p.grad is not None)
    mixed = terms(model, batch_of(scene(mask=mask), scene(**TYPICAL, seed=1)))
    assert all(mixed[name] != 0 for name in PATCH)


def test_what_counts_as_an_object_follows_the_flags(root: Path) -> None:
    batch = batch_of(scene((8, 24, 8, 28, CAR, 6000), (30, 60, 8, 18, PERSON, 7000), mask=(0, 14, 0, 64)))

    def count(*flags: str, mask: int = 64) -> list[int]:
        model = build(root, "siedob_background", *flags, is_train=False)
        touched = {**batch, "mask": torch.zeros_like(batch["mask"])}
        touched["mask"][:, :, :mask] = 1
        return model.find(touched, min_erased=model.min_erased).label.tolist()

    assert count() == [CAR, PERSON]
    assert count(mask=14) == []  # 6 of the car's 16 rows: 0.375
    assert count("--min_erased", "0.37", mask=14) == [CAR]
    assert count("--foreground", "person,car") == [PERSON, CAR]
    assert count("--foreground", "7") == [PERSON]
    assert count("--foreground", "car:0.99,person") == [PERSON]
    assert count("--foreground", "person:0.35:1:2,car") == [CAR]
    assert count("--no-separation") == []


def test_things_lend_no_style(root: Path) -> None:
    def styled(*flags: str) -> list[int]:
        net = build(root, "siedob_background", *flags, is_train=False).netG
        return [label for label in range(LABEL_NC) if not net.styled[label]]

    assert styled() == [1, 5, CAR, PERSON, 8]  # buildings, trees and poles are things of the streets
    assert styled("--things", "1,2") == [1, 2]
    assert styled("--things", "") == []
