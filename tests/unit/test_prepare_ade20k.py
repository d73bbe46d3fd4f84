"""scripts/prepare_ade20k.py: subsets by scene, sizes by the published rule, colour instance maps, faults named."""

import os
from pathlib import Path

import numpy as np
import pytest
from data_folders import dataset
from prepare_archives import ADE, ade20k, ade_maps, encode, unpack, write_tar, write_zip

from data.ade20k_classes import NAMES, THINGS
from data.records import Maps
from scripts import check_data, prepare_ade20k
from util.errors import DataError, UserError
from util.images import read_map

ASSETS = os.environ.get("TEST_ASSETS", "")
needs_assets = pytest.mark.skipif(not os.path.isdir(ASSETS), reason="TEST_ASSETS is unset or missing")


def make_archives(folder, main=None, instances=None):
    made = ade20k()
    folder.mkdir(exist_ok=True)
    return [
        write_zip(folder / "ADEChallengeData2016.zip", main or made[0]),
        write_tar(folder / "annotations_instance.tar", instances or made[1]),
    ]


def run(subset, sources, output, *flags):
    where = ["--source", *map(str, sources), "--output", str(output), "--num_workers", "0"]
    return prepare_ade20k.main(["--subset", subset, *where, *flags])


def sizes(root, split):
    labels = sorted((root / split / "labels").glob("*.png"))
    return {path.stem: read_map(path, "label map").shape[::-1] for path in labels}


def test_room_becomes_what_the_data_set_reads(tmp_path, capsys):
    output = tmp_path / "out"
    assert run("room", make_archives(tmp_path), output) == 0
    said = capsys.readouterr().out
    assert "train 2, test 1" in said and "train has 2 pictures, the published set 2246" in said
    assert check_data.main([str(output), "--dataset_mode", "ade20k_room", "--crop_size", "256"]) == 0
    assert sizes(output, "train") == {"ADE_train_00000001": (256, 256), "ADE_train_00000002": (341, 256)}
    assert sizes(output, "test") == {"ADE_val_00000001": (256, 328)}
    data = dataset("ade20k_room", dataroot=output, crop_size=256)
    assert data.label_nc == 151 and data.class_names[8] == "bed" and 8 in data.things and 1 not in data.things
    sample = data[0]
    assert sample["label"].unique().tolist() == [0, 1, 8]
    ids = dict(zip(sample["inst_id"].tolist(), sample["inst_class"].tolist(), strict=True))
    assert ids == {0: 0, 1: 1, 1 + 256 * 1: 8, 1 + 256 * 2: 8}, "red + 256 green; the wall has its label as id"
    assert (sample["inst"][200, 10] != sample["inst"][200, 250]).item()


def test_landscape_needs_no_instances_and_cuts_long_pictures(tmp_path, capsys):
    output = tmp_path / "out"
    assert run("landscape", make_archives(tmp_path)[:1], output, "--num_workers", "0") == 0
    assert "mountain_snowy 1, coast 1" in capsys.readouterr().out
    assert sizes(output, "train") == {"ADE_train_00000004": (384, 256)}
    assert sizes(output, "test") == {"ADE_val_00000002": (256, 341)}, "small pictures are enlarged"
    assert not (output / "train" / "inst_map").exists()
    data = dataset("ade20k_landscape", dataroot=output, split="test", crop_size=256, task="class")
    assert data.things == set() and data[0]["inst_class"].tolist() == [1, 8], "an instance per class"


def test_scenes_are_a_flag(tmp_path):
    sources = make_archives(tmp_path)
    run("landscape", sources, tmp_path / "a", "--scenes", "street, coast")
    assert set(sizes(tmp_path / "a", "train")) == {"ADE_train_00000003"}
    with pytest.raises(UserError, match=r"--scenes: 'sreet' is not a scene of .*Did you mean 'street'"):
        run("landscape", sources, tmp_path / "b", "--scenes", "sreet")
    with pytest.raises(UserError, match=r"was made by prepare_ade20k\.py"):
        run("landscape", sources, tmp_path / "a")


def test_the_middle_of_a_long_side_is_kept():
    columns = np.arange(500)[None].repeat(256, 0)
    maps = prepare_ade20k.cut_long_side(Maps(np.stack([columns] * 3, -1), columns, columns), 384)
    assert maps.image.shape == (256, 384, 3)
    assert maps.label[0, 0] == 58 and maps.inst[0, -1] == 441


