"""Street scenes: exact maps, distinct splits, instances of their own looks, the same drawing everywhere."""

import numpy as np
import pytest
import torch
from data_folders import dataset, options

from data.streets.scene import BUILDING, CLASSES, render_street
from data.streets_dataset import scene_rng
from util.errors import UserError
from util.images import to_uint8


def scene(index, size=64, split="train", seed=0):
    return render_street(scene_rng(seed, split, index), height=size, width=round(size * 4 / 3))


@pytest.fixture(scope="module")
def scenes():
    return [scene(i) for i in range(12)]


def test_all_classes_occur(scenes):
    assert len(CLASSES.names) >= 8
    seen = np.unique(np.concatenate([s.label.ravel() for s in scenes]))
    assert seen.tolist() == list(range(len(CLASSES.names)))


def test_ids_name_their_class(scenes):
    for s in scenes:
        thing = np.isin(s.label, list(CLASSES.things))
        assert np.array_equal(np.where(thing, s.inst // 1000, s.inst), s.label)
        assert s.inst.max() < 2**16
        assert len(np.unique(s.inst[s.label == BUILDING])) > 3


@pytest.mark.parametrize("size", [64, 96, 256])
def test_any_size_is_the_same_scene(size):
    s = scene(3, size)
    width = round(size * 4 / 3)
    assert s.image.shape == (size, width, 3)
    assert s.image.dtype == np.uint8
    assert s.label.shape == s.inst.shape == (size, width)
    rows, columns = (np.arange(32) * size // 32 + size // 64), (np.arange(32) * width // 32 + width // 64)
    small = scene(3, 64)
    r64, c64 = np.arange(32) * 2 + 1, np.arange(32) * 85 // 32 + 1
    agree = (s.label[rows[:, None], columns] == small.label[r64[:, None], c64]).mean()
    assert agree > 0.85


def test_same_seed_same_scene_and_splits_never_share_one():
    assert np.array_equal(scene(1).image, scene(1).image)
    splits = ("train", "val", "test")
    keys = {scene_rng(0, split, i).randint(2**31, size=4).tobytes() for split in splits for i in range(300)}
    assert len(keys) == 900
    assert not np.array_equal(scene(1).image, scene(1, split="test").image)
    assert not np.array_equal(scene(1).image, scene(1, seed=1).image)


def test_a_stored_scene():
    """The drawing must not change silently: sums of the first training scene at 64 pixels, as first drawn."""
    s = scene(0)
    counts = np.bincount(s.label.ravel(), minlength=9)
    assert (
        np.abs(counts - [527, 1905, 2000, 285, 27, 298, 196, 142, 60]).sum() <= 20
    )  # another Pillow may draw borders otherwise
    assert s.image.reshape(-1, 3).mean(0) == pytest.approx([125.97, 130.25, 122.97], abs=0.3)


def test_borders_of_picture_and_maps_agree(scenes):
    """Where labels differ, colours differ more than inside a class: shifting the map against the picture breaks it."""

    def contrast(shift):
        on, off = [], []
        for s in scenes:
            step = np.abs(np.diff(s.image.astype(float), axis=1)).sum(2)
            border = np.diff(np.roll(s.inst, shift, axis=1), axis=1) != 0
            on.append(step[:, 4:-4][border[:, 4:-4]].mean())
            off.append(step[:, 4:-4][~border[:, 4:-4]].mean())
        return np.mean(on) / np.mean(off)

    assert contrast(0) > 1.15 * max(contrast(-2), contrast(2))


@pytest.mark.parametrize("name", ["car", "person", "tree", "building"])
def test_instances_of_a_class_look_unlike(name):
    """The spread of mean colours over instances: style cannot be told from the class."""
    wanted = CLASSES.names.index(name)
    means = []
    for i in range(6):
        s = scene(i, 96)
        for ident in np.unique(s.inst[s.label == wanted]):
            if (s.inst == ident).sum() > 30:
                means.append(s.image[s.inst == ident].mean(0))
    assert len(means) > 8
    assert np.std(means, axis=0).min() > 22


def test_dataset_defaults_and_samples():
    opt = options("streets", crop_size=64)
    assert (opt.label_nc, opt.ignore_label, opt.load_size) == (9, None, 64)
    train = dataset("streets", augment=True, task="train", cache="ram")
    test = dataset("streets", split="test", task="instance")
    assert (len(train), len(test)) == (4, 3)
    assert not set(train.names) & set(test.names)
    assert train[0, 1]["image"].shape == (3, 64, 64)
    assert np.array_equal(to_uint8(test[0]["image"]), scene(0, split="test").image[:, 10:74])
    assert test[0]["mask"].sum() > 0


def test_random_cuts_of_training_differ():
    train = dataset("streets", augment=True, task="train")
    assert len({train[p, 0]["image"].numpy().tobytes() for p in range(6)}) > 3


def test_every_training_type_of_mask_erases_something():
    train = dataset("streets", augment=True, task="train", mask_schedule="index", streets_train_size=5)
    assert all(train[0, i]["mask"].sum() > 0 for i in range(5))


def test_errors():
    with pytest.raises(UserError, match="--split 'dev': streets has train, val, test"):
        dataset("streets", split="dev")
    with pytest.raises(UserError, match="--label_nc 5: streets has 9"):
        options("streets", label_nc=5)
    with pytest.raises(UserError, match="--streets_train_size 0"):
        dataset("streets", streets_train_size=0)


def test_label_map_and_more_channels():
    data = dataset("streets", label_map="4:3", label_nc=12)
    assert all(4 not in data[i]["label"] for i in range(4))
    assert len(data.class_names) == len(data.palette) == 12
    assert torch.all(data[0]["label"] < 9)
