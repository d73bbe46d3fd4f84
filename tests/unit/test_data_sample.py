"""Samples: the order of draws, geometry, dense instances, keys."""

import warnings

import numpy as np
import pytest
import torch
from data_folders import dataset, make_folder, maps_of, options
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_toys import assert_same

from data import DATASETS
from data.instances import dense_instances, unique_ids, worth_testing
from data.loader import make_loader, plain_pictures
from data.masks import make_mask
from util.errors import DataError, UserError
from util.images import to_uint8
from util.seeds import random_pair


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("set"))


def test_sample_contract(root):
    sample = dataset(dataroot=root)[1]
    assert sample["image"].shape == (3, 64, 64)
    assert sample["label"].shape == sample["inst"].shape == (64, 64)
    assert sample["edge"].shape == sample["mask"].shape == (1, 64, 64)
    assert sample["label"].dtype == sample["inst"].dtype == sample["inst_id"].dtype == torch.int64
    assert sample["image"].dtype == sample["edge"].dtype == sample["mask"].dtype == torch.float32
    assert (sample["name"], sample["index"]) == ("p1", 1)


def test_testing_cuts_the_centre_of_what_is_stored(root):
    image, label, inst = (array[8:72, 16:80] for array in maps_of(10, height=80, width=96))
    sample = dataset(dataroot=root, split="test", load_size=80)[0]
    assert np.array_equal(to_uint8(sample["image"]), image)
    assert np.array_equal(sample["label"].numpy(), label)
    assert np.array_equal(sample["inst_id"][sample["inst"]].numpy(), inst)


