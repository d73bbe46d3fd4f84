"""Folder data sets: pairing, contracts with their messages, options, and the rules of each mode."""

import json
import os

import numpy as np
import pytest
import torch
from data_folders import TABLE, dataset, make_folder, maps_of, options
from PIL import Image

from data import DATASETS
from data.checks import check_split, quick_check
from data.records import parse_label_map
from models.networks.siedob.crops import find_objects
from util.edges import mark_edges
from util.errors import DataError, UserError
from util.images import save_png, to_uint8
from util.object_rules import ObjectRule

ASSETS = os.environ.get("TEST_ASSETS", "")
needs_assets = pytest.mark.skipif(not os.path.isdir(ASSETS), reason="TEST_ASSETS is unset or missing")


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path)


def first(root, kind="labels"):
    return root / "train" / kind / "p0.png"


def write(path, array):
    Image.fromarray(array).save(path)


def test_registry_knows_the_modes():
    modes = {"ade20k_landscape", "ade20k_room", "camvid", "cityscapes", "custom", "streets"}
    assert modes <= set(DATASETS.names())


def test_defaults_come_from_the_class_table(root):
    opt = options(dataroot=root)
    assert (opt.label_nc, opt.ignore_label, opt.load_size) == (5, 255, 64)
    data = dataset(dataroot=root)
    assert data.class_names == ["c0", "c1", "c2", "c3", "c4"]
    assert data.palette.tolist() == [[i, 2 * i, 3 * i] for i in range(5)]
    assert (data.things, data.ignore_label, data.label_nc, len(data)) == ({3, 4}, 255, 5, 3)
    assert options(dataroot=root, label_nc=7, ignore_label=6, load_size=0).label_nc == 7
    assert dataset(dataroot=root, label_nc=7).class_names[5:] == ["class 5", "class 6"]
    assert dataset(dataroot=root, ignore_label=-1).ignore_label is None


@pytest.mark.parametrize("mode, label_nc", [("cityscapes", 34), ("ade20k_room", 151), ("ade20k_landscape", 151)])
def test_built_in_tables(mode, label_nc, tmp_path):
    opt = options(mode, dataroot=make_folder(tmp_path, table=None))
    assert (opt.label_nc, opt.ignore_label, opt.load_size) == (label_nc, None, 0)


def test_no_class_table_and_no_flag(tmp_path):
    with pytest.raises(UserError, match=r"classes\.json does not exist; make it or give --label_nc"):
        options(dataroot=make_folder(tmp_path, table=None))
    with pytest.raises(UserError, match="--dataroot"):
        options("camvid")


def test_a_wrong_dataroot_is_told_for_what_it_is(tmp_path):
    root = make_folder(tmp_path / "set")
    for place, words in (
        (tmp_path / "none", r"--dataroot .*none: no such folder"),
        (root / "train", r"is no data set: it has neither classes.json nor .*; did you mean --dataroot .*set\?"),
        (tmp_path, r"is no data set: .*; did you mean --dataroot .*set\?"),
        (root / "train" / "images", r"is no data set: it has neither classes.json nor <split>/images \("),
    ):
        with pytest.raises(UserError, match=words):
            options(dataroot=place)


def test_a_broken_class_table(root):
    (root / "classes.json").write_text('{"num_classes": 3}')
    with pytest.raises(DataError, match=r"classes\.json: not a class table \(KeyError: 'classes'\)"):
        options(dataroot=root)


def test_missing_split_names_those_that_exist(root):
    with pytest.raises(DataError, match=r"val does not exist; .*Splits there: test, train"):
        dataset(dataroot=root, split="val")


@pytest.mark.parametrize("kind", ["labels", "inst_map"])
def test_missing_partner(root, kind):
    first(root, kind).unlink()
    with pytest.raises(DataError, match=rf"p0\.png: .*{kind}/p0\.png is missing"):
        dataset(dataroot=root)


