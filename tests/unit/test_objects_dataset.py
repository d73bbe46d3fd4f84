"""Single objects as a data set: what a sample holds, masks within the object, style partners, balance, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from data_folders import dataset, options
from hypothesis import given, settings
from hypothesis import strategies as st
from object_folders import crop_of, make_objects
from PIL import Image

from data import DATASETS
from data.checks import quick_check
from data.loader import make_loader, plain_pictures
from data.masks import OBJECT_BRUSH, brush, brush_strokes, strip
from data.prepare.writing import save_classes
from data.records import read_class_table
from options.train_options import TrainOptions
from util.batch import one_hot
from util.errors import DataError, UserError
from util.images import save_png, to_tensor
from util.seeds import random_pair

OUTSIDE = 2
quick = settings(deadline=None, max_examples=25)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_objects(tmp_path_factory.mktemp("objects"))


def objects(root, **changes):
    return dataset("objects", dataroot=root, **changes)


def training(root, **changes):
    return objects(root, augment=True, task="train", **changes)


def test_a_sample_is_the_crop_stretched_and_zero_outside(root):
    sample = objects(root, split="test", task="none")[2]
    image, mask = crop_of("person", 110)
    image, mask = (np.array(Image.fromarray(x).resize((64, 64), method)) for x, method in ((image, 2), (mask, 0)))
    inside = torch.from_numpy(mask > 0)
    assert sample["name"] == "person_p0"
    assert torch.equal(sample["label"], torch.where(inside, 1, OUTSIDE))
    assert torch.equal(sample["image"], torch.where(inside, to_tensor(image), 0.0))
    assert sample["image"][:, ~inside].abs().sum() == 0
    assert sample["inst_class"].tolist() == [OUTSIDE, 1]
    assert torch.equal(sample["inst"] == 1, inside)
    assert sample["mask"].sum() == 0


def test_the_class_map_is_that_of_the_release(root):
    """Car [1,0,0], person [0,1,0], times the object; the third channel is always 0, as released."""
    for index, vector in ((0, [1, 0, 0]), (2, [0, 1, 0])):
        label = objects(root, split="test")[index]["label"][None]
        inside = (label != OUTSIDE).float()
        class_map = one_hot(label, 3) * inside[:, None]
        assert torch.equal(class_map, torch.tensor(vector).view(1, 3, 1, 1) * inside[:, None])


@quick
@given(st.integers(0, 10**6), st.integers(0, 9), st.sampled_from(["index", "random"]))
def test_training_masks_lie_in_the_object_and_erase_some_of_it(root, epoch, index, schedule):
    sample = training(root, mask_schedule=schedule)[epoch, index]
    inside, mask = sample["label"] != OUTSIDE, sample["mask"][0] > 0
    assert mask.any()
    assert not (mask & ~inside).any()
    assert sample["image"][:, ~inside].abs().sum() == 0
    kind = int(sample["label"][inside][0])
    assert kind == index // 5
    partner = sample["style_label"]
    assert set(partner.unique().tolist()) == {kind, OUTSIDE}
    assert sample["style_image"][:, partner == OUTSIDE].abs().sum() == 0


@pytest.mark.parametrize("task", ["free_form", "extension", "instance", "class", "object_addition"])
def test_test_masks(root, task):
    for sample in objects(root, split="test", task=task):
        inside, mask = sample["label"] != OUTSIDE, sample["mask"][0] > 0
        assert mask.any()
        assert not (mask & ~inside).any()
        assert torch.equal(mask, inside) == (task not in ("free_form", "extension"))


def test_test_masks_are_the_object_brush_and_the_strip(root):
    for task in ("free_form", "extension"):
        sample = objects(root, split="test", task=task, seed=3)[1]
        R, NP = random_pair(3, task, 1)
        drawn = strip(R, 64) if task == "extension" else brush(R, NP, 64, OBJECT_BRUSH)
        inside = (sample["label"] != OUTSIDE).numpy()
        assert np.array_equal(sample["mask"][0].numpy(), drawn * inside)


@quick
@given(st.integers(0, 10**6), st.sampled_from([64, 128]))
def test_limits_of_strip_and_brush(seed, size):
    R, NP = random_pair(seed)
    mask = strip(R, size)
    lines = [(mask == 1).all(axis) for axis in (0, 1)]
    (solid,) = [line for line in lines if line.any()]
    assert int(size * 0.15) <= solid.sum() <= int(size * 0.65)
    assert mask.sum() == solid.sum() * size
    assert mask[0].all() or mask[-1].all() or mask[:, 0].all() or mask[:, -1].all()
    vertices, width = brush_strokes(R, NP, size, OBJECT_BRUSH)
    assert 4 <= len(vertices) <= 7
    assert 30 * size // 64 <= width <= 60 * size // 64


def test_every_third_mask_of_the_index_schedule_is_a_strip(root):
    """Replayed for crop 2 of the cars: enlarge or not, cut, flip, strip."""
    sample = training(root, mask_schedule="index", seed=1)[0, 2]
    R, _ = random_pair(1, "train", 0, 2)
    data = training(root, seed=1)
    cut = data._random_cut(data.maps(2), R)
    assert np.array_equal(sample["mask"][0].numpy(), strip(R, 64) * (cut.label != OUTSIDE))
    types = [training(root, mask_types="instance")[0, i] for i in range(10)]
    assert all(torch.equal(s["mask"][0] > 0, s["label"] != OUTSIDE) for s in types)


def test_the_index_schedule_counts_through_the_repeated_lists_as_the_release_does(root, monkeypatch):
    """Its list of a class: all crops again and again, 10000 entries; type = index % 3, over the classes' lists."""
    drawn = []
    monkeypatch.setattr("data.objects_dataset.strip", lambda R, size: drawn.append("strip") or np.ones((64, 64)))
    monkeypatch.setattr("data.objects_dataset.brush", lambda *_: drawn.append("brush") or np.ones((64, 64)))
    data = training(root, mask_schedule="index")
    for kind, crops in enumerate((["p0", "p1", "p2", "p3", "p4"], ["p0", "p1"])):
        released = [(name, 10_000 * kind + k) for k, name in enumerate((crops * 10_000)[:10_000])]
        for epoch in range(4) if kind == 0 else (0,):  # people are fewer: later epochs do not go on where one ended
            for k in range(data.largest):
                name, index = released[epoch * data.largest + k]
                sample = data[epoch, kind * data.largest + k]
                assert sample["name"].endswith(name)
                assert drawn.pop() == ("brush", "brush", "strip")[index % 3], (kind, epoch, k)
    assert not drawn