@pytest.mark.parametrize("width, lefts", [(96, (0, 32)), (128, (0, 64)), (160, (8, 88))])
def test_both_halves_of_a_picture_are_tested(tmp_path, width, lefts):
    root = make_folder(tmp_path, splits=("train", "test"), count=2, height=80, width=width)
    wide = {"dataroot": root, "test_cuts": "halves", "load_size": 0}
    for data in (dataset(split="test", **wide), dataset(split="test", cache="ram", **wide)):
        assert data.names == ["p0_l", "p0_r", "p1_l", "p1_r"] and len(data) == data.select().looked_at == 4
        for index, sample in enumerate(data):
            left = lefts[index % 2]
            image = maps_of(10 + index // 2, height=80, width=width)[0][8:72, left : left + 64]
            assert np.array_equal(to_uint8(sample["image"]), image)
            assert (sample["name"], sample["index"]) == (data.names[index], index)
    assert not torch.equal(data[0]["mask"], data[1]["mask"]), "each half has a mask of its own"
    assert dataset(augment=True, task="train", **wide).names == dataset(task="none", **wide).names == ["p0", "p1"]
    high = make_folder(tmp_path / "high", count=1, height=80, width=64)
    with pytest.raises(DataError, match="p0_l: is no wider than the crop"):
        dataset(split="test", **wide | {"dataroot": high})[0]


@pytest.mark.parametrize("schedule", ["index", "random"])
@pytest.mark.parametrize("epoch, index", [(0, 0), (7, 1), (7, 2), (8, 0), (8, 1), (9, 2)])
def test_training_draws_in_the_released_order(root, schedule, epoch, index):
    """x, y, flip, instance, label, (type), mask: an independent replay gives the same sample."""
    ours = dataset(dataroot=root, augment=True, task="train", load_size=0, mask_schedule=schedule, seed=5)[epoch, index]
    R, NP = random_pair(5, "train", epoch, index)
    x, y = R.randint(0, 96 - 64), R.randint(0, 80 - 64)
    image, label, inst = (array[y : y + 64, x : x + 64] for array in maps_of(index))
    if R.random() > 0.5:
        image, label, inst = image[:, ::-1], label[:, ::-1], inst[:, ::-1]
    things = [i for i in np.unique(inst).tolist() if i >= 1000]
    chosen_inst = R.choice(things)
    chosen_label = R.choice(np.unique(label).tolist())
    kind = index % 5 if schedule == "index" else R.randrange(5)
    task = ("free_form", "extension", "outpainting", "class", "instance")[kind]
    mask = make_mask(task, R, NP, label=label, inst=inst, chosen_label=chosen_label, chosen_inst=chosen_inst)
    assert np.array_equal(to_uint8(ours["image"]), image)
    assert np.array_equal(ours["label"].numpy(), label)
    assert np.array_equal(ours["inst_id"][ours["inst"]].numpy(), inst)
    assert np.array_equal(ours["mask"][0].numpy(), mask)


def test_keys_decide_everything(root):
    train = dataset(dataroot=root, augment=True, task="train")
    assert torch.equal(train[3, 1]["image"], train[3, 1]["image"])
    assert torch.equal(train[1]["mask"], train[0, 1]["mask"])
    assert any(not torch.equal(train[0, 1]["image"], train[p, 1]["image"]) for p in range(1, 6))
    test = dataset(dataroot=root, seed=1)
    assert torch.equal(test[4, 1]["mask"], test[1]["mask"]), "a test mask does not depend on the epoch"
    assert not torch.equal(test[1]["mask"], dataset(dataroot=root, seed=2)[1]["mask"])


def test_all_types_come_up_under_the_random_schedule(root):
    train = dataset(dataroot=root, augment=True, task="train")
    shares = {round(train[p, 0]["mask"].mean().item(), 6) for p in range(40)}
    assert {0.5, 0.75} <= shares
    assert len(shares) > 5


@pytest.mark.parametrize("task", ["class", "instance"])
def test_class_and_instance_masks_erase_what_they_name(root, task):
    for sample in (dataset(dataroot=root, task=task)[i] for i in range(3)):
        erased = sample["mask"][0] > 0
        assert erased.any()
        if task == "class":
            (label,) = sample["label"][erased].unique().tolist()
            assert torch.equal(sample["label"] == label, erased)


def test_samples_say_whether_an_instance_is_hidden(root):
    seen = set()
    for task in ("none", "free_form", "class", "instance", "outpainting"):
        for sample in (dataset(dataroot=root, task=task)[i] for i in range(3)):
            erased = sample["mask"][0] == 1
            hidden = any(bool(erased[sample["inst"] == number].all()) for number in sample["inst"].unique())
            assert sample["hidden"] is hidden
            seen.add(hidden)
    assert seen == {False, True}


def test_cache_changes_nothing(root):
    for a, b in zip(dataset(dataroot=root), dataset(dataroot=root, cache="ram"), strict=False):
        assert all(torch.equal(a[k], b[k]) for k in ("image", "label", "inst", "inst_class", "mask"))


def test_workers_change_nothing_and_batches_are_padded(root):
    train = dataset(dataroot=root, augment=True, task="train")
    keys = [[(0, 2), (1, 0)], [(4, 1)]]
    alone, helped = (list(make_loader(train, batch_size=1, num_workers=n, keys=keys)) for n in (0, 1))
    assert [b["name"] for b in alone] == [["p2", "p0"], ["p1"]] == [b["name"] for b in helped]
    for a, b in zip(alone, helped, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in ("image", "inst", "inst_class", "mask"))
        assert a["inst_id"].shape[1] == int(a["inst"].max()) + 1


def test_ordered_loader_ends_with_a_smaller_batch(root):
    assert [b["index"] for b in make_loader(dataset(dataroot=root), batch_size=2, num_workers=0)] == [[0, 1], [2]]


def test_plain_pictures_are_not_read_again_where_training_keeps_them(root, monkeypatch):
    opt = options(dataroot=root, num_workers=0, batch_size=2)
    read = list(plain_pictures(opt, "train"))
    kept = DATASETS.get("custom").from_options(
        options(dataroot=root, cache="ram"), split="train", augment=True, task="train"
    )
    looked_at, decode = list[int](), type(kept).decode
    monkeypatch.setattr(type(kept), "decode", lambda data, index: (looked_at.append(index), decode(data, index))[1])
    assert_same(list(plain_pictures(opt, "train", kept=kept)), read)
    assert not looked_at
    list(plain_pictures(opt, "test", kept=kept))
    assert len(looked_at) == 3, "other pictures, of the same names"


def test_plain_pictures_are_a_seeded_choice_and_unerased(root):
    opt = options(dataroot=root, batch_size=1)
    chosen = list(plain_pictures(opt, "train", 2))
    assert len({batch["name"][0] for batch in chosen}) == 2
    assert all(batch["mask"].sum() == 0 for batch in chosen)
    again = plain_pictures(opt, "train", 2)
    assert [batch["name"] for batch in again] == [batch["name"] for batch in chosen]
    assert sorted(batch["name"][0] for batch in plain_pictures(opt, "test")) == ["p0", "p1", "p2"]


def test_a_fault_in_a_worker_is_one_line(tmp_path):
    data = dataset(dataroot=make_folder(tmp_path))
    (tmp_path / "train" / "images" / "p1.png").write_bytes(b"broken")
    with pytest.raises(DataError) as caught:
        list(make_loader(data, batch_size=1, num_workers=1))
    assert str(caught.value).startswith(str(tmp_path / "train" / "images" / "p1.png"))
    assert "\n" not in str(caught.value)


def test_a_killed_worker_is_one_line(root):
    class Deadly(DATASETS.get("custom")):
        def decode(self, index):
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)

    data = dataset(dataroot=root)
    data.__class__ = Deadly
    with pytest.raises(UserError, match=r"a data worker died .*SIGKILL.*--num_workers"):
        list(make_loader(data, batch_size=1, num_workers=1))