def test_orphans_and_doubles(root):
    first(root, "images").rename(root / "train" / "images" / "other.png")
    with pytest.raises(DataError, match="more problems"):
        dataset(dataroot=root)
    make_folder(root)
    (root / "train" / "images" / "other.png").rename(root / "train" / "images" / "p0.jpg")
    with pytest.raises(DataError, match="a second file of this name"):
        dataset(dataroot=root)


def test_ids_outside_the_classes(root):
    label = maps_of(0)[1]
    label[30:33, 30:40] = 77
    write(first(root), label)
    fault = (
        r"train/labels/p0\.png: label ids outside the 5 classes: 77 \(30 pixels\)\. "
        r"Leave them out with --ignore_label 77 .*--label_map 77:0\. .*--label_nc 78"
    )
    with pytest.raises(DataError, match=fault):
        dataset(dataroot=root)[0]
    assert 77 in dataset(dataroot=root, ignore_label=77, load_size=0)[0]["label"]
    assert 77 in dataset(dataroot=root, label_nc=78, load_size=80)[0]["label"]
    mapped = dataset(dataroot=root, label_map="77:0", load_size=0)[0]["label"]
    assert mapped.max() < 5


def test_the_ignored_id_is_accepted_and_never_the_class_of_a_test(root):
    label = np.full((80, 96), 255, np.uint8)
    label[20:40, 40:60] = 2
    write(first(root), label)
    for seed in range(6):
        sample = dataset(dataroot=root, task="class", seed=seed, load_size=0)[0]
        assert sample["label"][sample["mask"][0] > 0].unique().tolist() == [2]


def test_label_map_swaps_at_once():
    assert parse_label_map("255:0,3:4") == {255: 0, 3: 4}
    assert parse_label_map(None) == {}
    with pytest.raises(UserError, match="--label_map: '3=4' is not OLD:NEW"):
        parse_label_map("3=4")
    from data.records import MapRules

    swapped = MapRules(label_nc=5, label_map={3: 4, 4: 3}).map_labels(np.array([3, 4, 1]))
    assert swapped.tolist() == [4, 3, 1]


@pytest.mark.parametrize("kind, what", [("labels", "label map"), ("inst_map", "instance map")])
def test_sizes_that_differ(root, kind, what):
    write(first(root, kind), np.zeros((80, 95), np.uint16 if kind == "inst_map" else np.uint8))
    with pytest.raises(DataError, match=rf"{kind}/p0\.png: the {what} is 95x80, its picture .* is 96x80"):
        dataset(dataroot=root)[0]


def test_rgb_labels(root):
    write(first(root), np.zeros((80, 96, 3), np.uint8))
    with pytest.raises(DataError, match=r"labels/p0\.png: the label map has colours"):
        dataset(dataroot=root)[0]


def test_8_bit_instance_maps(root):
    for path in (root / "train" / "inst_map").iterdir():
        write(path, maps_of(0)[1])
    with pytest.raises(DataError, match=r"inst_map/p0\.png: the instance map has 8 bits, ids need 16"):
        dataset("camvid", dataroot=root)[0]
    with pytest.warns(UserWarning, match="8-bit instance maps") as said:
        data = dataset(dataroot=root)
        data[0], data[1]
    assert len(said) == 1
    report = check_split(root / "train", data.rules)
    assert not report.problems
    assert report.notes["maps"][0] == str(said[0].message)
    assert len(report.notes["maps"]) == len(data)


def test_smaller_than_the_crop(root):
    with pytest.raises(DataError, match=r"p0: 96x80 .* smaller than --crop_size 128; give --load_size 128"):
        dataset(dataroot=root, crop_size=128, load_size=0)[0]
    assert dataset(dataroot=root, crop_size=128)[0]["image"].shape == (3, 128, 128)


def test_truncated_picture_is_named(root):
    path = root / "train" / "images" / "p2.png"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"p2\.png: the picture cannot be decoded"):
        quick_check(dataset(dataroot=root))
    with pytest.raises(DataError, match=r"p2\.png"):
        dataset(dataroot=root, cache="ram")


