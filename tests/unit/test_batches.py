"""Batches travel as bytes, and become what the data set returns by index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_folders import dataset, make_folder
from fake_device import fake_device, missing_fakes
from torch import Tensor

from data.custom_dataset import CustomDataset
from data.loader import make_loader
from data.masks import REMOVAL
from data.records import MapRules, Maps
from data.samples import make_sample
from trainers.feed import Feed, arrived
from util.batch import CompactBatch, collate, on_host, to_device
from util.images import from_levels

CPU = torch.device("cpu")
KEYS = [[(0, 2), (1, 0)], [(4, 1)]]
FAKES = pytest.mark.skipif(bool(missing_fakes()), reason=missing_fakes())
MAPS = ("image", "label", "inst", "edge", "mask")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"))


def training(root: Path) -> Any:
    return dataset(dataroot=root, augment=True, task="train")


def loaded(data: Any, keys: Any = KEYS, **how: Any) -> list[CompactBatch]:
    return list(make_loader(data, batch_size=1, keys=keys, **{"num_workers": 0, **how}))


def assert_bits(found: Tensor, expected: Tensor, key: str) -> None:
    """Compare values, their types and how they lie; floats by their bits, as 0 equals -0."""
    assert (found.dtype, found.shape, found.stride()) == (expected.dtype, expected.shape, expected.stride()), key
    if expected.is_floating_point():
        found, expected = found.view(torch.int32), expected.view(torch.int32)
    assert torch.equal(found, expected), key


def assert_same_batch(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, Tensor):
            assert_bits(found[key], value, key)
        else:
            assert found[key] == value, key


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loaded_batch_is_that_of_the_samples(root: Path, num_workers: int) -> None:
    data = training(root)
    for batch, keys in zip(loaded(data, num_workers=num_workers), KEYS, strict=True):
        expected = collate([data[key] for key in keys])
        assert expected["image"].dtype == torch.float32 and expected["edge"].any()  # type: ignore[typeddict-item]
        assert_same_batch(to_device(batch, CPU), expected)
        assert_same_batch(on_host(batch), expected)


def test_it_travels_in_seven_bytes_per_pixel(root: Path) -> None:
    for batch in loaded(training(root)):
        carried = sum(batch[key].nbytes for key in MAPS if key in batch)  # type: ignore[literal-required]
        full = on_host(batch)
        assert carried == 7 * batch["label"].numel()
        assert sum(full[key].nbytes for key in MAPS) == 36 * batch["label"].numel()  # type: ignore[literal-required]


@pytest.mark.parametrize("kind", ["cpu", pytest.param("cuda", marks=FAKES)])
def test_every_level_has_the_bits_of_the_formula(kind: str) -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(2, 1, 16, 8)
    expected = (levels.numpy().astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    if kind == "cpu":
        found = from_levels(levels)
    else:
        with fake_device(kind) as device:
            found = from_levels(levels.to(device.device, non_blocking=True))
            assert not device.waits
        found = device.values(found)
    assert_bits(found, torch.from_numpy(expected), "image")


def sample_of(maps: Maps) -> Any:
    mask = np.zeros(maps.label.shape, np.uint8)
    return make_sample(maps, mask, rules=MapRules(label_nc=400), inst_class_rule="majority", name="x")


def test_ids_that_bytes_cannot_hold_are_carried_as_they_are() -> None:
    side = 182  # 33124 instances
    picture = np.zeros((side, side, 3), np.uint8)
    many = np.arange(side * side, dtype=np.int32).reshape(side, side)
    few = np.where(many % 7, 0, 3).astype(np.int32)
    labels = [few, np.where(few, 256, 2)]
    samples = [sample_of(Maps(picture, label, inst)) for label, inst in zip(labels, (few, many), strict=True)]
    batch = to_device(collate(samples), CPU)
    for row, (label, inst) in enumerate(zip(labels, (few, many), strict=True)):
        assert np.array_equal(batch["label"][row].numpy(), label)
        assert np.array_equal(batch["inst_id"][row][batch["inst"][row]].numpy(), inst)
    assert batch["label"].dtype == batch["inst"].dtype == torch.int64
    assert batch["edge"][1].all()


def test_edges_that_a_sample_brings_are_kept() -> None:
    def streets(removal: str) -> Any:
        return dataset("streets", split="test", task=REMOVAL, removal=removal, load_size=64, streets_test_size=6)

    index = streets("thing").select(1).indices[0]
    (plain,), (released,) = (loaded(streets(how), [[index]]) for how in ("thing", "released"))
    assert on_host(plain)["edge"].any() and not on_host(released)["edge"].any()
    assert_same_batch(on_host(released), collate([streets("released")[index]]))


def test_samples_of_an_own_kind_travel_as_they_are(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def darker(self: Any, key: Any) -> Any:
        sample = super(CustomDataset, self).__getitem__(key)
        return {**sample, "image": sample["image"] / 3, "depth": torch.ones(4, dtype=torch.uint8)}

    data = training(root)
    bright = on_host(loaded(data)[0])
    monkeypatch.setattr(CustomDataset, "__getitem__", darker, raising=False)
    (batch, _) = loaded(data)
    assert_same_batch(to_device(batch, CPU), {**bright, "image": bright["image"] / 3, "depth": batch["depth"]})  # type: ignore[typeddict-item]
    assert batch["depth"].dtype == torch.uint8  # type: ignore[typeddict-item]


@FAKES
def test_a_device_makes_the_same_maps_and_nobody_waits(root: Path) -> None:
    data = training(root)
    batch, expected = loaded(data)[0], collate([data[key] for key in KEYS[0]])
    with fake_device("cuda") as device:
        moved = arrived(next(Feed([batch], device.device)))
        assert not device.waits
        assert all(value.device == device.device for value in moved.values() if isinstance(value, Tensor))
        host: Any = on_host(moved)
        assert host is on_host(moved) and not device.waits
    del moved["host"]
    for found in (moved, host):
        values = {key: device.values(x) if isinstance(x, Tensor) else x for key, x in found.items()}
        assert_same_batch(values, expected)
