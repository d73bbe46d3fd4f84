"""Archives and folders made to lead elsewhere, to fill memory, or to have no end."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.masks import mask_files
from data.object_crops import find_crops
from data.prepare.archives import Member, content, list_files
from data.records import find_records
from data.single_image import find_targets
from metrics.folders import list_pictures, other_entries
from scripts import prepare_folder
from util.errors import DataError, UserError
from util.files import append_line, write_text
from util.images import save_png
from util.listing import files_below
from util.pictures import find_pictures

ROOT = Path(__file__).resolve().parents[2]
UNSAFE = ("../x.png", "a/../../x.png", "/etc/x.png", "a\\..\\x.png", "C:/x.png", "..", "a/b/../../../x.png")


def tar_of(path: Path, *members: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.mark.fault("20", "archive members that lead out: ../, absolute, drives", sees="the archive and the path")
def test_unsafe_paths(ledger, tmp_path: Path) -> None:
    for attempt in ledger.attempts(2 * len(UNSAFE), quick=2 * len(UNSAFE)):
        with attempt as number:
            name, path = UNSAFE[number // 2], tmp_path / f"{number}.archive"
            if number % 2:
                tar_of(path, member("good.png"), member(name))
            else:
                with zipfile.ZipFile(path, "w") as archive:
                    archive.writestr("good.png", b"")
                    archive.writestr(name, b"")
            with pytest.raises(DataError, match="unsafe member path"):
                list_files(path)


@pytest.mark.fault("20", "links, devices and pipes in archives", sees="the archive and the member")
def test_links_in_archives(ledger, tmp_path: Path) -> None:
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
    for attempt in ledger.attempts(5, quick=5):
        with attempt as number:
            path = tmp_path / f"{number}.archive"
            if number < 4:
                tar_of(path, member("good.png"), member("bad.png", kinds[number], "/etc/passwd"))
            else:
                info = zipfile.ZipInfo("bad.png")
                info.external_attr = 0o120777 << 16
                with zipfile.ZipFile(path, "w") as archive:
                    archive.writestr(info, "/etc/passwd")
            with pytest.raises(DataError, match=r"'bad.png' is a link or device"):
                list_files(path)


def zip_saying(path: Path, size: int) -> Path:
    """A zip whose one member of 1000 bytes is said to have another size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(1000))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(data)
    return path