def test_quick_check_passes_on_a_good_folder(root):
    quick_check(dataset(dataroot=root, augment=True, task="train"))


def test_without_instance_maps_labels_are_ids(root):
    for path in (root / "train" / "inst_map").iterdir():
        path.unlink()
    (root / "train" / "inst_map").rmdir()
    sample = dataset(dataroot=root)[0]
    assert torch.equal(sample["inst_id"][sample["inst"]], sample["label"])
    assert torch.equal(sample["inst_class"], sample["inst_id"])


def test_room_ids_are_whole_colours_and_zero_is_the_label(tmp_path):
    root = make_folder(tmp_path, table=None)
    colours = np.zeros((80, 96, 3), np.uint8)
    colours[:40, :48] = (7, 1, 0)
    colours[40:, 48:] = (3, 2, 0)
    for path in (root / "train" / "inst_map").iterdir():
        write(path, colours)
    data = dataset("ade20k_room", dataroot=root)
    sample = data[0]
    ids = sample["inst_id"][sample["inst"]]
    assert {7 + 256, 3 + 512} <= set(ids.unique().tolist())
    assert torch.equal(ids[ids < 256], sample["label"][ids < 256])
    assert data.instance_candidates(data.maps(0).inst, data.maps(0).label) == [0, 263, 515]


def test_rooms_read_as_released_have_no_borders_between_stuff(tmp_path):
    """SPMPGAN's data loader reads the number of the instance alone, which is 0 on all stuff."""
    root = make_folder(tmp_path, table=None, count=1)
    colours = np.zeros((80, 96, 3), np.uint8)
    colours[20:60, 30:70] = (7, 1, 0)
    write(root / "train" / "inst_map" / "p0.png", colours)
    write(root / "train" / "labels" / "p0.png", np.repeat(np.arange(1, 5, dtype=np.uint8), 24)[None].repeat(80, axis=0))
    ours, released = (
        dataset("ade20k_room", dataroot=root, stuff_instances=how, load_size=0)[0] for how in ("label", "released")
    )
    green = torch.from_numpy(colours[8:72, 16:80, 1].astype(np.int64))  # of the centre cut
    assert torch.equal(released["inst"], green)
    edge = released["edge"][0] == 1
    assert torch.equal(edge, mark_edges(green))
    assert (ours["edge"][0][edge] == 1).all() and (ours["edge"][0] == 1).sum() > edge.sum()
    assert released["inst_id"].tolist() == [released["inst_class"][0], 7 + 256], "stuff is a region, no single thing"
    for key in ("image", "label", "mask"):
        assert torch.equal(ours[key], released[key])


def test_candidates_of_the_modes(tmp_path):
    root = make_folder(tmp_path)
    inst, label = np.array([[3, 24, 999, 3001, 4000]]), np.array([[3, 0, 1, 3, 4]])
    found = {mode: dataset(mode, dataroot=root, label_nc=5) for mode in ("cityscapes", "camvid", "ade20k_landscape")}
    assert found["cityscapes"].instance_candidates(inst, label) == [3001, 4000]
    assert found["cityscapes"].instance_candidates(inst[:, :3], label[:, :3]) == []
    assert found["camvid"].instance_candidates(inst, label) == [3, 3001, 4000]
    assert found["camvid"].instance_candidates(inst[:, 1:3], label[:, 1:3]) == [24, 999]
    assert found["ade20k_landscape"].mask_types == ("free_form", "extension", "outpainting", "class")


def test_landscape_ties_four_types_to_the_index(tmp_path):
    data = dataset(
        "ade20k_landscape", dataroot=make_folder(tmp_path, count=6), augment=True, task="train", mask_schedule="index"
    )
    shares = [data[0, i]["mask"].mean().item() for i in range(6)]
    assert (shares[1], shares[2], shares[5]) == (0.5, 0.75, 0.5)


