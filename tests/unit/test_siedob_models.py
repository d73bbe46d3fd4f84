"""SIEDOB's four models: what they make of scenes, odd ones too, and whose style an object gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from siedob_tiny import (
    CAR,
    HIDDEN,
    OTHER,
    PERSON,
    ROAD,
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

from models.siedob_fusion_model import SIEDOBFusionModel
from models.style_bank import StyleBank
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
