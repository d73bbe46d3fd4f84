"""Foreground classes in classes.json, and the flags of the training masks that SIEDOB brought."""

from __future__ import annotations

import json

import numpy as np
import pytest
from data_folders import TABLE, dataset, make_folder, options
from hypothesis import given, settings
from hypothesis import strategies as st

from data import DATASETS
from data.masks import MASK_TYPES, parse_mask_types, thing_boxes
from data.prepare.writing import save_classes, write_class_table
from data.records import read_class_table
from data.streets.scene import CAR, CLASSES, PERSON
from options.train_options import TrainOptions
from util.errors import DataError, UserError
from util.object_rules import ObjectRule


def table_with(objects=None, **rules):
    classes = [{**entry, **({"object": rules[entry["name"]]} if entry["name"] in rules else {})}
               for entry in TABLE["classes"]]  # fmt: skip
    return {**TABLE, "classes": classes, **({} if objects is None else {"objects": objects})}


def read(tmp_path, table):
    (tmp_path / "classes.json").write_text(json.dumps(table))
    return read_class_table(tmp_path / "classes.json")


def test_rules_are_read_in_order_and_written_again(tmp_path):
    rules = {"c3": {"fill": 0.6}, "c4": {"aspect": [2, 6]}}
    plain = read(tmp_path, table_with(**rules))
    assert plain.objects == (ObjectRule(3, 0.6), ObjectRule(4, aspect=(2.0, 6.0)))
    turned = read(tmp_path, table_with(objects=[4, 3, 1], **rules))
    assert [rule.label for rule in turned.objects] == [4, 3, 1]
    write_class_table(tmp_path, turned)
    again = read_class_table(tmp_path / "classes.json")
    assert (again.objects, again.foreground, again.names, again.things) == (
        turned.objects, turned.objects, turned.names, turned.things
    )  # fmt: skip
    assert again.resized(4).objects == (ObjectRule(3, 0.6), ObjectRule(1))
    assert again.resized(7).objects == turned.objects


def test_things_are_the_foreground_where_nothing_is_described(tmp_path):
    table = read(tmp_path, TABLE)
    assert (table.objects, table.foreground) == ((), (ObjectRule(3), ObjectRule(4)))


@pytest.mark.parametrize(
    "table, message",
    [
        (table_with(objects=[3], c4={}), "class 4 has an object rule and is not in the list"),
        (table_with(objects=[3, 3]), "a class stands twice"),
        (table_with(c3={"fill": 1.5}), "object rule of class 3"),
        (table_with(c3={"aspect": [3, 2]}), "object rule of class 3"),
        (table_with(c3={"aspect": [3]}), "not a class table"),
        (table_with(objects=[9]), "KeyError: 9"),
    ],
)
def test_broken_rules(tmp_path, table, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, table)


def test_a_run_keeps_the_rules(tmp_path):
    save_classes(dataset("streets"), tmp_path)
    assert read_class_table(tmp_path / "classes.json").objects == CLASSES.objects
    assert [rule.label for rule in CLASSES.objects] == [CAR, PERSON]


def test_cityscapes_and_camvid_know_their_objects_whatever_the_age_of_the_folder(tmp_path):
    for mode, labels in (("cityscapes", [26, 24]), ("camvid", [8, 9, 10])):
        cls = DATASETS.get(mode)
        folder = tmp_path / mode
        folder.mkdir()
        write_class_table(folder, cls.built_in)
        content = json.loads((folder / "classes.json").read_text())
        assert cls.class_table(str(folder)).objects == cls.built_in.objects
        del content["objects"]
        for entry in content["classes"]:
            entry.pop("object", None)
        (folder / "classes.json").write_text(json.dumps(content))
        assert [rule.label for rule in cls.class_table(str(folder)).objects] == labels
    assert DATASETS.get("cityscapes").built_in.objects == (ObjectRule(26, 0.6), ObjectRule(24, 0.35, (2, 6)))
    other = make_folder(tmp_path / "other")
    assert DATASETS.get("cityscapes").class_table(str(other)).objects == (), "other classes, other objects"


