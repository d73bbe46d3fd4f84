"""scripts/prepare_folder.py: one's own pictures in, what `--dataset_mode custom` reads out; faults named."""

import json

import numpy as np
import pytest
from data_folders import TABLE, dataset, maps_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scripts import check_data, prepare_folder
from util.errors import DataError, UserError

COUNT = 10


@pytest.fixture
def source(tmp_path):
    """Pictures in photos/<a|b>/ (JPEG, TIFF, grey PNG), labels *_lab.png, 16-bit instances *_ids.tif."""
    for i in range(COUNT):
        image, label, inst = maps_of(i)
        sub = "ab"[i % 2]
        for kind, array, name in (
            ("photos", image[..., 0] if i == 4 else image, f"p{i}{('.jpg', '.TIFF', '.png')[i % 3]}"),
            ("masks", label, f"p{i}_lab.png"),
            ("ids", inst, f"p{i}_ids.tif"),
        ):
            (tmp_path / kind / sub).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / kind / sub / name)
    (tmp_path / "photos" / "notes.txt").write_text("not a picture")
    (tmp_path / "names.txt").write_text("sky\nroad\ngrass\ncar\nman\n")
    return tmp_path


def run(source, *flags, inst=True):
    arguments = ["--images", str(source / "photos"), "--labels", str(source / "masks"), "--label_suffix", "_lab"]
    arguments += ["--inst", str(source / "ids"), "--inst_suffix", "_ids"] if inst else []
    arguments += ["--output", str(source / "out"), "--num_workers", "0", "--short_side", "0", *map(str, flags)]
    return prepare_folder.main(arguments)


def files(source, pattern="*/images/*"):
    return sorted(p.relative_to(source / "out").as_posix() for p in (source / "out").glob(pattern))


def test_own_pictures_become_a_custom_data_set(source, capsys):
    flags = ["--classes", source / "names.txt", "--things", "car,4", "--ratios", "train=0.7,val=0.1,test=0.2", "--png"]
    assert run(source, *flags) == 0
    assert "train 7, val 1, test 2" in capsys.readouterr().out
    assert check_data.main([str(source / "out")]) == 0
    data = dataset(dataroot=source / "out", load_size=0)
    assert (data.class_names, data.things) == (["sky", "road", "grass", "car", "man"], {3, 4})
    for k, name in enumerate(data.names):
        image, label, inst = maps_of(int(name[3:]))
        maps = data.maps(k)
        assert np.array_equal(maps.label, label) and np.array_equal(maps.inst, inst), name
        if name not in ("a_p0", "a_p4", "a_p6", "b_p3", "b_p9"):  # JPEG and grey
            assert np.array_equal(maps.image, image)
    assert data.maps(0).inst.max() > 3000, "16-bit ids survive"


def test_pictures_are_scaled_and_jpeg_by_default(source):
    run(source, "--short_side", 160)
    assert all(name.endswith(".jpg") for name in files(source))
    assert dataset(dataroot=source / "out", load_size=0).maps(0).image.shape == (160, 192, 3)


def test_the_split_depends_on_the_seed_alone_and_cannot_be_mixed(source):
    halves = ["--ratios", "train=0.5,test=0.5", "--seed"]
    run(source, *halves, 3)
    first = files(source)
    run(source, *halves, 3)
    assert files(source) == first
    with pytest.raises(UserError, match=r"prepare_folder\.py with .*give another --output"):
        run(source, *halves, 4)
    for path in (source / "out").rglob("*"):
        if path.is_file():
            path.unlink()
    run(source, *halves, 4)
    assert files(source) != first


