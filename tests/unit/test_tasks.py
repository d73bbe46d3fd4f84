"""Object tasks: which thing is erased, how far its mask reaches, what takes its place in the maps."""

import json
from random import Random

import numpy as np
import pytest
import torch
from data_folders import TABLE, dataset, make_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from data.edit.changes import change_radius
from data.loader import make_loader
from data.masks import ADDITION, OBJECT_TASKS, REMOVAL, MaskSetHash, has_truth
from data.records import Maps
from data.tasks import LARGEST, SMALLEST, Selection, object_mask, object_task, suitable, thing_instances
from models.networks.siedob.crops import find_objects
from util.batch import collate
from util.errors import DataError, UserError
from util.images import save_png
from util.object_rules import ObjectRule

quick = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 10**6)
SIZE = 64


def scene(seed, size=SIZE):
    """Stuff 0 and 1 above each other, and three boxes of class 2 with ids 2000.. that may hide each other."""
    rng = np.random.RandomState(seed)
    label = np.zeros((size, size), np.int32)
    label[rng.randint(size) :] = 1
    inst = label.copy()
    for k in range(3):
        top, left, height, width = rng.randint(0, size), rng.randint(0, size), *rng.randint(1, size // 2, 2)
        label[top : top + height, left : left + width] = 2
        inst[top : top + height, left : left + width] = 2000 + k
    return Maps(rng.randint(0, 256, (size, size, 3)).astype(np.uint8), label, inst)


@quick
@given(seeds)
def test_an_object_covers_1_to_25_percent_and_its_mask_leaves_something(seed):
    maps = scene(seed)
    things = thing_instances(maps.inst, maps.label, {2})
    assert things == [i for i in (2000, 2001, 2002) if (maps.inst == i).any()]
    chosen = suitable(maps.inst, things)
    for number in things:
        share = (maps.inst == number).mean()
        assert (number in chosen) == (SMALLEST <= share <= LARGEST)


@quick
@given(seeds, st.sampled_from([64, 128, 256]))
def test_the_mask_is_the_object_grown_by_3_percent_of_the_cut(seed, size):
    maps = scene(seed, size)
    number = int(maps.inst.max())
    where, mask = maps.inst == number, object_mask(maps.inst, number)
    assert mask[where].all()
    rows, columns = np.nonzero(where)
    grid = np.stack(np.indices(where.shape), -1)[~where][:: size // 16]  # some pixels outside, by brute force
    far = np.array([((rows - y) ** 2 + (columns - x) ** 2).min() for y, x in grid])
    assert np.array_equal(mask[~where][:: size // 16], far <= round(0.03 * size) ** 2)


def test_the_radius_scales_with_the_crop():
    assert [change_radius(size) for size in (64, 128, 256, 512)] == [2, 4, 8, 15]


@quick
@given(seeds)
def test_addition_keeps_the_maps_and_removal_fills_them_from_the_nearest_known_pixel(seed):
    maps = scene(seed)
    candidates = suitable(maps.inst, [2000, 2001, 2002])
    if not candidates:
        return
    kept, mask = object_task(ADDITION, maps, candidates, Random(seed))
    filled, same = object_task(REMOVAL, maps, candidates, Random(seed))
    assert np.array_equal(mask, same)
    assert kept is maps
    assert filled.image is maps.image
    known = mask == 0
    assert np.array_equal(filled.label[known], maps.label[known])
    assert np.array_equal(filled.inst[known], maps.inst[known])
    gone = [i for i in candidates if np.array_equal(object_mask(maps.inst, i), mask)]
    assert not np.isin(filled.inst, gone).any()
    rows, columns = np.nonzero(known)
    for y, x in list(zip(*np.nonzero(mask), strict=True))[::37]:
        distance = (rows - y) ** 2 + (columns - x) ** 2
        nearest = distance == distance.min()
        pairs = set(zip(maps.label[known][nearest].tolist(), maps.inst[known][nearest].tolist(), strict=True))
        assert (int(filled.label[y, x]), int(filled.inst[y, x])) in pairs


def test_only_single_things_count():
    label = np.array([[0, 0, 2, 2], [1, 1, 2, 2]])
    inst = np.array([[0, 0, 2000, 2], [1, 1, 2000, 2]])  # id 2: pixels of class 2 without an instance
    assert thing_instances(inst, label, {1, 2}) == [2000]
    assert thing_instances(inst, label, {0, 1}) == []
    assert thing_instances(label, label, {0, 1, 2}) == []


def test_a_lattice_whose_grown_mask_hides_everything_is_not_suitable():
    inst = np.zeros((SIZE, SIZE), int)
    inst[::3, ::3] = 7  # 12 % of the picture, nowhere further than 2 pixels
    assert suitable(inst, [7]) == []
    inst[20:30, 20:30] = 0
    assert suitable(inst, [7]) == [7]


# --- data sets -----------------------------------------------------------------------------------------------------
def streets(task, **changes):
    return dataset("streets", split="test", task=task, streets_test_size=8, **{"cache": "ram", **changes})


def test_object_tasks_take_the_classes_that_are_named():
    every, cars = streets(ADDITION), streets(ADDITION, object_classes="car,7")
    kept = cars.select()
    assert len(kept.indices) > 0
    for index in kept.indices:
        sample = cars[index]
        hidden = sample["label"][sample["mask"][0] > 0.5]
        assert ((hidden == 6) | (hidden == 7)).any()
    everything = streets(ADDITION, object_classes=",".join(map(str, sorted(every.things))))
    assert everything.select() == every.select()
    assert all((mask_of(everything, i) == mask_of(every, i)).all() for i in every.select().indices)
    with pytest.raises(UserError, match=r"no class 'cra'.*car"):
        streets(ADDITION, object_classes="cra")
    with pytest.raises(UserError, match="no class '99'"):
        streets(ADDITION, object_classes="99")


def test_a_removal_as_released_leaves_no_instance_and_no_edge():
    plain, released = streets(REMOVAL), streets(REMOVAL, removal="released")
    rules = [ObjectRule(label, fill=0.0) for label in sorted(plain.things)]
    found = {"thing": 0, "released": 0}
    assert released.select() == plain.select()
    for index in plain.select().indices:
        for data in (plain, released):
            sample = data[index]
            batch = collate([sample])
            maps = (batch["label"], batch["inst"], batch["inst_id"], batch["mask"])
            found[data.removal] += len(find_objects(*maps, rules=rules))
        assert torch.equal(sample["mask"], plain[index]["mask"])
        assert torch.equal(sample["label"], plain[index]["label"])
        assert torch.equal(sample["inst_id"][sample["inst"]], sample["label"])
        assert sample["edge"].sum() == 0 < plain[index]["edge"].sum()
    assert found["released"] == 0 < found["thing"]
    assert streets(ADDITION, removal="released")[0]["edge"].any()


def mask_of(data, index):
    return data[index]["mask"]


def mask_hash(data, **how):
    digest = MaskSetHash()
    for batch in make_loader(data, **how):
        for name, mask in zip(batch["name"], batch["mask"].numpy(), strict=True):
            digest.update(name, mask)
    return digest.hexdigest()


def test_masks_depend_on_the_seed_alone_and_both_tasks_share_them():
    one = mask_hash(streets(ADDITION), batch_size=1, num_workers=0)
    assert one == mask_hash(streets(ADDITION), batch_size=3, num_workers=1)
    assert one == mask_hash(streets(REMOVAL), batch_size=8, num_workers=0)
    assert one != mask_hash(streets(ADDITION, seed=1), batch_size=8, num_workers=0)


def test_the_two_tasks_differ_in_the_labels_under_the_mask_alone():
    added, removed = streets(ADDITION), streets(REMOVAL)
    for i in added.select().indices:
        a, r = added[i], removed[i]
        known = a["mask"][0] == 0
        assert torch.equal(a["image"], r["image"])
        assert torch.equal(a["label"][known], r["label"][known])
        chosen = set(a["inst_id"].tolist()) - set(r["inst_id"].tolist())
        assert any(np.array_equal(object_mask(a["inst"].numpy(), a["inst_id"].tolist().index(n)), ~known.numpy())
                   for n in chosen)  # fmt: skip
    assert has_truth(ADDITION) and not has_truth(REMOVAL)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Six pictures; p1 and p4 have an object too small, too large or none."""
    path = make_folder(tmp_path_factory.mktemp("set"), splits=("test",), count=6, height=64, width=64)
    for i in range(6):
        label = np.zeros((64, 64), np.uint8)
        label[: {1: 0, 4: 50}.get(i, 20), :30] = 3
        save_png(label, path / "test/labels" / f"p{i}.png")
        save_png(np.where(label == 3, 3000, label.astype(np.uint16)), path / "test/inst_map" / f"p{i}.png")
    return path


@pytest.mark.parametrize("task", OBJECT_TASKS)
def test_pictures_without_an_object_are_left_out_and_counted(root, task):
    data = dataset(dataroot=root, split="test", task=task)
    told = "2 of 6 pictures have no thing instance of 1 to 25 %: left out"
    assert data.select() == Selection([0, 2, 3, 5], looked_at=6)
    assert data.select().notes == [told]
    assert data.select(2) == Selection([0, 2], looked_at=3)
    assert data.select(2).notes == ["1 of 3 pictures has no thing instance of 1 to 25 %: left out"]
    assert data.select(1).notes == []
    assert data.select(100).left_out == 2
    with pytest.raises(DataError, match=r"p1: --task object_.* needs a thing instance"):
        data[1]
    assert dataset(dataroot=root, split="test").select(4) == Selection([0, 1, 2, 3], looked_at=4)


def test_a_data_set_without_things_or_instances_is_told(root, tmp_path):
    make_folder(tmp_path, splits=("test",), count=1)
    stuff = [{**entry, "thing": False} for entry in TABLE["classes"]]
    (tmp_path / "classes.json").write_text(json.dumps({**TABLE, "classes": stuff}))
    with pytest.raises(UserError, match=r"none of the 1 pictures of 'test' has a thing instance.*classes\.json"):
        dataset(dataroot=tmp_path, split="test", task=ADDITION).select()
    (tmp_path / "classes.json").write_text(json.dumps(TABLE))
    for path in (tmp_path / "test/inst_map").iterdir():
        path.unlink()
    (tmp_path / "test/inst_map").rmdir()
    with pytest.raises(UserError, match="needs instance maps"):
        dataset(dataroot=tmp_path, split="test", task=REMOVAL).select()


def test_rooms_take_every_instance_and_landscapes_none():
    from data.ade20k_dataset import Ade20kLandscapeDataset, Ade20kRoomDataset

    inst = np.array([[0, 0, 263], [5, 5, 263]])
    assert Ade20kRoomDataset.objects(object(), inst, inst) == [5, 263]
    assert Ade20kLandscapeDataset.objects(object(), inst, inst) == []
