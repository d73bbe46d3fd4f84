"""Own pictures without labels: scripts/label.py, edit.py --segmenter, and the library with a segmenter."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from editing_runs import HEIGHT, WIDTH, make_runs
from PIL import Image

import semedit
from data.custom_dataset import CustomDataset
from data.records import MapRules, read_class_table
from data.sampling import Sampling
from data.streets.scene import CLASSES
from scripts import check_data, edit, label
from util.errors import UserError
from util.images import read_image, read_map

CAR = CLASSES.names.index("car")
ASSETS = os.environ.get("TEST_ASSETS", "")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("label"))


@pytest.fixture(scope="module")
def labelled(root: Path) -> Path:
    """Maps of the scenes a and b."""
    assert label.main(["--image", str(root / "image"), *STREETS, "--output", str(root / "labelled")]) == 0
    return root / "labelled"


STREETS = ["--segmenter", "streets", "--device", "cpu"]


def run_edit(root: Path, *flags: str, image: str = "image/a.png", mask: str = "mask/a.png", output: str) -> Path:
    where = ["--checkpoints_dir", str(root), "--name", "divsem", "--device", "cpu", "--num_workers", "0"]
    files = [f"--image={root / image}", f"--mask={root / mask}", f"--output={root / output}"]
    assert edit.main([*where, *files, *flags]) == 0
    return root / output


def test_an_own_picture_is_edited_by_one_command(
    root: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = [f"--label={labelled / 'train/labels/a.png'}", f"--inst={labelled / 'train/inst_map/a.png'}"]
    capsys.readouterr()
    by_hand = run_edit(root, *maps, "--num_samples", "2", output="hand/o.png")
    assert "labels by" not in capsys.readouterr().out
    at_once = run_edit(root, "--segmenter", "streets", "--num_samples", "2", output="once/o.png")
    told = capsys.readouterr().out
    assert re.search(r"^a: labels by streets: .*road.*car \(\d+\)", told, re.M)
    for name in ("o.png", "o_2.png", "o_strip.png"):
        assert (by_hand.parent / name).read_bytes() == (at_once.parent / name).read_bytes()
    editor = semedit.load(root / "divsem", device="cpu", segmenter="streets")
    results = editor.fill(root / "image/a.png", None, None, root / "mask/a.png", n=2)
    for result, name in zip(results, ("o.png", "o_2.png"), strict=True):
        np.testing.assert_array_equal(result, read_image(at_once.parent / name))


def test_folders_objects_and_references_need_no_labels(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_edit(root, "--segmenter", "streets", image="image", mask="mask", output="folder")
    assert sorted(path.name for path in (root / "folder").iterdir()) == ["a.png", "b.png"]
    capsys.readouterr()
    run_edit(root, "--segmenter", "streets", "--list_objects", output="objects/o.png")
    number = re.search(r"^ *(\d+) +car ", capsys.readouterr().out, re.M)
    assert number is not None
    run_edit(root, "--segmenter", "streets", "--remove", number[1], output="removed/o.png")
    maps = [f"--label={root / 'label/a.png'}", f"--inst={root / 'inst/a.png'}"]
    style = [f"--style_image={root / 'image/b.png'}", "--style_class", "car", "--segmenter", "streets"]
    run_edit(root, *maps, *style, "--add_object", "car", "--box", "10,60,50,90", output="style/o.png")
    assert "labels by" not in capsys.readouterr().out.split("removed/o.png")[-1]  # of the picture itself


def test_what_is_written_is_a_data_set(labelled: Path, root: Path) -> None:
    split = labelled / "train"
    assert {path.name for path in split.iterdir()} == {"images", "labels", "inst_map", "overlays"}
    assert check_data.main([str(labelled)]) == 0
    data = CustomDataset(
        dataroot=str(labelled), split="train", rules=MapRules(label_nc=9),
        sampling=Sampling(crop_size=64, load_size=64, augment=False, task="none"),
    )  # fmt: skip
    assert data[0]["name"] == "a" and data[0]["inst_class"].max() < 9
    table = read_class_table(labelled / "classes.json")
    assert table is not None and table.names == CLASSES.names and table.things == CLASSES.things
    assert (split / "images/a.png").read_bytes() == (root / "image/a.png").read_bytes()
    found, true = (read_map(path, "label") for path in (split / "labels/a.png", root / "label/a.png"))
    assert (found == true).mean() > 0.85
    inst = read_map(split / "inst_map/a.png", "inst")
    assert (inst[~np.isin(found, list(CLASSES.things))] < 9).all()
    cars = np.unique(inst[(found == CAR) & (inst != CAR)])
    assert len(cars) and all((found[inst == number] == CAR).all() for number in cars)
    overlay = read_image(split / "overlays/a.png")
    assert overlay.shape[0] > 6 * HEIGHT and overlay.shape[1] == 6 * WIDTH  # enlarged to 512 pixels, with a legend


def test_a_second_run_makes_what_is_missing(labelled: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, gone = labelled / "train/labels/a.png", labelled / "train/inst_map/b.png"
    before, content = kept.stat().st_mtime_ns, gone.read_bytes()
    gone.unlink()
    again = ["--image", str(root / "image"), *STREETS, "--output", str(labelled)]
    assert label.main(again) == 0
    assert "1 of 2 are finished" in capsys.readouterr().out
    assert gone.read_bytes() == content and kept.stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"was made by label.py with .*; give another --output"):
        label.main([*again, "--things", "car"])


def test_pictures_are_turned_and_kept_whatever_their_format(root: Path, tmp_path: Path) -> None:
    picture = Image.open(root / "image/a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    picture.save(tmp_path / "packed.webp", lossless=True)
    (tmp_path / "own").mkdir()
    for name in ("turned.jpg", "packed.webp"):
        (tmp_path / name).rename(tmp_path / "own" / name)
    flags = [*STREETS, "--split", "test", "--things", "car", "--output", str(tmp_path / "out")]
    assert label.main(["--image", str(tmp_path / "own"), *flags]) == 0
    split = tmp_path / "out" / "test"
    assert {path.name for path in (split / "images").iterdir()} == {"turned.jpg", "packed.png"}
    assert (split / "images/turned.jpg").read_bytes() == (tmp_path / "own/turned.jpg").read_bytes()
    upright, plain = (read_map(split / "labels" / name, "label") for name in ("turned.png", "packed.png"))
    assert upright.shape == (HEIGHT, WIDTH) and (upright == plain).mean() > 0.97
    assert check_data.main([str(tmp_path / "out")]) == 0
    inst = read_map(split / "inst_map/packed.png", "inst")
    assert set(np.unique(plain[inst >= 9])) == {CAR}


def test_mistakes_are_told(root: Path, tmp_path: Path) -> None:
    def wrong(match: str, *flags: str) -> None:
        with pytest.raises(UserError, match=match):
            label.main(["--image", str(root / "image"), "--output", str(tmp_path / "none"), "--device", "cpu", *flags])

    (tmp_path / "classes.json").write_text('{"num_classes": 2, "classes": [{"id": 0, "name": "road"}, '
                                           '{"id": 1, "name": "all else"}]}')  # fmt: skip
    ours = ["--classes", str(tmp_path / "classes.json")]
    wrong("--segmenter is missing")
    wrong("'street': no such segmenter.* Did you mean 'streets'", "--segmenter", "street")
    wrong("--segmenter espnet_camvid needs a file.*--segmenter_weights", "--segmenter", "espnet_camvid")
    wrong("--classes none.json: no such file", *STREETS, "--classes", "none.json")
    wrong("--things: no class 'cra'. Did you mean 'car'", *STREETS, "--things", "cra")
    wrong("--split 'a/b': the name of a folder", *STREETS, "--split", "a/b")
    wrong("--image nowhere: no such file", *STREETS, "--image", "nowhere")
    wrong("labels do not have: sky, .*--segmenter_rename sky:road. The labels have: road, all else", *STREETS, *ours)
    wrong("is not THEIRS:OURS", *STREETS, *ours, "--segmenter_rename", "sky")
    with pytest.raises(UserError, match="--inst without --label"):
        run_edit(root, "--segmenter", "streets", f"--inst={root / 'inst/a.png'}", output="w/o.png")
    with pytest.raises(UserError, match=r"--label is missing: .* or let --segmenter make it"):
        run_edit(root, output="w/o.png")
    with pytest.raises(UserError, match="--segmenter streets makes what --label gives"):
        run_edit(root, "--segmenter", "streets", f"--label={root / 'label/a.png'}", output="w/o.png")
    with pytest.raises(UserError, match="--trust needs --segmenter"):
        run_edit(root, "--trust", "ab", f"--label={root / 'label/a.png'}", output="w/o.png")
    editor = semedit.load(root / "spmpgan", device="cpu")
    with pytest.raises(UserError, match=r"label is missing: .*segmenter='streets'"):
        editor.fill(root / "image/a.png", None, None, root / "mask/a.png")


@pytest.mark.skipif(not os.path.isdir(ASSETS), reason="TEST_ASSETS is unset or missing")
def test_photographs_are_labelled_by_a_released_network(tmp_path: Path) -> None:
    names = ["0001TP_008550", "Seq05VD_f00000"]
    for name in names:
        shutil.copy(Path(ASSETS) / "camvid/test/images" / f"{name}.jpg", tmp_path / f"{name}.jpg")
    weights = Path(ASSETS) / "weights/espnet_p2_q8_camvid12.pth"
    flags = ["--segmenter", "espnet_camvid", "--segmenter_weights", str(weights), "--device", "cpu"]
    assert label.main(["--image", str(tmp_path), *flags, "--output", str(tmp_path / "out")]) == 0
    table = read_class_table(tmp_path / "out/classes.json")
    assert table is not None and {table.names[i] for i in table.things} == {"car", "pedestrian", "bicyclist"}
    for name in names:
        found = read_map(tmp_path / "out/train/labels" / f"{name}.png", "label")
        true = read_map(Path(ASSETS) / "camvid/test/labels" / f"{name}.png", "label")
        assert (found == true)[true != 11].mean() > 0.75
