"""scripts/prepare_objects.py as a user calls it, on a Cityscapes miniature, street scenes and CamVid."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from data import DATASETS
from data.prepare.crops import cut_image
from data.prepare.writing import save_picture
from options.train_options import TrainOptions
from scripts import prepare_objects
from util.errors import DataError, UserError
from util.images import read_image, read_map
from util.object_rules import ObjectRule

ASSETS = os.environ.get("TEST_ASSETS", "")
ROOT = Path(__file__).resolve().parents[2]
ROAD, PERSON, CAR, BUS = 7, 24, 26, 28
HEIGHT, WIDTH = 256, 512


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and ids of cars (full boxes, one at the right border, one ellipse of 0.7), people and what is dropped."""
    rng = np.random.RandomState(seed)
    label = np.full((HEIGHT, WIDTH), ROAD, np.uint8)
    inst = label.astype(np.uint16)

    def paint(rows: slice, columns: slice, class_id: int, number: int) -> None:
        label[rows, columns], inst[rows, columns] = class_id, number

    top = 20 + rng.randint(0, 20)
    paint(slice(top, top + 50), slice(40, 111), CAR, 26000)
    paint(slice(200, 256), slice(440, 512), CAR, 26001)  # in the corner
    paint(slice(100, 161), slice(60, 81), PERSON, 24000)  # 61 x 21, aspect about 2.6
    paint(slice(100, 121), slice(150, 211), PERSON, 24001)  # lies: too flat
    paint(slice(180, 240), slice(20, 24), CAR, 26002)
    paint(slice(236, 240), slice(20, 90), CAR, 26002)  # an L: too empty
    paint(slice(10, 11), slice(300, 400), CAR, 26003)  # a line
    paint(slice(5, 6), slice(5, 6), PERSON, 24002)  # one pixel
    paint(slice(60, 90), slice(300, 390), BUS, 28000)
    label[150:170, 300:340], inst[150:170, 300:340] = CAR, CAR  # a group: no instance
    inst[180:190, 300:340] = 26009  # an instance on road: its class is not among the labels
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ellipse = ((y - 200) / 40.0) ** 2 + ((x - 250) / 40.0) ** 2 <= 1
    label[ellipse], inst[ellipse] = CAR, 26004
    return label, inst


