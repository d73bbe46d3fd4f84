"""What scripts/evaluate.py says of folders that it can measure, but whose numbers would mislead."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.evaluate import main

COUNT, SIDE = 4, 48


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pairs whose pictures differ where the mask is white, and nowhere else."""
    rng = np.random.default_rng(0)
    for kind in ("real", "fake", "masks"):
        (tmp_path / kind).mkdir()
    for i in range(COUNT):
        real, noise = rng.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[4 : 20 + i, 8:40] = 255
        Image.fromarray(real).save(tmp_path / "real" / f"{i}.png")
        Image.fromarray(np.where(mask[..., None] > 0, noise, real)).save(tmp_path / "fake" / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
    return tmp_path


def notes(folder: Path, capsys: pytest.CaptureFixture[str], *more: str, metrics: str = "l1,seam") -> list[str]:
    """Return the notes of the result, which are those on screen."""
    flags = [f"--real={folder / 'real'}", f"--fake={folder / 'fake'}", "--metrics", metrics, "--device=cpu"]
    masks = [] if "l1" not in metrics else [f"--masks={folder / 'masks'}"]
    capsys.readouterr()
    assert main([*flags, *masks, *more, "--num_workers=0", "--cache_dir=none", f"--json={folder / 'out.json'}"]) == 0
    stored = json.loads((folder / "out.json").read_text())["protocol"]["notes"]
    printed = [line.removeprefix("note: ") for line in capsys.readouterr().out.splitlines() if "note: " in line]
    assert printed == stored
    return stored


def each(folder: Path, kind: str) -> list[Path]:
    return sorted((folder / kind).iterdir())


def test_sound_folders_get_no_note(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert notes(folder, capsys) == []


def test_results_saved_as_jpeg_differ_where_pixels_were_given(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in each(folder, "fake"):
        Image.open(file).save(file.with_suffix(".jpg"), quality=90)
        file.unlink()
    given, lossy = notes(folder, capsys)
    share = float(given.split(" %")[0])
    assert 50 < share <= 100
    assert f"in {COUNT} of {COUNT} pictures" in given and "given (unmasked) pixels differ from the truth" in given
    assert lossy.startswith("4 of 4 files of --fake and 0 of 4 files of --real are of a lossy format (.jpg, .png)")


def test_one_changed_pixel_is_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = np.array(Image.open(folder / "fake" / "2.png"))
    picture[0, 0, 1] ^= 1
    Image.fromarray(picture).save(folder / "fake" / "2.png")
    (note,) = notes(folder, capsys)
    assert note.startswith("0.01 % of the given (unmasked) pixels") and f"in 1 of {COUNT} pictures" in note


def test_inverted_masks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in each(folder, "masks"):
        Image.fromarray(255 - np.array(Image.open(file))).save(file)
    same, given, large = notes(folder, capsys)
    assert "all masked pixels equal the truth in all 4 pictures with a mask: are the masks inverted" in same
    assert "given (unmasked) pixels differ" in given
    assert "pixels are to be generated (white: generate); if that is not meant, it is inverted" in large


def test_the_truth_as_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in each(folder, "fake"):
        Image.open(folder / "real" / file.name).save(file)
    assert notes(folder, capsys) == [
        "every picture of --fake equals its real one pixel for pixel: was the truth given as the result?"
    ]
    (folder / "fake" / "3.png").write_bytes((folder / "masks" / "3.png").read_bytes())
    assert notes(folder, capsys)[0] == "3 of 4 pictures equal the truth wherever they were generated"


def test_grey_results(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in each(folder, "fake")[:3]:
        Image.open(file).convert("L").save(file)
    assert notes(folder, capsys, metrics="psnr_whole") == ["3 of 4 pictures of --fake are grey, 0 of 4 of --real"]


def test_few_pictures_and_shared_files_of_sets(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in each(folder, "fake"):
        file.rename(file.with_name(f"other_{file.name}"))
    (folder / "fake" / "other_0.png").write_bytes((folder / "real" / "0.png").read_bytes())
    shared, few = notes(folder, capsys, metrics="fid")
    assert shared == "--real holds 1 of the files of --fake too, byte for byte"
    assert few.startswith("fid of 4 pictures: fewer pictures than the 2048 features: biased upwards")
