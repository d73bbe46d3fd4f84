"""Folders of anybody's pictures: what is refused, and that the file is named."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metrics.folders import Item, Items, batches, list_pictures, read_exact
from util.errors import DataError


def picture(seed: int = 0, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (16, 20, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def test_plain_pictures_come_as_they_are(tmp_path: Path) -> None:
    rgb = picture()
    array, digest = read_exact(save(tmp_path / "a.png", Image.fromarray(rgb)))
    np.testing.assert_array_equal(array, rgb)
    assert len(digest) == 40
    grey, _ = read_exact(save(tmp_path / "g.png", Image.fromarray(rgb[..., 0])))
    np.testing.assert_array_equal(grey, rgb[..., :1].repeat(3, 2))
    indexed = Image.fromarray(rgb).quantize(16)
    np.testing.assert_array_equal(read_exact(save(tmp_path / "p.png", indexed))[0], np.asarray(indexed.convert("RGB")))
    opaque = np.dstack([rgb, np.full((16, 20), 255, np.uint8)])
    np.testing.assert_array_equal(read_exact(save(tmp_path / "o.png", Image.fromarray(opaque)))[0], rgb)


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    rgb = picture()
    nan = np.full((8, 8), np.nan, np.float32)
    whole = save(folder / "whole.png", Image.fromarray(rgb))
    cut = folder / "cut.png"
    cut.write_bytes(whole.read_bytes()[:200])
    text = folder / "text.png"
    text.write_text("no picture")
    frames = folder / "frames.tif"
    Image.fromarray(rgb).save(frames, save_all=True, append_images=[Image.fromarray(rgb)])
    return {
        "tiff without sizes": (_tiff_without_sizes(folder / "t.tif"), "cannot be decoded"),
        "cut": (cut, "cannot be decoded"),
        "text": (text, "cannot be decoded"),
        "empty": (_touch(folder / "empty.png"), "cannot be decoded"),
        "16 bit grey": (
            save(folder / "g16.png", Image.fromarray(picture(1, 8, 8).astype(np.uint16))),
            "more than 8 bit",
        ),
        "16 bit colour": (_deep_colours(folder / "deep.png"), "more than 8 bit"),
        "nan": (save(folder / "nan.tif", Image.fromarray(nan)), "NaN"),
        "alpha": (save(folder / "alpha.png", Image.fromarray(picture(2, 8, 8, 4))), "transparent"),
        "cmyk": (save(folder / "cmyk.jpg", Image.fromarray(rgb).convert("CMYK")), "mode CMYK"),
        "frames": (frames, "several pictures"),
    }


def _tiff_without_sizes(path: Path) -> Path:
    """The tag of the width becomes one that no reader knows."""
    data = save(path, Image.fromarray(picture())).read_bytes()
    path.write_bytes(data.replace(b"\x00\x01\x04\x00\x01", b"\xf0\xf0\x04\x00\x01", 1))
    return path


def _deep_colours(path: Path) -> Path:
    """Write a PNG of 16 bit colours, which Pillow cannot."""
    header, rows = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0), zlib.compress(8 * bytes(1 + 8 * 6))
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    parts = [struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def _touch(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def test_what_would_have_to_be_guessed_is_refused(tmp_path: Path) -> None:
    for what, (path, fault) in bad_files(tmp_path).items():
        with pytest.raises(DataError, match=fault) as caught:
            read_exact(path)
        assert path.name in str(caught.value), what


def test_folders_are_listed_by_base_name(tmp_path: Path) -> None:
    save(tmp_path / "x" / "a.png", Image.fromarray(picture()))
    save(tmp_path / "x" / "a.jpg", Image.fromarray(picture()))
    save(tmp_path / "x" / "b.JPG", Image.fromarray(picture()))
    (tmp_path / "x" / "notes.txt").write_text("")
    found, faults = list_pictures(str(tmp_path / "x"), "--fake")
    assert set(found) == {"b"}
    assert "share the name a" in faults["a"]
    with pytest.raises(DataError, match=r"--fake .*none: no such folder"):
        list_pictures(str(tmp_path / "none"), "--fake")
    with pytest.raises(DataError, match=r"no pictures .*it has folders, such as .*x"):
        list_pictures(str(tmp_path), "--real")


def test_faults_of_pairs_are_returned_with_the_file(tmp_path: Path) -> None:
    small, large = (
        save(tmp_path / n, Image.fromarray(picture(1, *s))) for n, s in (("s.png", (8, 8, 3)), ("l.png", (8, 12, 3)))
    )
    label = save(tmp_path / "label.png", Image.fromarray(np.full((8, 8), 7, np.uint8)))
    items = Items([Item("a", [small], large), Item("b", [small], small, label=label)], label_nc=5, ignore_label=255)
    assert "s.png is 8x8" in str(items[0].problem)
    assert "12x8" in str(items[0].problem)
    assert "label 7 lies outside 0..4" in str(items[1].problem)
    assert Items([Item("b", [small], small, label=label)], label_nc=5, ignore_label=7)[0].problem is None
    too_small = Items([Item("c", [small], small)], smallest_side=11)[0].problem
    assert "s.png is 8x8; SSIM or LPIPS needs at least 11 pixels" in str(too_small)
    lossy = save(tmp_path / "mask.jpg", Image.fromarray(np.full((8, 8), 255, np.uint8)))
    assert "mask.jpg: a lossy format" in str(Items([Item("b", [small], small, mask=lossy)])[0].problem)


def test_batches_hold_one_size_each_and_all_draws(tmp_path: Path) -> None:
    sizes = {"a": (16, 16, 3), "b": (16, 20, 3), "c": (16, 16, 3)}
    items = []
    for k, (name, size) in enumerate(sizes.items()):
        files = [save(tmp_path / f"{name}{i}.png", Image.fromarray(picture(10 * k + i, *size))) for i in range(3)]
        mask = save(tmp_path / f"{name}m.png", Image.fromarray(np.full(size[:2], 255 * (k == 0), np.uint8)))
        items.append(Item(name, files[:2], files[2], mask=mask))
    loaded = [Items(items)[i] for i in range(3)]
    stacked = batches(loaded)
    assert [p.name for p in stacked] == [["a", "c"], ["b"]]
    assert stacked[0].draws is not None
    assert stacked[0].draws.shape == (2, 2, 3, 16, 16)
    assert stacked[0].mask is not None
    assert stacked[0].mask.flatten(1).max(1).values.tolist() == [1, 0]
    np.testing.assert_array_equal(stacked[1].real[0].movedim(0, -1), picture(12, 16, 20, 3))
    assert torch.equal(stacked[0].fake, stacked[0].draws[:, 0])
