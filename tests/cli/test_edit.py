"""scripts/edit.py as a user calls it: files in, pictures out, every shortcut, every mistake told."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from editing_runs import CAR, HEIGHT, WIDTH, call, changed, inst_of, make_runs, scene_files

import semedit
import test as test_command
import train as train_command
from data.records import read_class_table
from data.streets.scene import CLASSES
from models import MODELS
from scripts.prepare_streets import main as prepare_streets
from util.errors import UserError
from util.images import read_image, read_map, save_png

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("edit"))


@pytest.mark.parametrize("run", ["divsem", "spmpgan"])
def test_known_pixels_come_back_byte_for_byte(root: Path, run: str) -> None:
    output = call(root, run=run, mask=True)
    different, mask = changed(root, output), read_map(root / "mask/a.png", "mask") > 0
    assert not different[~mask].any()
    assert different[mask].mean() > 0.9


def test_masks_that_look_inverted_are_noted(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(root, run="spmpgan", mask=True)
    assert "note: --mask" not in capsys.readouterr().out
    save_png(255 - read_map(root / "mask/a.png", "mask").astype(np.uint8), tmp_path / "a.png")
    call(root, "--mask", str(tmp_path / "a.png"), run="spmpgan")
    share = 100 * (1 - 30 * 50 / (HEIGHT * WIDTH))
    assert f"a.png: {share:.1f} % of the pixels are to be generated (white: generate)" in capsys.readouterr().out
    for k in range(4):
        save_png(np.pad(np.zeros((32, 32), np.uint8), 16, constant_values=255), tmp_path / "masks" / f"{k}.png")
    where = ["--checkpoints_dir", str(root), "--name", "spmpgan", "--device", "cpu", "--num_workers", "0"]
    masks = ["--task", "folder", "--mask_dir", str(tmp_path / "masks"), "--results_dir", str(tmp_path / "results")]
    assert test_command.main([*where, *masks, "--metrics", "none"]) == 0
    assert "masks: 75.0 % of the pixels are to be generated" in capsys.readouterr().out


def test_class_names_stay_with_the_run(root: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert prepare_streets(["--output", str(data), "--height", "64", "--train", "3", "--test", "1"]) == 0
    custom = ["--dataset_mode", "custom", "--dataroot", str(data)]
    tiny = MODELS.get("spmpgan").tiny(tmp_path)
    pairs = [pair for pair in zip(tiny[::2], tiny[1::2], strict=True) if "streets" not in " ".join(pair)]
    own = [text for pair in pairs for text in pair]
    quick = ["--num_workers", "0", "--image_every", "0", "--no-tensorboard", "--device", "cpu", "--max_steps", "0"]
    where = ["--checkpoints_dir", str(root), "--name", "moved"]
    assert train_command.main([*own, *custom, *where, *quick]) == 0
    data.rename(tmp_path / "elsewhere")
    output = call(root, "--add_object", "car", "--box", "10,60,50,90", run="moved", output="moved/o.png")
    assert changed(root, output).any()
    saved = read_class_table(root / "moved" / "classes.json")
    assert saved is not None
    assert (saved.names, saved.things) == (CLASSES.names, CLASSES.things)


def test_shapes_of_an_added_object(root: Path) -> None:
    box = ["--add_object", "car", "--box", "10,50,60,90", "--dilate", "0"]
    rectangle = changed(root, call(root, *box, "--add_shape", "rectangle", output="h/r.png"))
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[50:90, 10:60] = True
    assert not rectangle[~inside].any()
    assert rectangle.sum() > 0.9 * inside.sum()
    ellipse = changed(root, call(root, *box, output="h/e.png"))
    assert 0.65 < ellipse.sum() / inside.sum() < 0.82
    car = f"{root / 'inst/b.png'}:{inst_of(root, CAR, 'b')}"
    shaped = changed(root, call(root, *box, "--add_from", car, output="h/f.png"))
    assert not np.array_equal(shaped, ellipse)
    assert not shaped[~inside].any()
    assert shaped[50:90, 10:60].any(axis=0).mean() > 0.9  # as wide as the box


def test_removing_and_replacing_change_their_pixels_alone(root: Path) -> None:
    number = inst_of(root, CAR)
    inst, label = (read_map(root / kind / "a.png", kind) for kind in ("inst", "label"))
    removed = changed(root, call(root, "--remove", str(number), "--dilate", "0", output="c/r.png"))
    assert not removed[inst != number].any()
    assert removed[inst == number].mean() > 0.9
    wider = changed(root, call(root, "--remove", str(number), output="c/w.png"))
    assert wider.sum() > removed.sum()
    tree = label == CLASSES.names.index("tree")
    replaced = changed(root, call(root, "--replace_class", "tree:building", "--dilate", "0", output="c/p.png"))
    assert not replaced[~tree].any()
    assert replaced[tree].mean() > 0.9


@pytest.mark.parametrize("side", ["left", "right", "up", "down"])
def test_outpainting_keeps_the_picture(root: Path, side: str) -> None:
    result = read_image(call(root, "--outpaint", side, "40", output="p/o.png"))
    assert result.shape[:2] == ((HEIGHT, WIDTH + 40) if side in ("left", "right") else (HEIGHT + 40, WIDTH))
    top, left = (40 if side == "up" else 0), (40 if side == "left" else 0)
    assert np.array_equal(result[top : top + HEIGHT, left : left + WIDTH], read_image(root / "image/a.png"))


def test_panorama_with_labels_continued_or_given(root: Path, tmp_path: Path) -> None:
    continued = call(root, "--panorama", "300", output="p/pano.png")
    picture = read_image(continued)
    assert picture.shape == (HEIGHT, 300, 3)
    assert np.array_equal(picture[:, :WIDTH], read_image(root / "image/a.png"))
    for kind, dtype in (("label", np.uint8), ("inst", np.uint16)):
        ids = np.pad(read_map(root / kind / "a.png", kind), ((0, 0), (0, 172)), mode="edge").astype(dtype)
        save_png(ids, tmp_path / kind / "a.png")
    given = ["--panorama", "300", f"--label={tmp_path / 'label/a.png'}", f"--inst={tmp_path / 'inst/a.png'}"]
    repeated = call(root, "--panorama", "300", "--extend_labels", "repeat", output="p/repeat.png")
    assert call(root, *given, output="p/given.png").read_bytes() == repeated.read_bytes() != continued.read_bytes()


def test_objects_are_listed_and_shown(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(root, "--list_objects", output="objects/o.png")
    told, number = capsys.readouterr().out, inst_of(root, CAR)
    assert re.search(rf"^ *{number} +car +\d+,\d+,\d+,\d+ +\d", told, re.M)
    assert read_image(shown).shape == (HEIGHT, WIDTH, 3) and [p.name for p in shown.parent.iterdir()] == ["o.png"]


def test_folders(root: Path) -> None:
    out = root / "folder"
    flags = [f"--{kind}={root / kind}" for kind in ("image", "label", "inst", "mask")]
    call(root, *flags, "--num_samples", "2", output="folder")
    assert sorted(p.name for p in out.iterdir()) == [
        "a.png", "a_2.png", "a_strip.png", "b.png", "b_2.png", "b_strip.png"
    ]  # fmt: skip
    alone = call(root, mask=True, scene="b", output="single/b.png")
    assert alone.read_bytes() == (out / "b.png").read_bytes()


@pytest.mark.parametrize("height", [40, 64, 200])
def test_pictures_of_any_size(root: Path, tmp_path: Path, height: int) -> None:
    scene_files(tmp_path, "x", 5, height)
    width = round(height * 4 / 3)
    mask = np.zeros((height, width), np.uint8)
    mask[5:12, 3:9] = mask[height - 15 : height - 5, width - 20 :] = 1
    save_png(mask, tmp_path / "mask/x.png")
    files = [f"--{kind}={tmp_path / kind / 'x.png'}" for kind in ("image", "label", "inst", "mask")]
    different = changed(tmp_path, call(root, *files, output="size/o.png"), "x")
    assert not different[mask == 0].any()
    assert different[mask > 0].mean() > 0.8


def test_mistakes_are_told(root: Path, tmp_path: Path) -> None:
    def wrong(match: str, *args: str, **kwargs: object) -> None:
        with pytest.raises(UserError, match=match):
            call(root, *args, **kwargs)  # type: ignore[arg-type]

    save_png(np.zeros((HEIGHT, WIDTH), np.uint8), tmp_path / "empty.png")
    save_png(np.full((50, 50), 255, np.uint8), tmp_path / "small.png")
    label = read_map(root / "label/a.png", "label")
    label[3, 4] = 77
    save_png(label.astype(np.uint8), tmp_path / "label.png")
    save_png(read_image(root / "image/b.png"), tmp_path / "b.png")
    save_png(np.zeros((HEIGHT, WIDTH), np.uint8), tmp_path / "sky.png")
    style = ["--style_image", str(tmp_path / "b.png"), "--style_label", str(tmp_path / "sky.png")]
    wrong("the mask is empty", f"--mask={tmp_path / 'empty.png'}")
    wrong(r"small\.png: the mask is 50x50, its picture is 128x96.*--resize_mask", f"--mask={tmp_path / 'small.png'}")
    ways_out = (
        "--ignore_label 77 or .* --label_map 77:0. A run of more classes has to be trained as such, with --label_nc"
    )
    wrong(rf"outside the 9 classes: 77 \(1 pixels\)\. .*{ways_out}", f"--label={tmp_path / 'label.png'}", mask=True)
    wrong("does not fit the model .* leave the model's flags out", "--label_nc", "78", mask=True)
    wrong("--add_object: no class 'cart'. Did you mean 'car'", "--add_object", "cart", "--box", "1,1,9,9")
    wrong("--replace_class: no class 'oak'", "--replace_class", "oak:tree")
    wrong("no instance 9999 in the instance map", "--remove", "9999")
    wrong("not inside the picture of 128x96", "--add_object", "car", "--box", "100,10,140,30")
    wrong("is not x0,y0,x1,y1", "--add_object", "car", "--box", "1,2,3")
    wrong("is not ID:RIGHT,DOWN", "--move", "7:1")
    wrong("belong together", "--add_object", "car")
    wrong("nothing to do: give --mask")
    wrong("128 pixels wide already", "--panorama", "128")
    wrong("give a side", "--outpaint", "above", "9")
    wrong("would overwrite --image", mask=True, output="image/a.png")
    wrong("write a .png", mask=True, output="o.jpg")
    wrong("--style_image needs --style_label", "--style_image", "x.png", mask=True)
    wrong("no instance of 'person'. It has: sky", *style, "--style_class", "person", mask=True)
    wrong(
        "--style_source: --model spmpgan of this run draws no style codes",
        "--style_source",
        "mean",
        mask=True,
        run="spmpgan",
    )
    wrong(
        "--interpolate: --model spmpgan of this run draws no style codes",
        "--interpolate",
        "3",
        mask=True,
        run="spmpgan",
    )
    wrong("different strips", "--interpolate", "3", "--num_samples", "2", mask=True)
    wrong("no run at", mask=True, run="divsen")
    wrong("--masc is unknown. Did you mean '--mask'", "--masc", "x.png")


def test_it_runs_from_any_folder(root: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "edit.py")]
    shown = subprocess.run([*script, "--name", "divsem", "--checkpoints_dir", str(root), "--help"], cwd=tmp_path,
                           capture_output=True, text=True)  # fmt: skip
    assert shown.returncode == 0
    assert "--panorama WIDTH" in shown.stdout
    wrong = subprocess.run([*script, "--name", "no", "--checkpoints_dir", str(root)], cwd=tmp_path,
                           capture_output=True, text=True)  # fmt: skip
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_label_maps_in_colours(root: Path, tmp_path: Path) -> None:
    label = read_map(root / "label/a.png", "label")
    save_png(CLASSES.palette[label], tmp_path / "painted.png")
    painted, palette = f"--label={tmp_path / 'painted.png'}", f"--palette={root / 'divsem/classes.json'}"
    style = [f"--style_image={root / 'image/a.png'}", f"--style_label={tmp_path / 'painted.png'}"]
    style += [f"--style_inst={root / 'inst/a.png'}", "--style_class", "car"]
    by_ids = call(root, *style[:1], f"--style_label={root / 'label/a.png'}", *style[2:], mask=True, output="c/ids.png")
    by_colours = call(root, *style, painted, palette, mask=True, output="c/colours.png")
    assert by_ids.read_bytes() == by_colours.read_bytes()
    editor = semedit.load(root / "divsem", device="cpu", palette=root / "divsem/classes.json")
    files = [root / "image/a.png", CLASSES.palette[label], root / "inst/a.png"]
    scene = editor.scene(*files, root / "mask/a.png")
    assert np.array_equal(scene.label, label)
    for match, *flags in (
        (r"painted\.png: the label map has colours .*edit.py --palette", painted),
        ("--palette none.json: no such file", painted, "--palette=none.json"),
        ("--color_tolerance 9 needs --palette", "--color_tolerance=9"),
        (r"a\.png: the label map has colours that no class of .*classes\.json has", palette),
    ):
        with pytest.raises(UserError, match=match):
            call(root, *flags, mask=True, output="c/wrong.png")
