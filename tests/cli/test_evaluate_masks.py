"""Masks of any make: scripts/evaluate.py and test.py read one file alike, and refuse the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from data.masks import read_mask
from scripts.evaluate import main
from util.errors import DataError

SIDE = 48
MASK = np.zeros((SIDE, SIDE), np.uint8)
MASK[8:30, 10:40] = 1


def palette(colours: list[list[int]], ids: np.ndarray) -> Image.Image:
    picture = Image.fromarray(ids, mode="P")
    picture.putpalette(np.array(colours, np.uint8).tobytes())
    return picture


def alpha(opaque: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([np.repeat(255 * MASK[..., None], 3, 2), 255 * opaque]).astype(np.uint8))


READ: dict[str, Callable[[], Image.Image]] = {
    "0 and 255": lambda: Image.fromarray(255 * MASK),
    "0 and 1": lambda: Image.fromarray(MASK),
    "one bit": lambda: Image.fromarray(255 * MASK).convert("1"),
    "16 bit": lambda: Image.fromarray(255 * MASK.astype(np.uint16)),
    "RGB": lambda: Image.fromarray(255 * MASK).convert("RGB"),
    "opaque RGBA": lambda: alpha(np.ones_like(MASK)),
    "palette": lambda: palette([[0, 0, 0], [255, 255, 255]], MASK),
    "palette, white first": lambda: palette([[255, 255, 255], [0, 0, 0]], 1 - MASK),
}
REFUSED: dict[str, tuple[Callable[[], Image.Image], str]] = {
    "blurred": (
        lambda: Image.fromarray(255 * MASK).filter(ImageFilter.GaussianBlur(2)),
        r"0\.png: the mask holds \d+ values up to 255, as blurred .* set every pixel to one of them",
    ),
    "red": (lambda: Image.fromarray(255 * MASK[..., None] * np.array([1, 0, 0], np.uint8)), r"0\.png: .* has colours"),
    "coloured palette": (lambda: palette([[0, 0, 0], [128, 0, 0]], MASK), r"0\.png: .* has colours"),
    "transparent": (lambda: alpha(MASK), r"0\.png: the mask has transparent pixels"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One pair: noise outside, other noise where the mask is 1."""
    rng = np.random.default_rng(0)
    real, fake = rng.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    for kind, picture in (("real", real), ("fake", np.where(MASK[..., None] > 0, fake, real))):
        (tmp_path / kind).mkdir()
        Image.fromarray(picture).save(tmp_path / kind / "0.png")
    (tmp_path / "masks").mkdir()
    return tmp_path


def score(folder: Path, *more: str, metrics: str = "l1,seam") -> dict:
    flags = [part for kind in ("real", "fake", "masks") for part in (f"--{kind}", str(folder / kind))]
    usual = ["--metrics", metrics, "--device", "cpu", "--num_workers", "0", "--json", str(folder / "out.json")]
    assert main([*flags, *usual, *more]) == 0
    return json.loads((folder / "out.json").read_text())


@pytest.mark.parametrize("kind", READ)
def test_masks_are_read_by_what_they_show(folder: Path, kind: str) -> None:
    file = folder / "masks" / "0.png"
    READ[kind]().save(file)
    assert np.array_equal(read_mask(file, SIDE), MASK)
    assert score(folder)["metrics"]["l1_masked"] == pytest.approx(1 / 3, abs=0.03)  # 0 outside the mask


@pytest.mark.parametrize("kind", REFUSED)
def test_both_commands_refuse_the_same_masks(folder: Path, kind: str) -> None:
    make, sentence = REFUSED[kind]
    file = folder / "masks" / "0.png"
    make().save(file)
    with pytest.raises(DataError, match=sentence):
        read_mask(file, SIDE)
    with pytest.raises(DataError, match=sentence):
        score(folder)


def test_masked_miou_and_accuracy_are_those_of_labels_that_end_with_the_mask(folder: Path) -> None:
    rng = np.random.default_rng(1)
    label = rng.integers(0, 9, (SIDE, SIDE), dtype=np.uint8)
    for kind, picture in (("labels", label), ("inside", np.where(MASK > 0, label, 255).astype(np.uint8))):
        (folder / kind).mkdir()
        Image.fromarray(picture).save(folder / kind / "0.png")
    Image.fromarray(255 * MASK).save(folder / "masks" / "0.png")
    flags = ["--segmenter", "streets", "--ignore_label", "255", "--labels"]
    found = score(folder, *flags, str(folder / "labels"), metrics="miou,acc,miou_masked,acc_masked")
    expected = score(folder, *flags, str(folder / "inside"), metrics="miou,acc")
    for name in ("miou", "acc"):
        masked, inside = f"{name}_masked_streets", f"{name}_streets"
        assert found["metrics"][masked] == expected["metrics"][inside]
        assert found["details"][masked]["real"] == expected["details"][inside]["real"]
        assert found["metrics"][masked] != found["metrics"][inside]
    assert found["details"]["miou_masked_streets"]["pixels"] == MASK.sum()
    Image.fromarray(0 * MASK).save(folder / "masks" / "0.png")
    empty = score(folder, *flags, str(folder / "labels"), metrics="acc,acc_masked")
    assert set(empty["metrics"]) == {"acc_streets"}
    assert "acc_masked_streets: left out, no masked pixel has a label that streets knows" in empty["protocol"]["notes"]