def test_on_cityscapes_only_ids_from_1000_on_are_single_things(tmp_path):
    """With the release's label map, unlabelled pixels are of class 33, bicycle, and of id 0."""
    root = make_folder(tmp_path, splits=("test",), count=1, height=64, width=64)
    label = np.full((64, 64), 7, np.uint8)
    label[:20, :20], label[30:50, 30:50], label[30:50, :20] = 0, 33, 33
    inst = label.astype(np.uint16)
    inst[30:50, 30:50] = 33000  # the other bicycles are a group
    save_png(label, root / "test/labels" / "p0.png")
    save_png(inst, root / "test/inst_map" / "p0.png")
    (root / "classes.json").unlink()
    data = dataset("cityscapes", dataroot=root, split="test", label_map="0:33", task="object_addition", load_size=0)
    mapped = data.maps(0).label
    assert (mapped[:20, :20] == 33).all()
    assert data.objects(inst, mapped) == [33000]
    sample = data[0]
    assert (sample["mask"][0, 30:50, 30:50] == 1).all() and not sample["mask"][0, :20, :20].any()
    assert sample["inst_id"].tolist() == [33, 7, 33, 33000]
    maps = sample["label"][None], sample["inst"][None], sample["inst_id"][None], torch.ones(1, 1, 64, 64)
    found = find_objects(*maps, rules=[ObjectRule(33, 0.1)])
    assert found.number.tolist() == [3], "SIEDOB's objects follow"
    assert sample["edge"][0, 19, :20].all(), "regions stay apart"


@needs_assets
@pytest.mark.parametrize("crop", [128, 256])
def test_camvid(crop):
    data = dataset("camvid", dataroot=f"{ASSETS}/camvid", split="val", crop_size=crop)
    assert (len(data), data.label_nc, data.ignore_label, data.things) == (101, 12, 11, {8, 9, 10})
    for index in (0, 50, 100):
        sample = data[index]
        ids, classes = sample["inst_id"], sample["inst_class"]
        assert torch.equal(classes, torch.where(ids >= 1000, ids // 1000, ids))
        assert torch.equal(classes[sample["inst"]], sample["label"])


@needs_assets
def test_real_rooms():
    data = dataset("ade20k_room", dataroot=f"{ASSETS}/samples/ade20k_room", augment=True, task="train", crop_size=256)
    assert [data[i]["image"].shape for i in range(3)] == [(3, 256, 256)] * 3
    assert all(len(data[i]["inst_id"]) > 5 for i in range(3))


@needs_assets
@pytest.mark.parametrize(
    "folder, mode, flags",
    [("flickr_landscape", "ade20k_landscape", {}), ("coco_stuff", "custom", {"label_nc": 182, "ignore_label": 255})],
)
@pytest.mark.filterwarnings("ignore:.*8-bit instance maps")
def test_real_folders(tmp_path, folder, mode, flags):
    (tmp_path / "test").symlink_to(f"{ASSETS}/samples/{folder}")
    data = dataset(mode, dataroot=tmp_path, split="test", crop_size=256, task="class", **flags)
    for sample in data:
        assert sample["mask"].sum() > 0
        if folder == "flickr_landscape":
            assert torch.equal(sample["inst_id"], 121 * sample["inst_class"] + 120)


@needs_assets
def test_test_pictures_are_exact_cuts_of_the_file():
    data = dataset("camvid", dataroot=f"{ASSETS}/camvid", split="test", crop_size=256)
    stored = np.array(Image.open(data.records[3].image))[:, 42:298]
    assert np.array_equal(to_uint8(data[3]["image"]), stored)


def test_table_in_the_tests_is_the_documented_schema():
    assert set(json.loads(json.dumps(TABLE))["classes"][0]) == {"id", "name", "color", "thing"}


def test_ade20k_knows_its_classes():
    room, landscape = (DATASETS.get(f"ade20k_{subset}").class_table(None) for subset in ("room", "landscape"))
    assert room.names == landscape.names
    assert [room.names.index(name) for name in ("other", "wall", "bed", "flag")] == [0, 1, 8, 150]
    assert len(room.things) == 100
    assert not landscape.things
