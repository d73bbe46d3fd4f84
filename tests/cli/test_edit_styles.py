"""scripts/edit.py: whose style a new object gets: draws of the bank, references, what lies between them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from editing_runs import CAR, WIDTH, call, make_runs

import semedit
from data.edit.scenes import Scene, SceneFiles, load_scene
from data.records import Record
from data.samples import make_sample
from data.streets.scene import CLASSES
from models.style_bank import StyleBank
from semedit.styles import instance_codes
from util.batch import collate, expand
from util.errors import UserError
from util.images import read_image, read_map, save_png

SKY = CLASSES.names.index("sky")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("edit"))


def test_samples_are_seeded_and_make_a_strip(root: Path) -> None:
    whole = ["--add_object", "car", "--box", "10,60,50,90"]
    first = call(root, *whole, "--num_samples", "3", output="s1/o.png")
    assert sorted(p.name for p in first.parent.iterdir()) == ["o.png", "o_2.png", "o_3.png", "o_strip.png"]
    pictures = [read_image(first.with_name(n)) for n in ("o.png", "o_2.png", "o_3.png")]
    assert any(not np.array_equal(pictures[0], other) for other in pictures[1:])
    again = call(root, *whole, "--num_samples", "3", output="s2/o.png")
    for path in first.parent.iterdir():
        assert path.read_bytes() == (again.parent / path.name).read_bytes()
    seeds = {call(root, *whole, "--seed", str(s), output=f"s{s}/one.png").read_bytes() for s in range(5)}
    assert len(seeds) > 1
    assert read_image(first.with_name("o_strip.png")).shape[1] > 5 * WIDTH


def test_interpolation_ends_equal_the_draws(root: Path) -> None:
    whole = ["--add_object", "car", "--box", "10,60,50,90"]
    two = call(root, *whole, "--num_samples", "2", "--seed", "3", output="i/two.png")
    line = call(root, *whole, "--interpolate", "3", "--seed", "3", output="i/line.png")
    first, last = (read_image(two.with_name(n)) for n in ("two.png", "two_2.png"))
    assert np.array_equal(read_image(line), first)
    assert np.array_equal(read_image(line.with_name("line_3.png")), last)
    middle = read_image(line.with_name("line_2.png"))
    assert not np.array_equal(middle, first)
    assert not np.array_equal(middle, last)
    assert line.with_name("line_strip.png").is_file()


def reference(root: Path, scene: str = "b", label: str = "car") -> list[str]:
    paths = [f"--style_{kind}={root / kind / f'{scene}.png'}" for kind in ("image", "label", "inst")]
    return [*paths, "--style_class", label]


def test_a_reference_changes_the_style_of_its_class_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = ["--add_object", "car", "--box", "10,60,50,90"]
    bank = call(root, *whole, output="r/bank.png").read_bytes()
    assert call(root, *whole, *reference(root), output="r/ref.png").read_bytes() != bank
    mean = call(root, *whole, "--style_source", "mean", output="r/mean.png").read_bytes()
    assert mean != bank
    assert call(root, *whole, "--style_source", "mean", "--seed", "9", output="r/mean9.png").read_bytes() == mean
    line = call(root, *whole, *reference(root), "--interpolate", "2", output="r/line.png")
    assert line.read_bytes() == bank  # from the bank's draw to the reference's
    assert line.with_name("line_2.png").read_bytes() == (root / "r/ref.png").read_bytes()
    capsys.readouterr()
    assert call(root, *whole, *reference(root, label="sky"), output="r/sky.png").read_bytes() == bank
    assert "no sky is fully erased" in capsys.readouterr().out


def test_reference_codes_are_those_that_a_bank_would_hold(root: Path, tmp_path: Path) -> None:
    """The reference is cut to one window, the model's size: then its codes are the whole picture's."""
    for kind, dtype in (("image", np.uint8), ("label", np.uint8), ("inst", np.uint16)):
        path = root / kind / "b.png"
        pixels = read_image(path) if kind == "image" else read_map(path, kind)
        save_png(pixels[20:84, 30:94].astype(dtype), tmp_path / kind / "square.png")
    editor = semedit.load(root / "divsem", device="cpu")
    record = Record("square", *(tmp_path / kind / "square.png" for kind in ("image", "label", "inst")))
    scene = load_scene(SceneFiles(record, None), editor.rules)
    rule = {"rules": editor.rules, "inst_class_rule": "majority"}
    batch = expand(collate([make_sample(scene.maps, np.zeros((64, 64)), name="square", **rule)]))  # type: ignore[arg-type]
    with torch.no_grad():
        codes = editor.model.encoder.raw_codes(batch["image"], batch["inst"], batch["inst_id"].shape[1])
    cars = codes[batch["inst_class"] == CAR]
    assert len(cars) > 1
    assert torch.allclose(instance_codes(editor, scene, CAR), cars, atol=1e-5)


def test_regions_of_one_class_lend_their_styles_whatever_their_ids_in_the_file(root: Path) -> None:
    """As in Cityscapes with a `--label_map` that joins two classes of regions."""
    editor = semedit.load(root / "divsem", device="cpu")
    editor.rules = editor.painter.rules = replace(editor.rules, first_instance=1000)
    label, inst = np.full((64, 64), SKY, np.int32), np.repeat(np.arange(907, 911, dtype=np.int32), 16)
    image = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    scene = Scene("joined", image, label, np.tile(inst[:, None], 64), np.zeros((64, 64), bool))
    codes = instance_codes(editor, scene, SKY)
    assert len(codes.unique(dim=0)) == len(codes) == 4


def test_a_code_of_the_bank_is_chosen_by_its_number(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = ["--add_object", "car", "--box", "10,60,50,90"]
    call(root, *whole)  # makes the bank, if no other test has
    path = root / "divsem" / "style_bank.safetensors"
    saved, bank = path.read_bytes(), StyleBank.load(path, style_dim=8)
    results = []
    for number in (0, 2):
        made = call(root, *whole, "--style_code", f"tree:0,car:{number}", "--seed", str(number), output="c/o.png")
        results.append(made.read_bytes())
        try:  # what a bank draws that has this code alone
            StyleBank({**bank.codes, CAR: bank.codes[CAR][number : number + 1]}, weights=bank.weights).save(path)
            assert call(root, *whole, output="c/alone.png").read_bytes() == results[-1]
        finally:
            path.write_bytes(saved)
    assert results[0] != results[1]
    assert "no tree is fully erased: the code had no influence" in capsys.readouterr().out
    line = call(root, *whole, "--style_code", "car:2", "--interpolate", "2", output="c/line.png")
    assert line.read_bytes() == call(root, *whole, output="c/draw.png").read_bytes()
    assert line.with_name("line_2.png").read_bytes() == results[1]
    last = len(bank.codes[CAR]) - 1
    for text, message in {
        f"car:{last + 1}": rf"--style_code car:{last + 1}: the run's style bank has codes 0 to {last} of 'car'",
        "cra:1": "--style_code: no class 'cra'. Did you mean 'car'",
        "car": "'car' is not CLASS:NUMBER",
        "car:1,car:2": "each class once",
        "car:-1": "is not CLASS:NUMBER",
        f"car:1,{CAR}:2": "--style_code: a code of 'car' is given twice",
    }.items():
        with pytest.raises(UserError, match=message):
            call(root, *whole, "--style_code", text)
    with pytest.raises(UserError, match="--style_source mean others: leave one of them out"):
        call(root, *whole, "--style_code", "car:0", "--style_source", "mean")
    with pytest.raises(UserError, match="--style_image others: leave one of them out"):
        call(root, *whole, "--style_code", "car:0", *reference(root))
    with pytest.raises(UserError, match="--style_code: --model spmpgan of this run draws no style codes"):
        call(root, *whole, "--style_code", "car:0", run="spmpgan")


def test_a_class_without_a_code_is_an_error_with_ways_out(root: Path) -> None:
    path = root / "divsem" / "style_bank.safetensors"
    whole = ["--add_object", "car", "--box", "10,60,50,90"]
    call(root, *whole)  # makes the bank, if no other test has
    saved = path.read_bytes()
    try:
        bank = StyleBank.load(path, style_dim=8)
        StyleBank({c: r for c, r in bank.codes.items() if c != CAR}, weights=bank.weights).save(path)
        with pytest.raises(UserError, match=r"'car' \(class 6\) is fully erased.*--style_source mean"):
            call(root, *whole)
        call(root, *whole, "--style_source", "mean")
        call(root, *whole, *reference(root))
    finally:
        path.write_bytes(saved)
