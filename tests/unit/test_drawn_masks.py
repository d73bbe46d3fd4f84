"""Masks as image editors save them, and pictures whose EXIF says how they are turned."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import semedit.sources
from data.edit.masks import MaskRule, read_drawn_mask
from util.decode import picture_size, rotation_note
from util.errors import DataError
from util.images import read_id_map, read_image

SIZE = (20, 30)
WANTED = np.zeros(SIZE, bool)
WANTED[5:12, 8:20] = True
LEVELS = np.where(WANTED, 255, 0).astype(np.uint8)


def soft() -> np.ndarray:
    """The mask with an edge of grey pixels on both sides of 128."""
    levels = LEVELS.copy()
    levels[5:12, 7], levels[5:12, 8] = 90, 160
    return levels


def rgba(colour: tuple[int, int, int]) -> Image.Image:
    """A layer of an image editor: painted where generated, transparent elsewhere."""
    return Image.fromarray(np.dstack([*(np.full(SIZE, level, np.uint8) for level in colour), LEVELS]))


def palette() -> Image.Image:
    picture = Image.fromarray(np.where(WANTED, 0, 1).astype(np.uint8)).convert("P")
    picture.putpalette([255, 255, 255, 0, 0, 0])
    return picture


FORMS = {
    "grey.png": Image.fromarray(LEVELS),
    "zero_one.png": Image.fromarray(WANTED.astype(np.uint8)),
    "bits.png": Image.fromarray(WANTED),
    "rgb.png": Image.fromarray(LEVELS).convert("RGB"),
    "white_layer.png": rgba((255, 255, 255)),
    "yellow_layer.png": rgba((250, 240, 30)),
    "palette.png": palette(),
    "deep.png": Image.fromarray(LEVELS.astype(np.uint16) * 257),
    "soft.png": Image.fromarray(soft()),
}


@pytest.mark.parametrize("name", FORMS)
def test_masks_of_image_editors_are_taken(tmp_path: Path, name: str) -> None:
    FORMS[name].save(tmp_path / name)
    mask, notes = read_drawn_mask(tmp_path / name, SIZE, MaskRule())
    np.testing.assert_array_equal(mask, WANTED)
    np.testing.assert_array_equal(semedit.sources.mask_from(Image.open(tmp_path / name)), WANTED)
    soft_edges = name in ("soft.png", "yellow_layer.png")
    assert len(notes) == soft_edges and all("--mask_threshold" in note for note in notes), notes
    inverted, _ = read_drawn_mask(tmp_path / name, SIZE, MaskRule(invert=True))
    np.testing.assert_array_equal(inverted, ~WANTED)


def test_the_threshold_decides_and_the_note_counts(tmp_path: Path) -> None:
    Image.fromarray(soft()).save(tmp_path / "m.png")
    wide, (note,) = read_drawn_mask(tmp_path / "m.png", SIZE, MaskRule(threshold=90))
    narrow, _ = read_drawn_mask(tmp_path / "m.png", SIZE, MaskRule(threshold=161))
    assert (wide.sum(), narrow.sum()) == (7 * 13, 7 * 11)
    assert "14 pixels (2.3 %) are neither black nor white; those of level 90 and above" in note


def test_a_jpeg_is_taken_with_a_note(tmp_path: Path) -> None:
    Image.fromarray(LEVELS).save(tmp_path / "m.jpg", quality=85)
    mask, (note,) = read_drawn_mask(tmp_path / "m.jpg", SIZE, MaskRule())
    assert (mask != WANTED).mean() < 0.02 and "m.jpg" in note


def test_another_size_is_refused_or_scaled(tmp_path: Path) -> None:
    Image.fromarray(LEVELS.repeat(2, 0).repeat(2, 1)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png: the mask is 60x40, its picture is 30x20.*--resize_mask"):
        read_drawn_mask(tmp_path / "m.png", SIZE, MaskRule())
    mask, notes = read_drawn_mask(tmp_path / "m.png", SIZE, MaskRule(resize=True))
    np.testing.assert_array_equal(mask, WANTED)
    assert "scaled from 60x40 to 30x20" in notes[0]


def turned(path: Path, value: int, **how: int) -> np.ndarray:
    """Save a picture whose EXIF has an orientation; return its upright pixels, blocks that JPEG keeps."""
    exif = Image.Exif()
    exif[0x0112] = value
    pixels = np.random.default_rng(0).integers(0, 255, (2, 3, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    upright = Image.fromarray(pixels)
    undo = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[value]
    (upright if undo is None else upright.transpose(undo)).save(path, exif=exif, **how)
    return pixels


@pytest.mark.parametrize("value", [1, 3, 6, 8])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tiff", "a.webp"])
def test_pictures_are_read_upright(tmp_path: Path, name: str, value: int) -> None:
    lossless = {"a.jpg": {"quality": 100, "subsampling": 0}, "a.webp": {"lossless": 1, "quality": 100}}
    pixels = turned(tmp_path / name, value, **lossless.get(name, {}))
    picture = read_image(tmp_path / name)
    assert picture.shape == pixels.shape
    assert np.abs(picture.astype(int) - pixels).max() <= 4  # of JPEG's rounding
    assert picture_size(tmp_path / name) == (48, 32)
    with Image.open(tmp_path / name) as opened:
        np.testing.assert_array_equal(semedit.sources.picture_from(opened), picture)  # in memory as from its file
    assert bool(rotation_note(tmp_path / name)) == (value != 1)


def test_damaged_metadata_turns_nothing(tmp_path: Path) -> None:
    picture = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    broken = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 999) + b"\1"
    picture.save(tmp_path / "a.jpg", exif=broken)
    assert read_image(tmp_path / "a.jpg").shape == (4, 6, 3)
    assert read_id_map(_ids(tmp_path), "label map").ids.shape == (4, 6)


def _ids(folder: Path) -> Path:
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(folder / "ids.png")
    return folder / "ids.png"