def test_augmentation_enlarges_half_and_flips_half(root):
    data = training(root)
    stored = data.maps(0)
    plain = flipped = 0
    for epoch in range(60):
        label = data[epoch, 0]["label"].numpy()
        plain += np.array_equal(label, stored.label)
        flipped += np.array_equal(label, stored.label[:, ::-1])
    assert plain + flipped > 15
    assert plain + flipped < 45, "about half are enlarged; the ellipse is its own mirror image up to a column"


def test_a_speck_is_never_cut_away(tmp_path):
    folder = make_objects(tmp_path)
    speck = np.zeros((64, 64), np.uint8)
    speck[0, 0] = 255
    save_png(speck, folder / "car" / "train" / "inst_mask" / "p0.png")
    data = training(folder)
    for epoch in range(20):
        sample = data[epoch, 0]
        assert (sample["label"] == 0).any()
        assert sample["mask"].sum() == (sample["label"] == 0).sum(), "missed by most masks, then erased whole"


def test_classes_are_balanced_in_training_and_complete_in_tests(root):
    data = training(root)
    kinds = [int(data[0, i]["label"].min()) for i in range(len(data))]
    assert kinds == [0] * 5 + [1] * 5
    assert {data[0, i]["name"] for i in range(10)} == {*(f"car_p{i}" for i in range(5)), "person_p0", "person_p1"}
    assert not torch.equal(data[0, 5]["mask"], data[0, 7]["mask"]), "a repeated crop gets draws of its own"
    assert [sample["name"] for sample in objects(root, split="test")] == ["car_p0", "car_p1", "person_p0"]
    assert len(objects(root, split="train", task="none")) == 7


def test_keys_decide_everything(root):
    a, b = training(root, cache="none"), training(root, cache="ram")
    for key in ((0, 0), (3, 7)):
        assert all(torch.equal(a[key][k], b[key][k]) for k in ("image", "mask", "style_image", "style_label"))
    partners = {a[epoch, 0]["style_image"].sum().item() for epoch in range(12)}
    assert len(partners) > 2
    tests = [objects(root, split="test", task=task)[0]["style_image"] for task in ("free_form", "instance")]
    assert torch.equal(*tests), "the partner of a test does not depend on the task"
    assert any(
        not torch.equal(tests[0], objects(root, split="test", seed=seed)[0]["style_image"]) for seed in range(1, 8)
    )


def test_workers_change_nothing(root):
    keys = [[(0, 2), (1, 9)], [(4, 1), (2, 5)]]
    runs = [list(make_loader(training(root), batch_size=2, num_workers=n, keys=keys)) for n in (0, 2)]
    for a, b in zip(*runs, strict=True):
        assert a["name"] == b["name"]
        assert all(torch.equal(a[k], b[k]) for k in a if isinstance(a[k], torch.Tensor))