@settings(deadline=None, max_examples=25)
@given(count=st.integers(2, 200), seed=st.integers(0, 99), parts=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_every_picture_is_in_one_split(count, seed, parts):
    names = [f"n{i}" for i in range(count)]
    ratios = ",".join(f"s{k}={part / sum(parts)}" for k, part in enumerate(parts))
    try:
        splits = prepare_folder.draw_splits(names, ratios, seed)
    except UserError as error:
        assert "leave none for" in str(error) and count * min(parts) < 1.01 * sum(parts)
        return
    assert sorted(name for members in splits.values() for name in members) == sorted(names)
    for k, part in enumerate(parts):
        assert abs(len(splits[f"s{k}"]) - count * part / sum(parts)) <= 1
    assert prepare_folder.draw_splits(names[::-1], ratios, seed) == splits


@pytest.mark.parametrize("ratios", ["train=0.5", "train", "train=x,test=0.5", "train=1.5,test=-0.5", "=1"])
def test_wrong_ratios(ratios):
    with pytest.raises(UserError, match="--ratios"):
        prepare_folder.draw_splits(["a", "b"], ratios, 0)


def test_lists_choose_the_splits(source, capsys):
    (source / "train.txt").write_text("a_p0\nb_p1.TIFF\n\n")
    (source / "test.txt").write_text("a_p2\n")
    lists = ["--list", f"train={source / 'train.txt'}", "--list", f"test={source / 'test.txt'}"]
    run(source, *lists)
    assert files(source) == ["test/images/a_p2.jpg", "train/images/a_p0.jpg", "train/images/b_p1.jpg"]
    assert "7 pictures are in no list and stay out" in capsys.readouterr().out
    (source / "test.txt").write_text("a_p22\n")
    with pytest.raises(UserError, match=r"test\.txt: there is no picture 'a_p22'\. Did you mean"):
        run(source, *lists)
    (source / "test.txt").write_text("b_p1\n")
    with pytest.raises(UserError, match=r"'b_p1' is listed twice, before in .*train\.txt"):
        run(source, *lists)


def test_derived_instances_are_components_of_things(source):
    run(source, "--derive_instances", "--things", "3,4", inst=False)
    data = dataset(dataroot=source / "out", load_size=0)
    maps = data.maps(0)
    assert set(np.unique(maps.inst[maps.label < 3])) <= {0, 1, 2}
    ids = np.unique(maps.inst[maps.label >= 3])
    assert ids.tolist() == list(range(5, 5 + len(ids))) and len(ids) > 2
    for number in ids:
        assert len(np.unique(maps.label[maps.inst == number])) == 1
    with pytest.raises(UserError, match="--derive_instances needs to know the things"):
        run(source, "--derive_instances", inst=False)


def test_without_instances_no_folder_is_made(source):
    run(source, inst=False)
    assert not list((source / "out").glob("*/inst_map"))
    assert dataset(dataroot=source / "out", load_size=0)[0]["inst_id"].tolist() == [0, 1, 2, 3, 4]


def test_classes_are_counted_from_the_maps_or_taken_from_a_table(source, capsys):
    run(source, "--label_map", "4:300")
    assert dataset(dataroot=source / "out", load_size=0).label_nc == 301
    (source / "table.json").write_text(json.dumps(TABLE))
    run(source, "--classes", source / "table.json", "--output", source / "out2")
    data = dataset(dataroot=source / "out2", load_size=0)
    assert (data.class_names, data.things, data.ignore_label) == (["c0", "c1", "c2", "c3", "c4"], {3, 4}, 255)
    run(source, "--label_map", "4:255", "--output", source / "out3")
    assert "id 255 counts as a class" in capsys.readouterr().out
    run(source, "--label_map", "4:255", "--ignore_label", 255, "--output", source / "out4")
    data = dataset(dataroot=source / "out4", load_size=0)
    assert (data.label_nc, data.ignore_label) == (4, 255)


def test_faults_are_named(source):
    with pytest.raises(DataError, match=r"_lab\.png: label ids outside the 3 classes: 3 .*--label_nc 5"):
        run(source, "--label_nc", 3)
    with pytest.raises(UserError, match=r"--things: 'cra' is neither a class nor an id\. Did you mean 'car'"):
        run(source, "--classes", source / "names.txt", "--things", "cra")
    lost = source / "masks" / "b" / "p1_lab.png"
    kept = lost.read_bytes()
    lost.unlink()
    with pytest.raises(DataError, match=r"--labels .*masks holds no file for b_p1; "):
        run(source)
    lost.write_bytes(kept)
    (source / "masks" / "q_lab.png").write_bytes(kept)
    with pytest.raises(DataError, match=r"holds maps without a picture: q"):
        run(source)
    (source / "masks" / "q_lab.png").unlink()
    (source / "photos" / "a" / "p0.png").write_bytes((source / "photos" / "a" / "p0.jpg").read_bytes())
    with pytest.raises(DataError, match="both have the name 'a_p0'"):
        run(source)
    (source / "photos" / "a" / "p0.png").unlink()
    with pytest.raises(UserError, match=r"--images .*nowhere is not a folder"):
        run(source, "--images", source / "nowhere")
    with pytest.raises(UserError, match=r"--labels .*holds no .*file ending in '_x'"):
        run(source, "--label_suffix", "_x")


def test_colour_instances_are_numbered_anew(source):
    for path in (source / "ids").rglob("*.tif"):
        inst = np.asarray(Image.open(path)).astype(int)
        Image.fromarray(np.stack([inst % 256, inst // 256, inst * 0 + 9], -1).astype(np.uint8)).save(path)
    run(source)
    data = dataset(dataroot=source / "out", load_size=0)
    inst = maps_of(int(data.names[0][3:]))[2]
    assert np.array_equal(data.maps(0).inst, np.unique(inst, return_inverse=True)[1].reshape(inst.shape))


def test_masks_of_one_task_follow_the_loader(source):
    run(source, "--write_masks", "class", "--mask_size", 64)
    folder = source / "out" / "test" / "masks_class"
    drawn = dataset(dataroot=source / "out", split="test", task="class")
    read = dataset(dataroot=source / "out", split="test", task="folder", mask_dir=folder)
    assert [p.parent.name for p in (source / "out").glob("*/masks_*/*.png")] == ["masks_class"] * len(drawn)
    assert all((drawn[i]["mask"] == read[i]["mask"]).all() for i in range(len(drawn)))
