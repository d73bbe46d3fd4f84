"""Windows of an edited scene: the batch that each becomes, and what of the picture it may see."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch
from editing_scene import RULES, editor, scene
from hypothesis import given, settings
from hypothesis.strategies import integers
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from data import DATASETS
from data.edit.changes import dilate, fill_nearest
from data.edit.painting import Painter
from data.edit.scenes import Margin, Scene
from data.records import Maps
from util.batch import Batch, collate
from util.images import to_tensor
from util.regions import Window, plan_regions


def painter(crop_size: int) -> Painter:
    return Painter(rules=RULES, inst_class_rule="majority", crop_size=crop_size)


def large() -> Scene:
    one = scene()
    grown = {name: getattr(one, name).repeat(5, axis=0).repeat(5, axis=1) for name in ("label", "inst", "mask")}
    return Scene("large", np.random.RandomState(1).randint(0, 256, (100, 150, 3)).astype(np.uint8), **grown)


def test_a_batch_equals_that_of_the_data_set() -> None:
    shown = {"crop_size": 64, "load_size": 64, "streets_test_size": 2, "streets_seed": 0}
    opt = {**shown, "label_nc": 9, "ignore_label": -1, "label_map": None, "seed": 0}
    data = DATASETS.get("streets").from_options(argparse.Namespace(**opt), split="test", augment=False, task="class")
    expected = collate([data[1]])
    maps, mask = data.maps(1), np.zeros((64, 85), bool)
    left = (85 - 64) // 2
    mask[:, left : left + 64] = expected["mask"][0, 0] > 0
    batch = Painter(rules=data.rules, inst_class_rule="majority", crop_size=64).batch(
        Maps(maps.image, maps.label, maps.inst), mask, Window(0, left, 64), data.names[1]
    )
    for key in ("label", "inst", "inst_id", "inst_class", "edge", "mask"):
        assert torch.equal(batch[key], expected[key]), key  # type: ignore[literal-required]
    known = 1 - expected["mask"]
    assert torch.equal(batch["image"] * known, expected["image"] * known)
    assert batch["name"] == expected["name"]


@pytest.mark.parametrize("crop_size", [16, 32, 64])
def test_erased_pixels_never_reach_the_model_at_any_scale(crop_size: int) -> None:
    one, mask = large(), np.zeros((100, 150), bool)
    mask[30:53, 41:70] = True
    other = np.where(mask[..., None], 255 - one.image, one.image)
    window = Window(20, 30, 50)
    first, second = (
        painter(crop_size).batch(Maps(image, one.label, one.inst), mask, window, "x") for image in (one.image, other)
    )
    assert torch.equal(first["image"], second["image"])
    assert first["image"].shape == (1, 3, crop_size, crop_size)
    share = float(first["mask"].mean()) * 2500 / (23 * 29)
    assert 0.97 < share < 1.35  # enlarged: the pixel under the centre; reduced: every pixel that is touched
    assert crop_size > 50 or share >= 1


def test_a_reduced_pixel_is_erased_if_any_of_its_pixels_is() -> None:
    one, mask = large(), np.zeros((100, 150), bool)
    mask[21, 33] = True
    small = painter(10).batch(one.maps, mask, Window(20, 30, 50), "x")["mask"][0, 0]
    assert torch.equal(small.nonzero(), torch.tensor([[0, 0]]))


@given(seed=integers(0, 10_000))
@settings(deadline=None, max_examples=15)
def test_known_pixels_stay_and_all_erased_ones_are_painted(seed: int) -> None:
    rng, one = np.random.RandomState(seed), large()
    one.mask = np.zeros((100, 150), bool)
    for _ in range(rng.randint(1, 5)):
        y, x = rng.randint(100), rng.randint(150)
        one.mask[y : y + rng.randint(1, 60), x : x + rng.randint(1, 80)] = True
    one.image[one.mask] = 7
    numbers = []

    def generate(batch: Batch, number: int) -> Tensor:
        numbers.append(number)
        return to_tensor(np.full((32, 32, 3), 200, np.uint8))[None]

    image = painter(32).paint(one, plan_regions(one.mask, 32), generate)
    assert np.array_equal(image[~one.mask], one.image[~one.mask])
    assert (image[one.mask] == 200).all()
    assert numbers == list(range(len(numbers)))


def test_a_window_sees_what_earlier_ones_made() -> None:
    one = editor().extend(scene(), Margin("right", 40), "mirror")
    seen = []

    def generate(batch: Batch, number: int) -> Tensor:
        seen.append(batch["image"][0, 0, 10, : int((batch["mask"][0, 0, 10] == 0).sum())])
        return torch.full((1, 3, 20, 20), 0.2 * number)

    painter(20).paint(one, plan_regions(one.mask, 20), generate)
    assert len(seen) == 4
    for number, known in enumerate(seen[1:]):
        assert torch.allclose(known, torch.full((10,), 0.2 * number), atol=0.01)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_near_a_region_is_what_the_whole_picture_would_tell(seed):
    """`dilate` and `fill_nearest` look at a box around the region alone, ties included."""
    rng = np.random.RandomState(seed)
    size = rng.randint(3, 24, 2)
    where = rng.rand(*size) < rng.choice([0.02, 0.3, 0.9])
    if seed % 2:
        top, left = rng.randint(0, size - 1)
        where[:] = False
        where[top : top + rng.randint(1, 9), left : left + rng.randint(1, 9)] = True
    where[tuple(rng.randint(0, size))] = False
    values, radius = rng.randint(0, 1000, size), rng.randint(1, 6)
    rows, columns = distance_transform_edt(where, return_distances=False, return_indices=True)
    if where.any():
        assert np.array_equal(fill_nearest(values, where), values[rows, columns])
        assert np.array_equal(dilate(where, radius), distance_transform_edt(~where) <= radius)
