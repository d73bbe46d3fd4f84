"""SIEDOB's flags: what each takes out of the networks, the losses or the objects, and what it leaves alone."""

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
    SEEN,
    TYPICAL,
    batch_of,
    build,
    crop_batch,
    generate,
    make_runs,
    scene,
    train,
)

from models.losses.style import code_spread
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
