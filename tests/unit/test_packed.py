"""Packed data sets: the same samples as from the folder, from disk and by HTTP."""

from __future__ import annotations

import pickle
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_folders import dataset, make_folder, pack
from PIL import Image
from trainer_toys import assert_same

import train as train_command
from data import packed
from data.base_dataset import BaseDataset
from data.packed import PackedRecords
from data.prepare.crops import open_picture
from util.errors import DataError

TINY = ["--model", "spmpgan", "--dataset_mode", "custom", "--crop_size", "64", "--ngf", "4", "--ndf", "4",
        "--spm_hidden", "8", "--lambda_vgg", "0", "--batch_size", "2", "--save_every", "1",
        "--image_every", "0", "--no-tensorboard", "--device", "cpu"]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "folder", count=5)


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    return pack(folder, tmp_path / "packed")


def assert_same_samples(one: BaseDataset, other: BaseDataset) -> None:
    assert list(one.names) == list(other.names)
    for epoch in (0, 1):
        for index in range(len(one)):
            assert_same(one[epoch, index], other[epoch, index])


# --- the same samples -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "setting", [{}, {"augment": True, "task": "train"}, {"cache": "ram"}, {"task": "object_removal"}]
)
def test_samples_are_those_of_the_folder(setting: dict[str, Any], folder: Path, shards: Path) -> None:
    for split in ("train", "test"):
        ours = [dataset(dataroot=root, split=split, **setting) for root in (folder, shards)]
        assert_same_samples(*ours)
        assert (ours[0].class_names, ours[0].things) == (ours[1].class_names, ours[1].things)


@pytest.mark.parametrize("mode", ["ade20k_room", "camvid", "cityscapes"])
def test_every_mode_of_folders_keeps_its_rules(mode: str, tmp_path: Path) -> None:
    root = make_folder(tmp_path / "folder", count=2, table=None)
    if mode == "ade20k_room":
        for path in root.glob("*/inst_map/*.png"):
            ids = np.array(Image.open(path))
            Image.fromarray(np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)).save(path)
    shards = pack(root, tmp_path / "packed")
    assert_same_samples(*(dataset(mode, dataroot=place, task="instance") for place in (root, shards)))


def test_names_endings_and_missing_instance_maps(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "folder", splits=("train",), count=4)
    shutil.rmtree(root / "train" / "inst_map")
    for old, new in (("p1", "a.b%2E"), ("p2", "Straße 1"), ("p3", "x" * 200)):
        for kind in ("images", "labels"):
            (root / "train" / kind / f"{old}.png").rename(root / "train" / kind / f"{new}.png")
    Image.open(root / "train" / "images" / "p0.png").save(root / "train" / "images" / "p0.JPG", quality=92)
    (root / "train" / "images" / "p0.png").unlink()
    shards = pack(root, tmp_path / "packed")
    assert_same_samples(*(dataset(dataroot=place) for place in (root, shards)))
    assert dataset(dataroot=shards).maps(0).inst is None