# --- flags of the masks -----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("set"), count=6)


def training(root, **changes):
    return dataset(dataroot=root, augment=True, task="train", load_size=0, **changes)


def test_mask_types_are_tied_to_the_index(root):
    data = training(root, mask_types="extension,outpainting", mask_schedule="index")
    assert [data[4, i]["mask"].mean().item() for i in range(6)] == [0.5, 0.75] * 3
    drawn = {training(root, mask_types="extension,outpainting")[t, 0]["mask"].mean().item() for t in range(12)}
    assert drawn == {0.5, 0.75}


def test_naming_all_types_changes_nothing(root):
    a, b = training(root), training(root, mask_types=",".join(MASK_TYPES), mask_boxes=0.0)
    assert all((a[t, 0]["mask"] == b[t, 0]["mask"]).all() for t in range(8))


def test_wrong_flags(root):
    with pytest.raises(UserError, match=r"'outpaint' is unknown\. Did you mean 'outpainting'"):
        parse_mask_types("free_form,outpaint")
    with pytest.raises(UserError, match="--mask_types is empty"):
        parse_mask_types(" ,")
    for flag, value in (("--mask_types", "fre_form"), ("--mask_boxes", "1.5")):
        with pytest.raises(UserError, match=flag):
            TrainOptions().parse(["--name", "x", flag, value])
    opt = TrainOptions().parse(["--name", "x", "--mask_types", "free_form,extension", "--mask_boxes", "0.5"])
    assert (opt.mask_types, opt.mask_boxes) == ("free_form,extension", 0.5)


def test_boxes_come_on_top_of_the_mask_that_would_be_drawn_anyway(root):
    """Things of the folder are blocks of 16 pixels: over 400/16 = 25 pixels of a 64 picture, margin 1."""
    plain, always = training(root), training(root, mask_boxes=1.0)
    sometimes = training(root, mask_boxes=0.5)
    added = 0
    for epoch in range(20):
        a, b, c = plain[epoch, 1], always[epoch, 1], sometimes[epoch, 1]
        assert (a["image"] == b["image"]).all()
        ids = b["inst_id"][b["inst"]].numpy()
        assert np.array_equal(b["mask"][0].numpy(), np.maximum(a["mask"][0].numpy(), plain_boxes(ids)))
        assert any((c["mask"] == x["mask"]).all() for x in (a, b))
        added += bool((c["mask"] != a["mask"]).any())
    assert 3 <= added <= 17


def plain_boxes(ids, *, scale=64 / 256):
    mask = np.zeros(ids.shape)
    for number in np.unique(ids):
        rows, columns = np.nonzero(ids == number)
        if number < 1000 or len(rows) <= 400 * scale**2:
            continue
        grown = round(5 * scale)
        for r in range(ids.shape[0]):
            for c in range(ids.shape[1]):
                inside = rows.min() - grown <= r < rows.max() + grown and columns.min() - grown <= c
                mask[r, c] = max(mask[r, c], inside and c < columns.max() + grown)
    return mask


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_boxes_cover_their_things_and_leave_small_ones(seed):
    rng = np.random.RandomState(seed)
    ids = np.zeros((256, 256), int)
    top, left, height, width = rng.randint(0, 200), rng.randint(0, 200), rng.randint(21, 56), rng.randint(21, 56)
    ids[top : top + height, left : left + width] = 1
    ids[240:256, 0:25] = 2  # 400 pixels, or fewer: not more
    mask = thing_boxes(ids, [1, 2])
    expected = np.zeros_like(mask)
    expected[max(0, top - 5) : top + height + 4, max(0, left - 5) : left + width + 4] = 1
    assert np.array_equal(mask, expected)


def test_a_test_mask_has_no_boxes(root):
    a, b = (dataset(dataroot=root, mask_boxes=p, load_size=0) for p in (0.0, 1.0))
    assert all((a[i]["mask"] == b[i]["mask"]).all() for i in range(3))
    assert options(dataroot=root).label_nc == 5
