"""Packing: going on where it stopped, what cannot be packed, and damage of packed folders, told in a sentence."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import dataset, make_folder, options, pack
from PIL import Image

from data.packed import Row
from scripts.check_data import main as check_data
from util.errors import DataError, UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "folder", count=5)


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    return pack(folder, tmp_path / "packed")


# --- packing ----------------------------------------------------------------------------------------------------------
def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def test_packing_goes_on_and_gives_the_same_bytes(folder: Path, shards: Path) -> None:
    whole = contents(shards)
    for name in ("packed.json", "test.index", "train-000001.tar"):  # as after an interruption
        (shards / name).unlink()
    kept = (shards / "train-000000.tar").stat().st_ino
    with pytest.raises(DataError, match=r"packed\.json is missing: packing did not finish"):
        dataset(dataroot=shards)
    assert contents(pack(folder, shards)) == whole
    assert (shards / "train-000000.tar").stat().st_ino == kept


def changed_label(folder: Path, shards: Path) -> None:
    Image.fromarray(np.zeros((80, 96), np.uint8)).save(folder / "train" / "labels" / "p0.png")


def lost_label(folder: Path, shards: Path) -> None:
    (folder / "train" / "labels" / "p0.png").unlink()


def lost_stamp(folder: Path, shards: Path) -> None:
    (shards / "prepared.json").unlink()


def unsafe_member(folder: Path, shards: Path) -> None:
    with tarfile.open(shards / "train-000000.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("../p9.image.png"))


def cut_shard(folder: Path, shards: Path) -> None:
    path = shards / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:1000])


def broken_classes(folder: Path, shards: Path) -> None:
    (folder / "classes.json").write_text("{}")


@pytest.mark.parametrize(
    "damage, told",
    [
        (
            changed_label,
            r"--output .* was made by pack_dataset\.py with .*; give another --output, or remove the folder",
        ),
        (lost_label, r"labels/p0\.png is missing"),
        (lost_stamp, r"--output .* holds other files, such as classes\.json; name an empty folder"),
        (unsafe_member, r"train-000000\.tar holds other files than those to be packed; remove it"),
        (cut_shard, r"train-000000\.tar: a damaged shard .*; remove it and run again"),
        (broken_classes, r"classes\.json: not a class table"),
    ],
)
def test_what_cannot_be_packed(damage: Callable[[Path, Path], None], told: str, folder: Path, shards: Path) -> None:
    damage(folder, shards)
    with pytest.raises(UserError, match=told):
        pack(folder, shards)


def test_wrong_folders(folder: Path, shards: Path, tmp_path: Path) -> None:
    for root, told in ((shards, "is packed already"), (tmp_path / "none", "no such folder"), (tmp_path, "no <split>")):
        with pytest.raises(UserError, match=told):
            pack(root, tmp_path / "new")


# --- damage -----------------------------------------------------------------------------------------------------------
def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def rewritten(shards: Path, **changes: Any) -> None:
    """Change the first row of the index of "train"."""
    layout, path = Row.layout(2), shards / "train.index"
    data = path.read_bytes()
    row = Row(**{**vars(Row.unpack(layout, data[: layout.size])), **changes})
    path.write_bytes(row.pack(layout) + data[layout.size :])


@pytest.mark.parametrize(
    "damage, told",
    [
        (lambda root: flipped(root / "train-000000.tar", 700), r"train-000000\.tar: p0: wrong checksum"),
        (lambda root: flipped(root / "train.index", 9), r"train\.index: row 0 is damaged \(it lies outside"),
        (lambda root: flipped(root / "train.index", 69), r"wrong checksum, the shard or the index is damaged"),
        (lambda root: rewritten(root, name="/x"), r"train\.index: row 0 is damaged \(unsafe name '/x'\)"),
        (lambda root: rewritten(root, name=".."), r"train\.index: row 0 is damaged \(unsafe name"),
        (lambda root: rewritten(root, start=512), r"train-000000\.tar: p0: wrong checksum"),
        (lambda root: rewritten(root, shard=3), r"row 0 is damaged \(it lies outside of its shard\)"),
        (lambda root: (root / "train-000000.tar").write_bytes(b""), r"tar has 0 bytes, 10240 were packed: cut or repl"),
        (lambda root: (root / "train-000001.tar").unlink(), r"train-000001\.tar is missing; copy the packed folder"),
        (lambda root: (root / "train.index").unlink(), r"train\.index is missing; copy the packed folder again"),
        (lambda root: (root / "train.index").write_bytes(b"x"), r"train\.index has 1 bytes, 350 were packed"),
        (lambda root: (root / "packed.json").unlink(), r"packed\.json is missing: packing did not finish"),
        (lambda root: (root / "packed.json").write_text("[]"), r"packed\.json: not readable \(KeyError: 'format'\)"),
        (lambda root: (root / "packed.json").write_text('{"format": 2}'), r"format 2, this version reads 1"),
        (lambda root: (root / "classes.json").unlink(), r"classes\.json is missing"),
    ],
)
def test_damage_is_told(damage: Callable[[Path], object], told: str, shards: Path) -> None:
    damage(shards)
    with pytest.raises(DataError, match=told):
        dataset(dataroot=shards, label_nc=5)[0]


def test_a_split_or_classes_that_are_not_there(folder: Path, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"packed\.json: no split 'val'\. There are: test, train"):
        dataset(dataroot=shards, split="val")
    (folder / "classes.json").unlink()
    with pytest.raises(UserError, match=r"was packed without a classes\.json; give --label_nc N"):
        options(dataroot=pack(folder, tmp_path / "bare", "--splits", "train"))


def test_check_data_finds_every_damaged_sample(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_data([str(shards)]) == 0
    capsys.readouterr()
    for number in (0, 2):
        flipped(shards / f"train-{number:06d}.tar", 700)
    assert check_data([str(shards)]) == 2
    assert re.findall(r"PROBLEM .*tar: (p\d): wrong checksum", capsys.readouterr().out) == ["p0", "p4"]


def test_the_manifest_names_what_was_packed(shards: Path) -> None:
    manifest = json.loads((shards / "packed.json").read_text())
    assert manifest["splits"]["train"] == {"count": 5, "name_bytes": 2, "shards": [10240, 10240, 10240]}
