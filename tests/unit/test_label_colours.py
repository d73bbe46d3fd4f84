"""Label maps painted in colours: read by classes.json, prepared, edited; palettes that are kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_folders import TABLE, maps_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.label_colours import LabelColours
from data.records import read_class_table
from scripts import check_data, prepare_folder
from util.errors import DataError, UserError
from util.images import read_map, save_labels

COLOURS = np.array([(128, 64, 128), (0, 0, 142), (70, 70, 70), (107, 142, 35), (220, 20, 60)], np.uint8)


def colours(tolerance: float = 0, palette: np.ndarray = COLOURS) -> LabelColours:
    return LabelColours(tuple((int(r), int(g), int(b)) for r, g, b in palette), "classes.json", tolerance)


@given(seed=st.integers(0, 1000), tolerance=st.sampled_from([0, 30, 1000]))
@settings(max_examples=20, deadline=None)
def test_ids_are_those_of_the_nearest_colour(seed: int, tolerance: int) -> None:
    rng = np.random.RandomState(seed)
    label = rng.randint(0, 5, (11, 17))
    noise = rng.randint(-8, 9, (11, 17, 3)) if tolerance else 0
    painted = (COLOURS[label] + noise).clip(0, 255).astype(np.uint8)
    distances = ((painted[..., None, :].astype(int) - COLOURS) ** 2).sum(-1)
    np.testing.assert_array_equal(colours(tolerance).ids(painted, "x"), distances.argmin(-1))


def test_unknown_colours_are_named_and_equal_ones_mean_the_lower_id() -> None:
    painted = COLOURS[np.zeros((4, 6), int)]
    painted[0, :3], painted[1, 0] = (9, 9, 9), (200, 1, 2)
    with pytest.raises(DataError, match=r"a\.png: .* no class of classes.json has: \(9, 9, 9\) \(3 pixels\), \(200, 1"):
        colours().ids(painted, "a.png")
    with pytest.raises(DataError, match="--color_tolerance"):
        colours(20).ids(painted, "a.png")
    twice = COLOURS[[0, 0, 1, 1]]
    np.testing.assert_array_equal(np.unique(colours(0, twice).ids(COLOURS[[[0, 1]]], "x")), [0, 2])


@pytest.fixture
def painted(tmp_path: Path) -> Path:
    """Pictures, label maps in colours, and the classes as lines of colours and names."""
    for i in range(4):
        image, label, _ = maps_of(i)
        for kind, array in (("photos", image), ("maps", COLOURS[label])):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / kind / f"p{i}.png")
    names = ("road", "car", "traffic light", "tree", "man")
    lines = [f"{r} {g} {b}  {name}" for (r, g, b), name in zip(COLOURS.tolist(), names, strict=True)]
    (tmp_path / "names.txt").write_text("\n".join(lines))
    return tmp_path


def run(folder: Path, *flags: str) -> int:
    files = ["--images", str(folder / "photos"), "--labels", str(folder / "maps"), "--output", str(folder / "out")]
    return prepare_folder.main([*files, "--num_workers", "0", "--short_side", "0", "--png", *flags])


def test_painted_maps_become_a_data_set(painted: Path) -> None:
    flags = ["--label_colors", "--classes", str(painted / "names.txt"), "--ratios", "train=0.5,test=0.5"]
    assert run(painted, *flags) == 0
    assert check_data.main([str(painted / "out")]) == 0
    for path in painted.glob("out/*/labels/*.png"):
        np.testing.assert_array_equal(read_map(path, "label"), maps_of(int(path.stem[1:]))[1])
    table = read_class_table(painted / "out/classes.json")
    assert table is not None and table.names[2] == "traffic light"
    np.testing.assert_array_equal(table.palette, COLOURS)
    with pytest.raises(UserError, match=r"was made by prepare_folder.py"):
        run(painted, *flags, "--color_tolerance", "10")


def test_jpeg_maps_need_a_tolerance(painted: Path) -> None:
    for path in (painted / "maps").glob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"), quality=90)
        path.unlink()
    flags = ["--label_colors", "--classes", str(painted / "names.txt"), "--ratios", "train=1"]
    with pytest.raises(DataError, match=r"\.jpg: the label map has colours that no class of .*names\.txt"):
        run(painted, *flags)
    (painted / "out" / "prepared.json").unlink()
    assert run(painted, *flags, "--color_tolerance", "150") == 0
    for path in painted.glob("out/*/labels/*.png"):
        assert (read_map(path, "label") == maps_of(int(path.stem[1:]))[1]).mean() > 0.97


def test_palettes_of_label_maps_are_kept(painted: Path) -> None:
    for i in range(4):
        save_labels(maps_of(i)[1], COLOURS, painted / "maps" / f"p{i}.png")
    (painted / "names.txt").write_text("road\ncar\nlight\ntree\nman\n")
    for k, flags in enumerate(([], ["--classes", str(painted / "names.txt")])):
        assert run(painted, *flags, "--ratios", "train=1", "--output", str(painted / f"kept{k}")) == 0
        table = read_class_table(painted / f"kept{k}" / "classes.json")
        assert table is not None
        np.testing.assert_array_equal(table.palette, COLOURS)
    (painted / "classes.json").write_text(json.dumps(TABLE))  # names colours itself
    assert run(painted, "--classes", str(painted / "classes.json"), "--ratios", "train=1") == 0
    table, own = (read_class_table(path) for path in (painted / "out/classes.json", painted / "classes.json"))
    assert table is not None and own is not None
    np.testing.assert_array_equal(table.palette, own.palette)


def test_mistakes_are_told(painted: Path) -> None:
    names = str(painted / "names.txt")
    with pytest.raises(UserError, match=r"has colours .*edit.py --palette and prepare_folder.py --label_colors"):
        run(painted, "--classes", names, "--ratios", "train=1")
    with pytest.raises(UserError, match="--label_colors needs the colours"):
        run(painted, "--label_colors")
    with pytest.raises(UserError, match="--color_tolerance 3 needs --label_colors"):
        run(painted, "--classes", names, "--color_tolerance", "3")
    for text, match in (("0 0 1 sky\nroad", "1 of 2 classes have a colour"), ("0 0 300 sky", "from 0 to 255")):
        Path(names).write_text(text)
        with pytest.raises(UserError, match=match):
            run(painted, "--label_colors", "--classes", names, "--ratios", "train=1")


def test_turned_pictures_are_mentioned(painted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(painted, "--label_colors", "--classes", str(painted / "names.txt"), "--ratios", "train=1") == 0
    exif = Image.Exif()
    exif[0x0112] = 3
    for path in sorted((painted / "out/train/images").iterdir())[:3]:
        picture = Image.open(path)
        picture.rotate(180).save(path.with_suffix(".jpg"), exif=exif)
        path.unlink()
    capsys.readouterr()
    assert check_data.main([str(painted / "out")]) == 0
    said = capsys.readouterr().out
    assert "p0.jpg: turned or mirrored as its EXIF orientation (3) says (and 2 more such pictures)" in said