def test_folders_as_unpacked(tmp_path):
    main, instances = ade20k()
    unpack(main, tmp_path)
    unpack(instances, tmp_path / "ADEChallengeData2016")
    run("room", [tmp_path / "ADEChallengeData2016"], tmp_path / "a")
    run("room", make_archives(tmp_path / "zips"), tmp_path / "b")
    for path in (tmp_path / "a").rglob("*.*g"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_what_is_missing_is_named(tmp_path):
    sources = make_archives(tmp_path)
    with pytest.raises(UserError, match=r"annotations_instance\.tar is missing.*ADEChallengeData2016\.zip holds"):
        run("room", sources[:1], tmp_path / "out")
    with pytest.raises(UserError, match=r"sceneCategories\.txt is missing; it is part of ADEChallengeData2016\.zip"):
        run("room", sources[1:], tmp_path / "out")
    for which, member, fault in (
        (0, "annotations/validation/ADE_val_00000001.png", r"2016\.zip lacks annotations/validation/ADE_val_00000001"),
        (1, "annotations_instance/training/ADE_train_00000002.png", r"instance\.tar lacks annotations_instance/train"),
        (0, "images/training/ADE_train_00000001.jpg", r"2016\.zip lacks 1 pictures .*ADE_train_00000001\.jpg"),
    ):
        members = ade20k()
        del members[which][member if which else f"ADEChallengeData2016/{member}"]
        with pytest.raises(DataError, match=fault):
            run("room", make_archives(tmp_path / "less", *members), tmp_path / "out")


def test_damaged_archives_are_told(tmp_path):
    sources = make_archives(tmp_path)
    whole = sources[1].read_bytes()
    for length, fault in (
        (2000, r" lacks annotations_instance/training/ADE_train_00000002\.png, .*The archive is partial"),
        (whole.index(b"ADE_val_00000001") + 512, r": the archive is damaged .unexpected end of data"),
        (0, r": not a whole zip or tar archive"),
    ):
        sources[1].write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"annotations_instance\.tar" + fault):
            run("room", sources, tmp_path / "out")
    main, instances = ade20k()
    main["ADEChallengeData2016/sceneCategories.txt"] = b"<html>not found at all</html>\n"
    with pytest.raises(DataError, match=r"sceneCategories\.txt: '<html>not found .* is not a line"):
        run("room", make_archives(tmp_path / "b", main, instances), tmp_path / "out")
    instances["../../evil.png"] = b"evil"
    with pytest.raises(DataError, match=r"annotations_instance\.tar: unsafe member path"):
        run("room", make_archives(tmp_path / "c", main, instances), tmp_path / "out")


def test_foreign_maps_are_refused(tmp_path):
    main, instances = ade20k()
    size = ade_maps("ADE_train_00000001")[1].shape
    name = "ADEChallengeData2016/annotations/training/ADE_train_00000001.png"
    with pytest.raises(DataError, match=r"id 200; scene-parsing labels 0 to 150 are needed"):
        maps = {**main, name: encode(np.full(size, 200, np.uint8))}
        run("room", make_archives(tmp_path, maps, instances), tmp_path / "out")
    instances["annotations_instance/training/ADE_train_00000001.png"] = encode(np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(DataError, match=r"instance map is 10x10, its picture"):
        run("room", make_archives(tmp_path, main, instances), tmp_path / "out2")


def test_the_class_names():
    assert len(NAMES) == len(set(NAMES)) == 151 and len(THINGS) == 100
    assert [NAMES[i] for i in (0, 1, 3, 8, 17, 82, 101, 150)] == [
        "other", "wall", "sky", "bed", "mountain", "towel", "poster", "flag",
    ]  # fmt: skip
    assert {NAMES.index(n) for n in ("bed", "person", "screen door", "flag")} <= THINGS
    assert not {NAMES.index(n) for n in ("other", "wall", "sky", "water", "crt screen")} & THINGS
    assert {scene for scene, _ in ADE.values()} & set(prepare_ade20k.SCENES["landscape"]) == {"mountain_snowy", "coast"}


@needs_assets
def test_the_published_samples_pass_unchanged(tmp_path):
    """Six pictures of the released room set, put back into the official layout, keep their ids and sizes."""
    source, scenes = Path(ASSETS, "samples", "ade20k_room"), ""
    for split, official in (("train", "training"), ("test", "validation")):
        for folder, ours in (("images", "images"), ("annotations", "labels"), ("annotations_instance", "inst_map")):
            (tmp_path / "raw" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "raw" / folder / official).symlink_to(source / split / ours)
        scenes += "".join(f"{p.stem} bedroom\n" for p in (source / split / "images").iterdir())
    (tmp_path / "raw" / "sceneCategories.txt").write_text(scenes)
    run("room", [tmp_path / "raw"], tmp_path / "out")
    files = list(source.rglob("*.png"))
    assert len(files) == 12
    for path in files:
        rgb = path.parent.name == "inst_map"
        made = read_map(tmp_path / "out" / path.relative_to(source), "map", rgb_ids=rgb)
        assert np.array_equal(made, read_map(path, "map", rgb_ids=rgb))
