"""scripts/prepare_cityscapes.py: official archives in, what `--dataset_mode cityscapes` reads out; faults named."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_folders import dataset
from mask_sets import mask_set_hash
from PIL import Image
from prepare_archives import CITY, city_maps, cityscapes, encode, unpack, write_zip

from data.masks import MASK_TYPES
from data.prepare import writing as prepare
from data.prepare.archives import list_files
from data.transforms import nearest
from scripts import check_data, prepare_cityscapes
from util.errors import DataError, UserError

ROOT = Path(__file__).resolve().parents[2]
LEFT, FINE = "leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"


def make_archives(folder, left=None, fine=None, **settings):
    made = cityscapes(**settings)
    folder.mkdir(exist_ok=True)
    return write_zip(folder / LEFT, left or made[0]), write_zip(folder / FINE, fine or made[1])


def run(sources, output, *flags):
    arguments = ["--source", *map(str, sources), "--output", str(output), "--num_workers", "0", *flags]
    return prepare_cityscapes.main(arguments)


def stamps(output):
    return {p: p.stat().st_mtime_ns for p in output.rglob("*.*g")}


def test_archives_become_what_the_data_set_reads(tmp_path, capsys):
    output = tmp_path / "out"
    assert run(make_archives(tmp_path), output) == 0
    said = capsys.readouterr().out
    assert "train 2, test 1" in said
    assert "test has 1 pictures, the published set 500" in said
    assert check_data.main([str(output), "--dataset_mode", "cityscapes", "--crop_size", "256"]) == 0
    data = dataset("cityscapes", dataroot=output, crop_size=256)
    assert data.names == CITY["train"]
    assert data.things == set(range(24, 34)) and data.class_names[26] == "car" and data.label_nc == 34
    maps = data.maps(1)
    _, label, inst = city_maps(1)
    assert maps.image.shape == (256, 512, 3)
    assert np.array_equal(maps.label, nearest(label, 256, 512))
    assert np.array_equal(maps.inst, nearest(inst, 256, 512))
    assert np.unique(maps.inst).tolist() == [7, 23, 24, 26001, 26015], "16-bit ids survive"
    sample = dataset("cityscapes", dataroot=output, split="test", crop_size=256, task="instance")[0]
    assert sample["name"] == "lindau_000000_000019"
    assert dict(zip(sample["inst_id"].tolist(), sample["inst_class"].tolist(), strict=True))[26014] == 26
    assert not list(output.rglob(".*"))


def test_unpacked_folders_give_the_same_bytes(tmp_path):
    run(make_archives(tmp_path), tmp_path / "a")
    left, fine = (unpack(m, tmp_path / "raw") for m in cityscapes())
    assert left == fine
    run([tmp_path / "raw" / "gtFine", tmp_path / "raw" / "leftImg8bit"], tmp_path / "b")
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*")]
    assert len(files) == 9 + 2
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_hires_keeps_the_frames_at_full_size(tmp_path):
    names = {"train": CITY["train"][:1]}
    sources = make_archives(tmp_path, scale=8, split_names=names)
    run(sources, tmp_path / "out", "--hires")
    path = tmp_path / "out" / "train" / "images2048" / f"{names['train'][0]}.jpg"
    with Image.open(path) as picture:
        assert (picture.size, picture.format) == ((2048, 1024), "JPEG")
        assert np.abs(np.asarray(picture)[64::128, 64::128].astype(int) - city_maps(0)[0][8::16, 8::16]).mean() < 8
    with pytest.raises(DataError, match=r"256x128; --hires needs .* 2048x1024"):
        run(make_archives(tmp_path / "small"), tmp_path / "other", "--hires")


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch, capsys):
    sources, output = make_archives(tmp_path), tmp_path / "out"
    save, calls = Image.Image.save, []

    def dies_in_the_fifth_file(self, to, *args, **kwargs):
        calls.append(to)
        if len(calls) == 5:
            to.write(b"half")
            raise KeyboardInterrupt
        save(self, to, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", dies_in_the_fifth_file)
    with pytest.raises(KeyboardInterrupt):
        run(sources, output)
    before = stamps(output)
    assert len(before) == 4 and not list(output.rglob(".*"))
    monkeypatch.setattr(Image.Image, "save", save)
    assert run(sources, output) == 0
    assert "1 of 3 are finished, going on" in capsys.readouterr().out
    first = {p: t for p, t in before.items() if "aachen" in p.name}
    assert len(first) == 3 and all(stamps(output)[p] == t for p, t in first.items())
    everything = stamps(output)
    run(sources, output)
    assert stamps(output) == everything
    assert len(dataset("cityscapes", dataroot=output, crop_size=256)) == 2


def test_processes_give_the_same_files(tmp_path, monkeypatch):
    sources = make_archives(tmp_path)
    run(sources, tmp_path / "a")
    monkeypatch.setattr(prepare, "FEW_JOBS", 0)
    run(sources, tmp_path / "b", "--num_workers", "2")
    for path in (tmp_path / "a").rglob("*.*g"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_a_fault_in_a_process_is_told(tmp_path, monkeypatch):
    left, fine = cityscapes()
    fine["gtFine/train/bochum/bochum_000000_000600_gtFine_labelIds.png"] = b"no picture"
    monkeypatch.setattr(prepare, "FEW_JOBS", 0)
    with pytest.raises(DataError, match=r"gtFine_trainvaltest\.zip: .*bochum.*labelIds\.png: .*cannot be decoded"):
        run(make_archives(tmp_path, left, fine), tmp_path / "out", "--num_workers", "2")


@pytest.mark.parametrize(
    "which, member, archive",
    [
        (1, "gtFine/train/bochum/bochum_000000_000600_gtFine_labelIds.png", FINE),
        (1, "gtFine/val/lindau/lindau_000000_000019_gtFine_instanceIds.png", FINE),
        (0, "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png", LEFT),
    ],
)
def test_missing_members_are_named_with_their_archive(tmp_path, which, member, archive):
    members = cityscapes()
    del members[which][member]
    with pytest.raises(DataError, match=rf"{archive} lacks {member}\. The archive is partial"):
        run(make_archives(tmp_path, *members), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_archives_are_named(tmp_path):
    left, fine = make_archives(tmp_path)
    with pytest.raises(UserError, match=r"gtFine_trainvaltest\.zip is missing.*leftImg8bit_trainvaltest\.zip holds"):
        run([left], tmp_path / "out")
    with pytest.raises(UserError, match=r"leftImg8bit_trainvaltest\.zip is missing.*holds README, gtFine/"):
        run([fine, fine], tmp_path / "out")
    with pytest.raises(UserError, match=r"nothing\.zip: no such archive or folder"):
        run([left, tmp_path / "nothing.zip"], tmp_path / "out")


def test_a_download_cut_short_is_told(tmp_path):
    left, fine = make_archives(tmp_path)
    fine.write_bytes(fine.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"gtFine_trainvaltest\.zip: not a whole zip or tar archive; a partial"):
        run([left, fine], tmp_path / "out")


def test_a_damaged_member_is_told_and_the_rest_stays(tmp_path):
    left, fine = make_archives(tmp_path)
    data = bytearray(fine.read_bytes())
    place = data.find(b"IDAT", data.find(b"bochum_000000_000600_gtFine_labelIds.png"))
    data[place + 8] ^= 0xFF
    fine.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"gtFine_trainvaltest\.zip: .*bochum.*Ids\.png: the member is damaged .*CRC"):
        run([left, fine], tmp_path / "out")
    assert len(stamps(tmp_path / "out")) == 3
    run(make_archives(tmp_path / "again"), tmp_path / "out")
    assert len(stamps(tmp_path / "out")) == 9


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "gtFine/../../evil", "gtFine\\evil.png", "C:/x"])
def test_unsafe_paths_are_refused(tmp_path, name):
    left, fine = cityscapes()
    with pytest.raises(DataError, match="unsafe member path"):
        run(make_archives(tmp_path, left, {**fine, name: b"evil"}), tmp_path / "out")
    assert list_files(write_zip(tmp_path / "fine.zip", {"a..b/c...png": b""})), "dots inside a name are harmless"


@pytest.mark.parametrize(
    "ids, size, fault",
    [(255, (128, 256), r"id 255; labelIds 0 to 33"), (7, (64, 256), r"label map is 256x64, its picture .* is 256x128")],
)
def test_foreign_labels_are_refused(tmp_path, ids, size, fault):
    left, fine = cityscapes()
    fine["gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png"] = encode(np.full(size, ids, np.uint8))
    with pytest.raises(DataError, match=fault):
        run(make_archives(tmp_path, left, fine), tmp_path / "out")


def test_8_bit_instance_ids_are_refused(tmp_path):
    left, fine = cityscapes()
    fine["gtFine/val/lindau/lindau_000000_000019_gtFine_instanceIds.png"] = encode(city_maps(0)[1])
    with pytest.raises(DataError, match="8 bits, ids need 16"):
        run(make_archives(tmp_path, left, fine), tmp_path / "out")


def test_written_masks_equal_the_drawn_ones(tmp_path):
    output = tmp_path / "out"
    run(make_archives(tmp_path), output, "--write_masks", "--mask_seed", "5", "--mask_size", "128")
    assert sorted(p.name for p in (output / "test").glob("masks_*")) == sorted(f"masks_{task}" for task in MASK_TYPES)
    assert not list((output / "train").glob("masks_*"))
    for task in MASK_TYPES:
        common = {"dataroot": output, "split": "test", "crop_size": 128, "seed": 5}
        drawn = dataset("cityscapes", task=task, **common)
        read = dataset("cityscapes", task="folder", mask_dir=output / "test" / f"masks_{task}", **common)
        hashes = {mask_set_hash((s["name"], s["mask"].numpy()) for s in map(d.__getitem__, [0])) for d in (drawn, read)}
        assert len(hashes) == 1 and drawn[0]["mask"].any()
    with pytest.raises(UserError, match="free_from"):
        run(make_archives(tmp_path), output, "--write_masks", "free_from")


def test_another_data_set_in_the_folder_is_not_mixed_in(tmp_path):
    sources, output = make_archives(tmp_path), tmp_path / "out"
    run(sources, output)
    (output / "prepared.json").write_text(json.dumps({"script": "prepare_folder.py", "settings": {"png": True}}))
    with pytest.raises(UserError, match=r"was made by prepare_folder\.py with .*give another --output"):
        run(sources, output)
    (output / "prepared.json").unlink()
    Image.new("RGB", (512, 256)).save(output / "train" / "images" / "stray.jpg")
    with pytest.raises(DataError, match=r"files that this run did not make: .*stray"):
        run(sources, output)


def test_an_output_that_cannot_be_written(tmp_path):
    sources = make_archives(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(NotADirectoryError):  # which `run_main` tells in a sentence
        run(sources, tmp_path / "file" / "out")


def test_it_runs_from_any_folder(tmp_path):
    script = ROOT / "scripts" / "prepare_cityscapes.py"
    result = subprocess.run(
        [sys.executable, str(script), "--source", "none.zip"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (2, "error: --source none.zip: no such archive or folder\n")