def test_shards_are_in_the_layout_of_webdataset(folder: Path, shards: Path) -> None:
    """Members of a sample follow each other, share what stands before the first dot, and are the folder's files."""
    found = []
    for path in sorted(shards.glob("train-*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                key, part = info.name.split(".", 1)
                kind = {"image.png": "images", "label.png": "labels", "inst.png": "inst_map"}[part]
                member = tar.extractfile(info)
                assert member is not None
                assert member.read() == (folder / "train" / kind / f"{key}.png").read_bytes()
                found.append((key, kind))
    assert found == [(f"p{i}", kind) for i in range(5) for kind in ("images", "labels", "inst_map")]


def test_no_work_grows_with_the_number_of_samples(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening reads no row, a sample one page of rows and its own bytes."""
    asked: list[tuple[str, int]] = []
    read = packed.read_part

    def counted(dataroot: str, file: str, start: int = 0, size: int = -1) -> bytes:
        asked.append((file, size))
        return read(dataroot, file, start, size)

    monkeypatch.setattr(packed, "read_part", counted)
    monkeypatch.setattr(packed, "_PAGE", 150)  # two rows of 70 bytes
    records = PackedRecords(str(shards), "train")
    assert [file for file, _ in asked] == ["packed.json"]
    del asked[:]
    assert records[3].name == records.names[3] == records.names[2][:-1] + "3" == "p3"
    assert asked == [("train.index", 140), ("train-000001.tar", records.row(3).size)]
    with pytest.raises(IndexError):
        records[5]


def test_records_reach_workers_that_are_not_forked(shards: Path) -> None:
    records = pickle.loads(pickle.dumps(PackedRecords(str(shards), "test")))
    assert [record.name for record in records] == ["p0", "p1", "p2", "p3", "p4"]


def test_a_run_goes_on_bit_for_bit_from_packed_data(folder: Path, shards: Path, tmp_path: Path) -> None:
    """Two steps from the folder and two from its shards, with workers, are four from the folder."""
    where = ["--checkpoints_dir", str(tmp_path), "--num_workers", "0"]
    for name, root, steps in (("folder", folder, "4"), ("packed", shards, "2"), ("moved", folder, "2")):
        line = [*TINY, *where, "--name", name, "--dataroot", str(root), "--max_steps", steps]
        assert train_command.main(line) == 0
    for name in ("packed", "moved"):
        more = ["--continue_train", "--dataroot", str(shards), "--num_workers", "1", "--max_steps", "4"]
        assert train_command.main([*where[:2], "--name", name, *more]) == 0
        states = [torch.load(tmp_path / run / "latest.pt", weights_only=True) for run in ("folder", name)]
        for key in ("step", "nimg", "model", "optimizers", "ema"):
            assert_same(states[0][key], states[1][key], key)


def test_objects_are_cut_from_the_packed_pictures(shards: Path) -> None:
    scenes = dataset(dataroot=shards)
    image, source = open_picture(scenes, 0, scenes.maps(0))
    assert np.array_equal(image, scenes.maps(0).image)
    assert source == "the packed pictures (77x64)"


# --- addresses --------------------------------------------------------------------------------------------------------
class Ranges(SimpleHTTPRequestHandler):
    """Serves files in ranges, as http.server alone does not; `faults` are answered first, one to a request."""

    faults: list[int] = []
    ranges = True

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if self.faults:
            self.send_error(self.faults.pop())
        elif not (wanted and self.ranges and path.is_file()):
            super().do_GET()
        elif int(wanted[1]) >= path.stat().st_size:
            self.send_error(416)
        else:
            part = path.read_bytes()[int(wanted[1]) : int(wanted[2]) + 1]
            self.send_response(206)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)

    def log_message(self, *told: Any) -> None:
        pass


@pytest.fixture
def address(shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the shards; yields their address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(packed, "_WAITS", (0, 0))
    monkeypatch.setattr(Ranges, "faults", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=shards)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_samples_by_address_are_those_of_the_folder(folder: Path, address: str) -> None:
    by_address = dataset(dataroot=address + "/")
    assert_same_samples(by_address, dataset(dataroot=folder))
    assert by_address.class_names == ["c0", "c1", "c2", "c3", "c4"]


def test_a_failure_that_passes_is_overcome(
    folder: Path, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_address = dataset(dataroot=address)
    Ranges.faults += [429, 503]
    assert_same(by_address[1], dataset(dataroot=folder)[1])
    assert capsys.readouterr().out.count("asking again in 0 s") == 2
    Ranges.faults += [500, 500, 500]
    with pytest.raises(DataError, match=r"train-000000\.tar cannot be read \(HTTP Error 500.*that the server runs"):
        by_address[1]


def test_addresses_without_data_or_ranges(shards: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"none/packed\.json cannot be read \(HTTP Error 404.*check the address"):
        dataset(dataroot=f"{address}/none")
    by_address = dataset(dataroot=address)
    path = shards / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"train-000000\.tar: p0: the shard is cut, \d+ bytes of the sample miss"):
        by_address[0]
    with pytest.raises(DataError, match=r"train-000000\.tar: p1: the shard is cut"):
        by_address[1]
    monkeypatch.setattr(Ranges, "ranges", False)
    with pytest.raises(DataError, match=r"sends whole files only \(no HTTP ranges\); copy the folder"):
        by_address[2]