@pytest.mark.fault(
    "16", "archives that unpack to more than pictures have", sees="the archive, the member and the bound"
)
def test_archive_bombs(ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for attempt in ledger.attempts(1):
        with attempt:
            with pytest.raises(DataError, match=r"'a.png' unpacks to 4000 MiB; at most 1024 are read"):
                list_files(zip_saying(tmp_path / "a.zip", 4000 << 20))
            with pytest.raises(DataError, match="is damaged"):
                content(list_files(zip_saying(tmp_path / "b.zip", 10))["a.png"])
            sparse = member("a.png", size=1 << 31)
            path = tmp_path / "c.tar"
            path.write_bytes(sparse.tobuf() + bytes(1024))
            os.truncate(path, (1 << 31) + 2048)
            with pytest.raises(DataError, match="unpacks to 2048 MiB"):
                list_files(path)
            monkeypatch.setattr("data.prepare.archives.MOST_BYTES", 1 << 16)
            for mode in ("gz", "bz2", "xz"):
                path = tar_of(tmp_path / f"d.tar.{mode}", member("a.png", size=20 << 20), mode=f"w:{mode}")
                with pytest.raises(DataError, match="unpacks to over 100 times its size"):
                    list_files(path)


@pytest.mark.fault("20", "archives cut or overwritten at random bytes", sees="it is read, or the archive is named")
def test_damaged_archives(ledger, tmp_path: Path) -> None:
    rng = random.Random(0)
    files = {f"set/{k}.png": random.Random(k).randbytes(200) for k in range(4)}
    wholes = []
    for kind in ("zip", "w", "w:gz", "w:bz2", "w:xz"):
        path = tmp_path / "whole"
        if kind == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, data in files.items():
                    archive.writestr(name, data)
        else:
            with tarfile.open(path, kind) as archive:
                for name, data in files.items():
                    archive.addfile(member(name, size=len(data)), io.BytesIO(data))
        wholes.append(path.read_bytes())
    for attempt in ledger.attempts(1000, quick=50):
        with attempt as number:
            data = bytearray(wholes[number % 5])
            for _ in range(rng.randrange(1, 5)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            path = tmp_path / f"{number % 7}.archive"
            path.write_bytes(data[: rng.randrange(len(data))] if number % 3 == 0 else data)
            try:
                for source in list_files(path).values():
                    assert isinstance(source, Member)
                    content(source)
            except DataError as error:
                assert str(path) in str(error)


def linked_folder(root: Path, depth: int = 6) -> Path:
    """Folders in each of which three links lead back to the root."""
    folder = root
    for k in range(depth):
        save_png(np.zeros((8, 8), np.uint8), folder / f"{k}.png")
        for back in range(3):
            (folder / f"back{back}").symlink_to(root)
        folder = folder / "further"
        folder.mkdir()
    return root


@pytest.mark.fault(
    "20", "links in loops below a folder to prepare", sees="each link that is left out; every file is read once"
)
def test_loops(ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "set"
    root.mkdir()
    linked_folder(root)
    other = tmp_path / "another disk"
    save_png(np.zeros((8, 8), np.uint8), other / "far.png")
    (root / "elsewhere").symlink_to(other)
    for attempt in ledger.attempts(1):
        with attempt:
            for listing in (lambda: list(files_below(root)), lambda: list_files(root)):
                begun = time.monotonic()
                found = listing()
                assert time.monotonic() - begun < 5
                assert len(found) == 7
                assert capsys.readouterr().out.count("is a link to a folder that is read already") == 18


@pytest.mark.fault("20", "file names that are no UTF-8", sees="the folder and the name with its bytes written out")
def test_names(ledger, tmp_path: Path) -> None:
    def lists(kind: str) -> Callable[[], object]:
        return lambda: find_records(tmp_path / kind)

    name = os.fsdecode(b"caf\xe9.png")
    readers = {
        "--real": lambda folder: list_pictures(str(folder), "--real"),
        "--content": lambda folder: find_pictures(str(folder), "--content"),
        "--mask_dir": lambda folder: mask_files(folder, 1),
        "--source": list_files,
        "prepare_folder": lambda folder: prepare_folder.by_name(folder, "", (".png",), "images"),
    }
    for attempt in ledger.attempts(len(readers) + 1, quick=len(readers) + 1):
        with attempt as number:
            folder = tmp_path / str(number)
            if number < len(readers):
                save_png(np.zeros((8, 8), np.uint8), folder / "a.png")
                os.rename(folder / "a.png", folder / name)
                read = lambda folder=folder, number=number: list(readers.values())[number](folder)  # noqa: E731
            else:
                for kind in ("images", "labels"):
                    save_png(np.zeros((8, 8), np.uint8), folder / kind / "a.png")
                    os.rename(folder / kind / "a.png", folder / kind / name)
                read = lists(str(number))
            with pytest.raises(UserError, match=r"the name 'caf\\xe9.png' in it is not UTF-8; rename it"):
                read()


@pytest.mark.parametrize("kind", ["scenes", "objects", "masks", "analogy", "metrics", "content", "source", "prepare"])
def test_hidden_files_are_passed_over(tmp_path: Path, kind: str) -> None:
    """macOS leaves a `._x.png` beside each x.png that it copies to a foreign disk."""
    inner = {"scenes": ("images", "labels"), "objects": ("car/test/images", "car/test/inst_mask")}.get(kind, ("",))
    for part in inner:
        save_png(np.zeros((8, 8), np.uint8), tmp_path / part / "a.png")
        for hidden in ("._a.png", ".b.png"):
            (tmp_path / part / hidden).write_bytes(b"\0\5\x16\7")
    listed: dict[str, Callable[[], list[Path | str]]] = {
        "scenes": lambda: [record.name for record in find_records(tmp_path)[0]],
        "objects": lambda: [crop.name for crop, _ in find_crops(tmp_path, ["car"], "test", every_class=True)],
        "masks": lambda: mask_files(tmp_path, 1),
        "analogy": lambda: find_targets(tmp_path),
        "metrics": lambda: [*list_pictures(str(tmp_path), "--real")[0], *other_entries(str(tmp_path))],
        "content": lambda: [*find_pictures(str(tmp_path), "--content")],
        "source": lambda: [*list_files(tmp_path)],
        "prepare": lambda: [*prepare_folder.by_name(tmp_path, "", (".png",), "images")],
    }
    assert [Path(entry).stem.removeprefix("car_") for entry in listed[kind]()] == ["a"]


def test_paths_that_are_no_utf8_can_be_printed_and_written(tmp_path: Path) -> None:
    """A folder that is named on the command line may have any name; only what lies in data sets is refused."""
    name = os.fsdecode(b"caf\xe9 \xe2\x86\x91")
    write_text(tmp_path / "report.html", name)
    append_line(tmp_path / "metrics.jsonl", name)
    code = f"from util.errors import run_main; run_main(lambda: print({name!r}))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "caf\\udce9 \\u2191\n")