def make_scenes(root: Path, *, counts: dict[str, int], factor: int = 4, hires: bool = True) -> Path:
    for s, (split, count) in enumerate(counts.items()):
        for i in range(count):
            label, inst = scene(100 * s + i)
            clouds = Image.fromarray(np.random.RandomState(i).randint(0, 256, (16, 32, 3)).astype(np.uint8))
            image = np.array(clouds.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
            save_picture(root / split / "labels" / f"s{i}.png", label)
            save_picture(root / split / "inst_map" / f"s{i}.png", inst)
            save_picture(root / split / "images" / f"s{i}.png", image)
            if hires:
                large = image.repeat(factor, 0).repeat(factor, 1)
                save_picture(root / split / "images2048" / f"s{i}.png", large)
    return root


def prepare(root: Path, output: Path, *flags: str) -> None:
    where = ["--dataset_mode", "cityscapes", "--dataroot", str(root), "--output", str(output), "--num_workers", "0"]
    assert prepare_objects.main([*where, *flags]) == 0


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes"), counts={"train": 2, "test": 1})


@pytest.fixture(scope="module")
def cut(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("cut") / "objects"
    prepare(scenes, output, "--min_crops", "2")
    return output


def plain_crops(label: np.ndarray, inst: np.ndarray) -> list[tuple[str, np.ndarray, tuple[int, ...]]]:
    """(class, mask 0/255, box) of every object, by id, written out without any shared code."""
    found = []
    for number in [i for i in np.unique(inst).tolist() if i >= 1000]:
        name, fill, low, high = {24: ("person", 0.35, 2, 6), 26: ("car", 0.6, 0, 100)}.get(
            number // 1000, ("", 1, 0, 0)
        )
        m = (inst == number) & (label == number // 1000)
        if not m.any():
            continue
        rows, columns = np.nonzero(m)
        (r0, r1), (c0, c1) = (rows.min(), rows.max()), (columns.min(), columns.max())
        if r1 == r0 or c1 == c0:
            continue
        r0, r1, c0, c1 = max(0, r0 - 2), min(r1 + 2, HEIGHT), max(0, c0 - 2), min(c1 + 2, WIDTH)
        height, width = r1 - r0, c1 - c0
        if not (m.sum() / (height * width) > fill and low < height / width < high):
            continue
        size = (64, 32 if name == "person" else 64)
        mask = np.zeros(size, np.uint8)
        for i in range(size[0]):
            for j in range(size[1]):
                mask[i, j] = 255 * m[r0 + int(i * height / size[0]), c0 + int(j * width / size[1])]
        found.append((name, mask, (r0, r1, c0, c1)))
    return found


@pytest.mark.parametrize("split, index", [("train", 0), ("train", 1), ("test", 0)])
def test_masks_and_names_are_those_of_the_rule(cut: Path, split: str, index: int) -> None:
    label, inst = scene(100 * (split == "test") + index)
    expected = plain_crops(label, inst)
    assert [name for name, _, _ in expected] == ["person", "car", "car", "car"]
    written = {p.stem: p for p in cut.glob(f"*/{split}/inst_mask/*_s{index}_*.png")}
    assert sorted(written) == sorted(f"{name}_s{index}_{k:02d}" for k, (name, _, _) in enumerate(expected))
    for k, (name, mask, _) in enumerate(expected):
        assert np.array_equal(read_map(written[f"{name}_s{index}_{k:02d}"], "mask"), mask)


def test_an_unlabelled_region_of_cityscapes_is_no_bicycle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under the release's label map it is of class 33, and its id is 0."""
    root = make_scenes(tmp_path / "scenes", counts={"train": 1}, hires=False)
    for kind in ("labels", "inst_map"):
        path = root / "train" / kind / "s0.png"
        ids = np.array(Image.open(path))
        ids[230:256, 0:60] = 0
        save_picture(path, ids)
    flags = ["--label_map", "0:33", "--foreground", "car:0.6,bicycle", "--splits", "train", "--min_crops", "0"]
    prepare(root, tmp_path / "cut", *flags)
    assert len(list((tmp_path / "cut" / "car").rglob("*.jpg"))) == 3
    assert not list((tmp_path / "cut" / "bicycle").rglob("*.jpg"))
    assert "bicycle: " not in capsys.readouterr().out, "nor is it a dropped one"


def test_pixels_come_from_the_large_pictures(cv2: ModuleType, cut: Path, scenes: Path, tmp_path: Path) -> None:
    """The crops are those of another library's bilinear rule, but for the noise of the JPEG."""
    large = read_image(scenes / "train" / "images2048" / "s0.png")
    for k, (name, mask, box) in enumerate(plain_crops(*scene(0))):
        r0, r1, c0, c1 = (4 * side for side in box)
        wanted = cv2.resize(large[r0:r1, c0:c1], mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
        crop = Image.open(cut / name / "train" / "images" / f"{name}_s0_{k:02d}.jpg")
        assert crop.size == mask.shape[::-1]
        assert np.abs(np.array(crop).astype(int) - wanted).mean() < 3
    sharp = cut_image(large, [0, 256, 0, 512], 64, 64)
    assert np.abs(sharp.astype(int) - cv2.resize(large[:256, :512], (64, 64))).max() <= 1


@pytest.mark.parametrize("shape", [(60, 90), (75, 45), (96, 52), (123, 148)])
def test_pixels_are_scaled_exactly(shape: tuple[int, int]) -> None:
    """In whole numbers, halves to the even level: nothing is left for a processor's rounding to decide."""
    picture, size = np.random.RandomState(0).randint(0, 256, (*shape, 3)), 60
    total = picture.astype(np.int64)
    for axis, length in enumerate(shape):
        place = np.clip((2 * np.arange(size) + 1) * length - size, 0, 2 * size * (length - 1))  # times 2 * size
        low, share = place // (2 * size), (place % (2 * size)).reshape(-1, *[1] * (2 - axis))
        high = np.minimum(low + 1, length - 1)
        total = total.take(low, axis) * (2 * size - share) + total.take(high, axis) * share
    whole, rest = np.divmod(total, 4 * size**2)
    wanted = whole + ((rest > 2 * size**2) | ((rest == 2 * size**2) & (whole % 2 == 1)))
    found = cut_image(picture.astype(np.uint8), [0, shape[0], 0, shape[1]], size, size)
    assert np.array_equal(found, wanted)


def test_classes_and_counts(cut: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((cut / "classes.json").read_text())
    assert [(c["id"], c["name"], c["scene_id"], c["object"]["fill"]) for c in content["classes"]] == [
        (0, "car", 26, 0.6), (1, "person", 24, 0.35)
    ]  # fmt: skip
    assert read_image(cut / "contact_sheet.png").shape[1] > 128
    prepare(scenes, tmp_path / "few", "--min_crops", "3")
    said = " ".join(capsys.readouterr().out.split())
    assert "car 6 3 person 2 1" in said
    for line in ("of other classes 4 2", "car: one pixel high or wide 2 1", "car: fill too little of their box 2 1",
                 "person: one pixel high or wide 2 1", "person: too flat or too high 2 1",
                 "pixels of 2 scenes from images2048/, 4 times the maps' size",
                 "person has 2 crops of 'train', fewer than --min_crops 3: it is left out",
                 "car has 6 crops; the authors trained with at least 1000"):  # fmt: skip
        assert line in said, line
    assert [c["name"] for c in json.loads((tmp_path / "few" / "classes.json").read_text())["classes"]] == ["car"]
    with pytest.raises(UserError, match="no class has --min_crops 9 crops"):
        prepare(scenes, tmp_path / "few", "--min_crops", "9")


def test_the_crops_are_a_data_set(cut: Path) -> None:
    opt = TrainOptions().parse(
        ["--name", "x", "--model", "siedob_style", "--dataset_mode", "objects", "--dataroot", str(cut)]
    )
    table = DATASETS.get("objects").class_table(str(cut))
    assert (opt.label_nc, table.scene_ids) == (3, (26, 24))
    assert table.objects == (ObjectRule(0, 0.6), ObjectRule(1, 0.35, (2, 6)))
    data = DATASETS.get("objects").from_options(opt, split="train", augment=True, task="train")
    assert len(data) == 2 * 6
    test = DATASETS.get("objects").from_options(opt, split="test", augment=False, task="free_form")
    assert [sample["name"] for sample in test] == ["car_s0_01", "car_s0_02", "car_s0_03", "person_s0_00"]


def state(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*_s*_*.*")}


def test_a_second_run_completes_the_first(cut: Path, scenes: Path, tmp_path: Path) -> None:
    output = tmp_path / "objects"
    prepare(scenes, output, "--min_crops", "2")
    before = state(output)
    lost = [output / "car/train/images/car_s0_02.jpg", output / "person/test/inst_mask/person_s0_00.png"]
    for path in lost:
        path.unlink()
    prepare(scenes, output, "--min_crops", "2")
    after = state(output)
    assert {p: content for p, (_, content) in before.items()} == {p: content for p, (_, content) in after.items()}
    again = {p.stem for p, (time_, _) in before.items() if after[p][0] != time_}
    assert again == {path.stem for path in lost}
    with pytest.raises(UserError, match=r"was made by prepare_objects\.py"):
        prepare(scenes, output, "--size", "32")
    (output / "car/train/images/car_other_00.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"car_other_00\.jpg and 0 more are of another run"):
        prepare(scenes, output)


def test_what_is_done_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looked_at, tables, cut_scene = list[int](), [], prepare_objects.cut_scene
    monkeypatch.setattr(prepare_objects, "cut_scene", lambda job: (looked_at.append(job[1]), cut_scene(job))[1])

    def run(scenes: int) -> str:
        del looked_at[:]
        prepare_objects.open_scenes.cache_clear()  # as in a new process
        root = make_scenes(tmp_path / "scenes", counts={"train": scenes}, hires=False)
        prepare(root, tmp_path / "objects", "--splits", "train", "--min_crops", "2")
        out = capsys.readouterr().out
        tables.append(out[out.index("\ncrops") : out.index("\ntrain: ")])
        return out

    assert "cut already" not in run(2) and looked_at == [0, 1]
    assert "train: all 2 scenes are cut already; to look at them again, remove " in run(2) and not looked_at
    assert tables[0] == tables[1]
    assert "cut already" not in run(3) and looked_at == [0, 1, 2], "a scene came in addition"
    (tmp_path / "objects/finished_train.json").write_text('{"scenes": 3}')
    assert "cut already" not in run(3) and looked_at == [0, 1, 2]


def test_a_killed_run_leaves_whole_files(tmp_path: Path) -> None:
    root = make_scenes(tmp_path / "scenes", counts={"train": 12}, hires=False)
    output = tmp_path / "objects"
    command = [sys.executable, str(ROOT / "scripts/prepare_objects.py"), "--dataset_mode", "cityscapes", "--dataroot",
               str(root), "--output", str(output), "--num_workers", "0", "--splits", "train"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(output.rglob("*_s1_*.png")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (output / "classes.json").exists()
    for path in [p for p in output.rglob("*_s*_*.*") if not p.name.startswith(".")]:
        read_image(path)
    prepare(root, output, "--splits", "train", "--min_crops", "12")
    assert len(list((output / "car/train/inst_mask").glob("*.png"))) == 36


def test_large_pictures_that_do_not_fit(tmp_path: Path) -> None:
    root = make_scenes(tmp_path / "scenes", counts={"train": 1}, factor=2)
    flags = ("--splits", "train", "--min_crops", "1")
    prepare(root, tmp_path / "twice", *flags)
    large = root / "train" / "images2048" / "s0.png"
    save_picture(large, np.zeros((700, 1024, 3), np.uint8))
    with pytest.raises(DataError, match=r"s0\.png: 1024x700 is not a multiple of the maps' size, 512x256"):
        prepare(root, tmp_path / "odd", *flags)
    large.unlink()
    with pytest.raises(DataError, match="images2048 has no picture of s0"):
        prepare(root, tmp_path / "gone", *flags)


def test_flags(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(scenes, out, "--foreground", "bus:0.2,car", "--min_crops", "1", "--size", "48", "--splits", "train")
    content = json.loads((out / "classes.json").read_text())
    assert [(c["name"], c["scene_id"], c["object"]["fill"]) for c in content["classes"]] == [
        ("bus", 28, 0.2), ("car", 26, 0.6)
    ]  # fmt: skip
    assert read_image(next((out / "bus/train/images").iterdir())).shape == (48, 48, 3)
    for flags, message in (
        (["--foreground", "bos"], "--foreground: no class 'bos'"),
        (["--foreground", "99"], "--foreground: no class 99"),
        (["--splits", "val"], "val does not exist"),
        (["--dataset_mode", "objects"], "--dataset_mode objects: no scenes"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(scenes, tmp_path / "bad", *flags)


def test_scenes_without_instance_maps(tmp_path: Path) -> None:
    root = make_scenes(tmp_path / "scenes", counts={"train": 1}, hires=False)
    for path in (root / "train" / "inst_map").iterdir():
        path.unlink()
    (root / "train" / "inst_map").rmdir()
    with pytest.raises(UserError, match="s0: no instance map, and objects are cut by instances"):
        prepare(root, tmp_path / "out", "--splits", "train")


def test_streets(tmp_path: Path) -> None:
    flags = "--dataset_mode streets --load_size 64 --streets_train_size 24 --streets_test_size 2 --min_crops 5"
    for workers in ("0", "1"):  # 24 jobs are enough for processes
        assert (
            prepare_objects.main([*flags.split(), "--num_workers", workers, "--output", str(tmp_path / workers)]) == 0
        )
    files = [sorted(p.relative_to(tmp_path / w) for p in (tmp_path / w).rglob("*.*")) for w in ("0", "1")]
    assert files[0] == files[1]
    assert all((tmp_path / "0" / p).read_bytes() == (tmp_path / "1" / p).read_bytes() for p in files[0])
    names = [c["name"] for c in json.loads((tmp_path / "0" / "classes.json").read_text())["classes"]]
    assert names == ["car", "person"]


@pytest.mark.skipif(not os.path.isdir(ASSETS), reason="TEST_ASSETS is unset or missing")
def test_camvid(tmp_path: Path) -> None:
    flags = ["--dataset_mode", "camvid", "--dataroot", f"{ASSETS}/camvid", "--splits", "val", "--num_workers", "0"]
    assert prepare_objects.main([*flags, "--output", str(tmp_path / "out"), "--min_crops", "10"]) == 0
    content = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert [c["name"] for c in content["classes"]] == ["car", "pedestrian", "bicyclist"]
