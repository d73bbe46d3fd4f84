"""Files that are no pictures, or not the ones that their names say."""

from __future__ import annotations

import io
import os
import random
import shlex
import signal
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.checks import label_problems, load_record
from data.records import MapRules, Maps, Record
from data.transforms import scale_short_side
from metrics.folders import Item, read_exact
from metrics.pairing import differ_in_size
from util.decode import MOST_PIXELS
from util.errors import DataError
from util.images import read_binary, read_image, read_map

READERS = {
    "picture": read_image,
    "label map": lambda path: read_map(path, "label map"),
    "mask": read_binary,
    "picture to score": read_exact,
}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail instead of waiting for ever."""

    def late(*_: object) -> None:
        pytest.fail(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def encoded(array: np.ndarray, form: str = "PNG", **more: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, form, **more)
    return file.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def refused(path: Path, words: str) -> None:
    """All readers name the file and the fault."""
    for reader in READERS.values():
        with within(20), pytest.raises(DataError) as told:
            reader(path)
        assert str(path) in str(told.value)
        assert words in str(told.value), told.value


@pytest.mark.fault("8", "a picture cut short at a random byte", sees="the file, that it cannot be decoded")
def test_cut_short(ledger, tmp_path: Path) -> None:
    rng = random.Random(0)
    for attempt in ledger.attempts(300, quick=20):
        with attempt as number:
            form = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")[number % 6]
            whole = encoded(noise(24, 24, 3), form)
            path = tmp_path / f"cut.{form.lower()}"
            path.write_bytes(whole[: rng.randrange(len(whole) // 2)])
            refused(path, "cannot be decoded")


@pytest.mark.fault("8", "a picture with overwritten bytes", sees="it is read, or the file is named with the fault")
def test_overwritten(ledger, tmp_path: Path) -> None:
    rng = random.Random(1)
    for attempt in ledger.attempts(1500, quick=60):
        with attempt as number:
            form = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")[number % 6]
            data = bytearray(encoded(noise(16, 16, 3), form))
            for _ in range(rng.randrange(1, 8)):
                data[rng.randrange(min(len(data), rng.choice((64, len(data)))))] = rng.randrange(256)
            path = tmp_path / "hurt.png"
            path.write_bytes(data)
            for reader in READERS.values():
                try:
                    reader(path)
                except DataError as error:
                    assert str(path) in str(error)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.fault(
    "8", "an EPS file under the name of a PNG", sees="that it is none of the six formats; no program starts"
)
def test_no_program_is_started(ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted, traces = tmp_path / "bin" / "gs", tmp_path / "started"
    planted.parent.mkdir()
    planted.write_text(f"#!/bin/sh\necho 10.0\ntouch {shlex.quote(str(traces))}\n")
    planted.chmod(0o755)
    monkeypatch.setenv("PATH", str(planted.parent), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    path = tmp_path / "picture.png"
    path.write_bytes(EPS)
    with pytest.raises(OSError), Image.open(path) as guessed:
        guessed.load()
    assert traces.exists(), "the trap does not work"
    traces.unlink()
    for attempt in ledger.attempts(1):
        with attempt:
            refused(path, "no PNG, JPEG, WEBP, BMP, TIFF or PPM file")
            assert differ_in_size(Item("picture", [path], path)) is False
            assert not traces.exists()


@pytest.mark.fault("8", "a pipe, a device or a folder as picture", sees="that it is not a regular file; nothing waits")
def test_only_regular_files(ledger, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    for attempt in ledger.attempts(1):
        with attempt:
            for name in ("pipe", "folder", "device"):
                refused(tmp_path / f"{name}.png", "not a regular file")
            refused(tmp_path / "loop.png", "cannot be read")
            refused(tmp_path / "none.png", "does not exist")


@pytest.mark.fault("8", "a file of several pictures", sees="that it holds several, or is of another format")
def test_animations(ledger, tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(8, 8, 3, seed=k)) for k in range(3)]
    for attempt in ledger.attempts(1):
        with attempt:
            for form, words in (("PNG", "several"), ("WEBP", "several"), ("TIFF", "several"), ("GIF", "is no PNG")):
                path = tmp_path / f"{form}.png"
                frames[0].save(path, form, save_all=True, append_images=frames[1:])
                refused(path, words)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose head promises much and whose data is short."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(4096))) + chunk(b"IEND", b"")
    )


@pytest.mark.fault(
    "16", "a picture of more pixels than are read", sees="its size, and that 134 million pixels are read"
)
def test_bombs(ledger, tmp_path: Path) -> None:
    rng = random.Random(2)
    for attempt in ledger.attempts(50, quick=4):
        with attempt as number:
            width = (12_000, 1 << 31 - 1, 400_000)[number] if number < 3 else rng.randrange(1 << 14, 1 << 31)
            height = MOST_PIXELS // width + 1 if number else 12_000
            path = tmp_path / "bomb.png"
            path.write_bytes(bomb(width, height))
            refused(path, "134 million" if width * height <= 2 * 89_478_485 else "")
    with open(path, "r+b") as sparse:
        sparse.truncate(1 << 40)
    refused(path, "MiB")


def test_strips_do_not_grow_without_bound() -> None:
    strip = Maps(np.zeros((1, 600_000, 3), np.uint8), np.zeros((1, 600_000), np.int32), None)
    with pytest.raises(DataError, match="the wall: 600000x1, too long a strip"):
        scale_short_side(strip, 256, name="the wall")


def record(tmp_path: Path, **parts: np.ndarray | bytes) -> Record:
    for name, part in parts.items():
        (tmp_path / f"{name}.png").write_bytes(part if isinstance(part, bytes) else encoded(part))
    inst = tmp_path / "inst.png" if "inst" in parts else None
    return Record("scene", tmp_path / "image.png", tmp_path / "label.png", inst)


@pytest.mark.fault("9", "16-bit instance ids", sees="ids as stored; maps cut to 8 bit are refused by their file")
def test_16_bit_ids(ledger, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for attempt in ledger.attempts(100, quick=5):
        with attempt:
            ids = rng.integers(0, 1 << 16, (16, 16), np.uint16)
            image, label = noise(16, 16, 3), noise(16, 16) % 5
            maps = load_record(record(tmp_path, image=image, label=label, inst=ids), MapRules(5))
            assert np.array_equal(maps.inst, ids)
            with pytest.raises(DataError, match=r"inst.png: the instance map has 8 bits"):
                load_record(record(tmp_path, image=image, label=label, inst=ids.astype(np.uint8)), MapRules(5))


@pytest.mark.fault("10", "label ids outside the classes", sees="file, ids, their pixels, and three flags that help")
def test_ids_out_of_range(ledger, tmp_path: Path) -> None:
    rng = random.Random(4)
    for attempt in ledger.attempts(200, quick=10):
        with attempt:
            label, bad, count = noise(16, 16) % 5, rng.randrange(5, 256), rng.randrange(1, 40)
            label.ravel()[rng.sample(range(256), count)] = bad
            with pytest.raises(
                DataError, match=rf"label.png: label ids outside the 5 classes: {bad} \({count} pixels\)"
            ):
                load_record(record(tmp_path, image=noise(16, 16, 3), label=label), MapRules(5))
            assert not label_problems(label, MapRules(5, ignore_label=bad))


@pytest.mark.fault("10", "32-bit maps with ids below 0", sees="file, lowest id, number of pixels")
def test_ids_below_zero(ledger, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for attempt in ledger.attempts(50, quick=4):
        with attempt as number:
            ids = rng.integers(0, 5, (16, 16)).astype(np.int32)
            ids[3, : number % 16 + 1] = -5
            parts = {"image": noise(16, 16, 3), "label": noise(16, 16) % 5, "inst": noise(16, 16).astype(np.uint16)}
            for kind in ("label", "inst"):
                files = record(tmp_path, **{**parts, kind: encoded(ids, "TIFF")})
                with pytest.raises(
                    DataError, match=rf"{kind}.png.* ids below 0, such as -5 \({number % 16 + 1} pixels\)"
                ):
                    load_record(files, MapRules(5))
            with pytest.raises(DataError, match="ids below 0"):
                read_binary(tmp_path / "inst.png")


@pytest.mark.fault("11", "picture and maps of different sizes, or colours as label map", sees="both files and sizes")
def test_sizes_and_colours(ledger, tmp_path: Path) -> None:
    rng = random.Random(6)
    for attempt in ledger.attempts(100, quick=6):
        with attempt:
            h, w = rng.randrange(1, 40), rng.randrange(1, 40)
            same, other = (h, w), (h + rng.randrange(1, 3), w)
            inst = np.zeros(same, np.uint16)
            odd = load_record(record(tmp_path, image=noise(*same, 3), label=noise(*same) % 5, inst=inst), MapRules(5))
            assert odd.label.shape == same
            for kind, array in (("label", noise(*other) % 5), ("inst", np.zeros(other, np.uint16))):
                parts = {"image": noise(*same, 3), "label": noise(*same) % 5, "inst": inst, kind: array}
                with pytest.raises(
                    DataError, match=f"{kind}.png: the .* map is {w}x{other[0]}, its picture .* is {w}x{h}"
                ):
                    load_record(record(tmp_path, **parts), MapRules(5))
            with pytest.raises(DataError, match="the label map has colours"):
                load_record(record(tmp_path, image=noise(*same, 3), label=noise(*same, 3)), MapRules(5))