def test_options_of_train_give_batches(root):
    opt = TrainOptions().parse(
        ["--name", "x", "--model", "siedob_style", "--dataset_mode", "objects", "--dataroot", str(root)]
    )
    assert (opt.label_nc, opt.load_size, opt.crop_size, opt.cache) == (3, 64, 64, "ram")
    data = DATASETS.get("objects").from_options(opt, split="train", augment=True, task="train")
    quick_check(data)
    batch = next(iter(make_loader(data, batch_size=4, num_workers=0)))
    assert batch["image"].shape == batch["style_image"].shape == (4, 3, 64, 64)
    assert batch["label"].shape == batch["style_label"].shape == (4, 64, 64)
    held_out = next(iter(plain_pictures(opt, "test", 2, task="free_form")))
    assert len(held_out["name"]) == 2
    with pytest.raises(UserError, match=r"'free_from' is unknown\. Did you mean 'free_form'"):
        TrainOptions().parse(["--name", "x", "--model", "siedob_style", "--dataset_mode", "objects",
                              "--dataroot", str(root), "--mask_types", "free_from"])  # fmt: skip


def test_masks_from_files_are_cut_by_the_object(root, tmp_path):
    half = np.zeros((64, 64), np.uint8)
    half[:32] = 255
    for i in range(3):
        save_png(half, tmp_path / f"{i}.png")
    for sample in objects(root, split="test", task="folder", mask_dir=tmp_path):
        inside = sample["label"].numpy() != OUTSIDE
        assert np.array_equal(sample["mask"][0].numpy() > 0, inside & (half > 0))


def test_a_run_knows_its_classes(root, tmp_path):
    save_classes(training(root), tmp_path)
    table = read_class_table(tmp_path / "classes.json")
    assert (table.names, table.scene_ids, table.things) == (("car", "person", "outside"), (26, 24), {0, 1})


def test_other_sizes(root):
    sample = training(root, crop_size=128)[0, 6]
    assert sample["image"].shape == sample["style_image"].shape == (3, 128, 128)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"task": "outpainting"}, "--task outpainting is not for single objects; .*free_form, extension"),
        ({"task": "object_removal"}, "--task object_removal is not for single objects"),
        ({"mask_boxes": 0.5}, "--mask_boxes erases things of a scene"),
        ({"mask_types": "outpainting"}, "--mask_types: 'outpainting' is unknown"),
        ({"label_nc": 34}, "--label_nc 34: .* has 2 classes"),
        ({"load_size": 256}, "--load_size 256: objects always have --crop_size, 64"),
        ({"label_map": "0:1"}, "--label_map and --ignore_label do not apply"),
        ({"split": "val"}, "no class has crops for the split 'val'"),
    ],
)
def test_flags_that_do_not_fit(root, changes, message):
    with pytest.raises(UserError, match=message):
        objects(root, **changes)


def test_no_class_table_shows_how_to_write_one(tmp_path):
    make_objects(tmp_path)
    (tmp_path / "classes.json").unlink()
    with pytest.raises(UserError, match=r"prepare_objects\.py writes it") as caught:
        objects(tmp_path)
    text = str(caught.value)
    shown = json.loads(text[text.index("{") :])
    (tmp_path / "classes.json").write_text(json.dumps(shown))
    assert objects(tmp_path).class_names == ["car", "person", "outside"]
    with pytest.raises(UserError, match="needs --dataroot"):
        options("objects")


def test_faults_of_files(tmp_path):
    folder = make_objects(tmp_path)
    masks = folder / "person" / "train" / "inst_mask"
    save_png(np.zeros((64, 32), np.uint8), masks / "person_p1.png")
    with pytest.raises(DataError, match=r"person_p1\.png: the object mask is empty"):
        training(folder, cache="ram")
    save_png(np.zeros((64, 64), np.uint8), masks / "person_p1.png")
    with pytest.raises(DataError, match=r"the object mask is 64x64, its picture .* is 32x64"):
        training(folder, cache="ram")
    (masks / "person_p1.png").unlink()
    with pytest.raises(DataError, match=r"person_p1\.png: .*inst_mask/person_p1\.png is missing"):
        training(folder)
    (folder / "car" / "train" / "images" / "p0.png").rename(folder / "car" / "train" / "images" / "car_p1.png")
    (folder / "car" / "train" / "inst_mask" / "p0.png").rename(folder / "car" / "train" / "inst_mask" / "car_p1.png")
    (folder / "person" / "train" / "images" / "person_p1.png").unlink()
    with pytest.raises(DataError, match="two crops of 'train' are called car_p1"):
        training(folder)
    with pytest.raises(DataError, match="does not exist; --dataroot needs"):
        objects(folder, augment=True, task="train", split="val")