def test_masks_from_a_folder(root, tmp_path):
    import random

    from data.masks import extension, outpainting
    from util.images import save_png

    masks = [extension(64), outpainting(random.Random(0), 64), extension(64)[:, ::-1].copy()]
    for i, mask in enumerate(masks):
        save_png(mask * 255, tmp_path / f"{i}.png")
    data = dataset(dataroot=root, task="folder", mask_dir=tmp_path)
    assert all(np.array_equal(data[i]["mask"][0].numpy(), mask) for i, mask in enumerate(masks))
    with pytest.raises(UserError, match="--mask_dir"):
        dataset(dataroot=root, task="folder")


def test_unknown_task(root):
    with pytest.raises(UserError, match="--task 'freeform' is unknown"):
        dataset(dataroot=root, task="freeform")


def test_mod120_rule(root):
    sample = dataset(dataroot=root, inst_class_rule="mod120")[0]
    assert torch.equal(sample["inst_class"], sample["inst_id"] % 120)


def plain_classes(inst, label):
    classes = []
    for i in np.unique(inst):
        labels, counts = np.unique(label[inst == i], return_counts=True)
        classes.append(int(labels[counts == counts.max()].min()))
    return classes


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 9), st.sampled_from([1, 700, 90000]))
def test_dense_instances_equal_a_plain_loop(seed, ids, labels, stretch):
    rng = np.random.RandomState(seed)
    inst = (rng.randint(0, ids, (13, 11)) * stretch).astype(np.int32)
    label = rng.randint(0, labels, (13, 11)).astype(np.uint8)
    dense, inst_id, inst_class = dense_instances(inst, label)
    assert np.array_equal(inst_id, np.unique(inst))
    assert np.array_equal(unique_ids(inst), inst_id)
    assert np.array_equal(inst_id[dense], inst)
    assert inst_class.tolist() == plain_classes(inst, label)


def test_a_tie_goes_to_the_lowest_label():
    assert dense_instances(np.full((1, 4), 9), np.array([[7, 3, 3, 7]]))[2].tolist() == [3]


def test_test_masks_choose_what_can_be_judged():
    ids = np.zeros((64, 64), int)
    ids[:8, :8], ids[20:22, 20:22], ids[63, :] = 1, 2, 3  # 64 pixels, 4 pixels, one row of 64; 32 are 1/128
    assert worth_testing(ids, [0, 1, 2, 3], boxed=False) == [0, 1, 3]
    assert worth_testing(ids, [0, 1, 2, 3], boxed=True) == [0, 1]
    assert worth_testing(ids, [2], boxed=True) == [2], "the largest, if all are small"
    assert worth_testing(ids, [3], boxed=True) == []


def test_no_warning_for_16_bit_maps(root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset(dataroot=root)
