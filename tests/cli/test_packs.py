"""Packs go out and results come back: byte for byte, in every form, and only if they are what they should be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mask_sets import mask_set_hash
from PIL import Image

from data import DATASETS
from scripts import import_results, leaderboard, pack_benchmark
from testing.packs.forms import FORMS, Picture
from testing.packs.pack import MANIFEST, manifest_hash, read_pack
from util.errors import DataError, UserError
from util.images import read_binary, read_image, read_map, save_png, to_uint8

DATA = "--dataset_mode streets --crop_size 64 --streets_train_size 3 --streets_test_size 4 --num_workers 0".split()
MEASURE = ["--metrics", "l1,ssim,seam,miou", "--segmenter", "streets", "--num_workers", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packs")
    assert pack_benchmark.main([*DATA, "--output", str(path / "pack"), "--form", *FORMS]) == 0
    return path


@pytest.fixture
def here(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def take(results: str, *flags: str, name: str = "theirs") -> dict[str, Any]:
    assert import_results.main(["pack", results, "--name", name, *MEASURE, *flags]) == 0
    return json.loads(Path(f"checkpoints/{name}/results/test_free_form/result.json").read_text())


def results(change: Callable[[np.ndarray, np.ndarray], np.ndarray], ending: str = ".png", **save: Any) -> str:
    """Write what a method makes of each picture (H,W,3) and its mask (H,W,1)."""
    Path("made").mkdir()
    for file in sorted(Path("pack/real").iterdir()):
        picture = change(read_image(file), read_binary(f"pack/mask/{file.name}")[..., None])
        Image.fromarray(picture).save(f"made/{file.stem}{ending}", **save)
    return "made"


def filled(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask > 0, 255 - picture, picture)


def test_a_pack_holds_the_pictures_of_the_task(home: Path) -> None:
    pack = read_pack(home / "pack")
    pack.verify()
    opt, *_ = pack_benchmark.parse([*DATA, "--output", "x"])
    dataset = DATASETS.get("streets").from_options(opt, split="test", augment=False, task="free_form")
    samples = [dataset[i] for i in range(4)]
    assert pack.manifest["mask_set"] == mask_set_hash((s["name"], s["mask"].numpy()) for s in samples)
    assert list(pack.texts) == [s["name"] for s in samples]
    for sample in samples:
        item = pack.item(sample["name"])
        assert np.array_equal(item.image, to_uint8(sample["image"]))
        assert np.array_equal(item.mask, sample["mask"][0].numpy() > 0)
        assert np.array_equal(item.label, sample["label"].numpy()) and np.array_equal(item.inst, sample["inst"].numpy())
        counts = np.bincount(item.label[item.mask])
        assert item.text.split(", ")[0] == dataset.class_names[int(counts.argmax())]
    train = DATASETS.get("streets").from_options(opt, split="train", augment=False, task="none")
    labels = np.stack([train[i]["label"].numpy() for i in range(3)])
    pictures = np.stack([to_uint8(train[i]["image"]) for i in range(3)])
    assert pack.class_colours.keys() == set(np.unique(labels).tolist())
    assert pack.class_colours[2] == pytest.approx(pictures[labels == 2].mean(0), abs=1e-3)


def test_the_same_flags_give_the_same_pack(home: Path, tmp_path: Path) -> None:
    assert pack_benchmark.main([*DATA, "--output", str(tmp_path / "again")]) == 0
    first, again = read_pack(home / "pack"), read_pack(tmp_path / "again")
    assert again.id == first.id
    assert again.manifest["files"].items() <= first.manifest["files"].items()
    with pytest.raises(UserError, match="holds files already"):
        pack_benchmark.main([*DATA, "--output", str(tmp_path / "again")])


def test_a_pack_of_the_objects_of_some_classes(tmp_path: Path) -> None:
    """Fills in the table of a test with --object_classes take the same pictures."""
    asked = [*DATA, "--object_classes", "building", "--output", str(tmp_path / "houses")]
    assert pack_benchmark.main([*asked, "--task", "object_addition"]) == 0
    pack = read_pack(tmp_path / "houses")
    assert pack.manifest["data"]["object_classes"] == "building"
    for name in pack.texts:
        picture = pack.item(name)
        assert (picture.label[picture.mask] == 1).any()
    with pytest.raises(UserError, match="--object_classes building: --task class chooses no object"):
        pack_benchmark.main([*asked, "--task", "class"])


def mask_of(form: str, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return what a form says is to be generated."""
    if form == "lama":
        return read_binary(f"pack/lama/{name}_mask.png") == 1
    if form == "mat":
        return read_binary(f"pack/mat/masks/{name}.png") == 0
    if form == "diffusers":
        return read_binary(f"pack/diffusers/masks/{name}.png") == 1
    if form == "spmpgan":
        return read_binary(f"pack/spmpgan/predefined_mask/{name}.png") == 1
    if form == "brushnet":  # as BrushBench decodes its runs
        runs = json.loads(Path("pack/brushnet/mapping_file.json").read_text())[name]["inpainting_mask"]
        flat = np.zeros(shape[0] * shape[1], bool)
        for start, length in zip(runs[::2], runs[1::2], strict=True):
            flat[start - 1 : start - 1 + length] = True
        return flat.reshape(shape[:2])
    return None


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_pictures_and_masks(here: Path, form: str) -> None:
    folder = {"lama": "lama", "spmpgan": "spmpgan/test/images"}.get(form, f"{form}/images")
    ending = "jpg" if form in ("brushnet", "spmpgan") else "png"
    for name in read_pack(Path("pack")).texts:
        item = read_pack(Path("pack")).item(name)
        assert np.array_equal(read_image(f"pack/{folder}/{name}.{ending}"), item.image)
        mask = mask_of(form, name, item.image.shape)
        assert mask is None or np.array_equal(mask, item.mask)
        maps = {"spade": ("labels", "inst"), "spmpgan": ("test/labels", "test/inst_map")}.get(form, ())
        for kind, ids in zip(maps, (item.label, item.inst), strict=False):
            assert np.array_equal(read_map(f"pack/{form}/{kind}/{name}.png", kind), ids)


def test_the_truth_comes_back_byte_for_byte(here: Path) -> None:
    line = take("pack/real")
    assert line["metrics"]["l1_masked"] == 0 and line["metrics"]["ssim_masked"] == pytest.approx(1, abs=1e-12)
    assert line["protocol"]["pack"] == read_pack(Path("pack")).id
    folder = Path("checkpoints/theirs/results/test_free_form")
    for kind in ("real", "mask"):
        for file in Path("pack", kind).iterdir():
            assert (folder / kind / file.name).read_bytes() == file.read_bytes()
    for file in Path("pack/real").iterdir():
        assert (folder / "fake" / file.name).read_bytes() == file.read_bytes()
        ids = read_map(folder / "label" / file.name, "label map")
        assert np.array_equal(ids, read_map(f"pack/label/{file.name}", "label map"))
    assert len(Path("checkpoints/theirs/metrics.jsonl").read_text().splitlines()) == 1


def test_results_named_as_a_form_does(here: Path) -> None:
    made = results(filled)
    plain = take(made)
    for file in sorted(Path(made).iterdir()):
        file.rename(file.with_name(f"{file.stem}_mask.png"))
    assert take(made, "--form", "lama")["metrics"] == plain["metrics"]
    with pytest.raises(DataError, match=r"4 of 4 pictures are missing.*named as --form lama does"):
        take(made)


def test_a_stranger_joins_the_leaderboard_by_one_command(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(leaderboard, "DOCS", here / "docs")
    take(results(filled), "--leaderboard", "no training", name="Stranger")
    assert "Stranger: streets_64_free_form" in capsys.readouterr().out
    assert "| Stranger | " in (here / "docs" / "leaderboard.md").read_text()


def test_the_other_polarity_is_refused(here: Path) -> None:
    with pytest.raises(DataError, match="4 of 4 pictures changed more outside their masks than inside"):
        take(results(lambda picture, mask: filled(picture, 1 - mask)))
    with pytest.raises(DataError, match="changed more outside"):  # nor are the given pixels put back
        take("made", "--paste_known")
    assert not Path("checkpoints/theirs/metrics.jsonl").exists()


def test_changed_given_pixels_are_counted_and_put_back_if_asked_for(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = results(filled, ".jpg", quality=60)
    with pytest.raises(DataError, match=r"changed \d+ given pixels \([\d.]+ %\), in 4 of 4 pictures: save them as PNG"):
        take(made)
    line = take(made, "--paste_known")
    assert "note: put back" in capsys.readouterr().out
    put_back = line["protocol"]["pasted_known"]
    assert put_back["pictures"] == 4 and 0 < put_back["pixels"] < put_back["of"]
    for file in Path("pack/real").iterdir():
        fake, mask = read_image(f"checkpoints/theirs/results/test_free_form/fake/{file.name}"), f"pack/mask/{file.name}"
        given = read_binary(mask) == 0
        assert np.array_equal(fake[given], read_image(file)[given])
        assert not np.array_equal(fake, read_image(file))


@pytest.mark.parametrize("what", ["mask", "lama", "missing", "manifest"])
def test_an_altered_pack_is_refused(here: Path, what: str) -> None:
    made = results(filled)
    if what == "manifest":
        manifest = json.loads(Path("pack/manifest.json").read_text())
        Path("pack/manifest.json").write_text(json.dumps({**manifest, "ignore_label": 3}))
        told = "the manifest was changed"
    elif what == "missing":
        Path("pack/label/test_00000.png").unlink()
        told = r"label/test_00000\.png is missing"
    else:
        file = next(Path("pack", what).glob("*0.png"))
        save_png(255 - np.array(Image.open(file)), file)
        told = f"{what}/{file.name} was changed"
    with pytest.raises(DataError, match=told):
        take(made)


def test_a_pack_removes_and_reads_nothing_outside_of_its_folders(here: Path) -> None:
    precious = here / "real" / "precious.png"
    precious.parent.mkdir()
    precious.touch()
    manifest = json.loads(Path("pack", MANIFEST).read_text())
    for changes, told in (
        ({"task": "/../../../.."}, r"unsafe name '/\.\./\.\./"),
        ({"data": {**manifest["data"], "split": str(here)}}, "unsafe name '/"),
        ({"pictures": [{**manifest["pictures"][0], "name": "../../real/precious"}]}, r"unsafe name '\.\./\.\./real"),
        ({"files": {"../real/precious.png": ""}}, r"unsafe name '\.\./real/precious.png'"),
        ({"pictures": [{"name": 5}]}, "not a manifest"),
    ):
        crafted = {**manifest, **changes}  # whose hash anybody can make
        Path("pack", MANIFEST).write_text(json.dumps({**crafted, "pack": manifest_hash(crafted)}))
        with pytest.raises(DataError, match=rf"manifest\.json: {told}"):
            take("pack/real")
        assert precious.exists()
    with pytest.raises(UserError, match=r"--split \.\./train: "):
        pack_benchmark.main([*DATA, "--split", "../train", "--output", "x"])


def test_missing_and_resized_pictures_are_refused(here: Path) -> None:
    made = results(filled)
    Path(made, "test_00002.png").rename("kept.png")
    with pytest.raises(DataError, match="1 of 4 pictures are missing: test_00002"):
        take(made)
    Image.open("kept.png").resize((128, 128)).save(f"{made}/test_00002.png")
    with pytest.raises(DataError, match=r"test_00002\.png: 128x128 pixels, the pack's picture has 64x64"):
        take(made)


def test_what_cannot_be_told_apart_is_refused(here: Path) -> None:
    Path("checkpoints/mine").mkdir(parents=True)
    Path("checkpoints/mine/opt.yaml").write_text("name: mine\n")
    with pytest.raises(UserError, match="is a trained run"):
        take("pack/real", name="mine")
    with pytest.raises(UserError, match=r"no pack: it has no manifest\.json"):
        import_results.main(["pack/real", "pack/real", "--name", "x"])
    empty = np.zeros((2, 2), np.uint8)
    with pytest.raises(DataError, match="'mask' in their names"):
        FORMS["lama"].add(Path("x"), Picture("masked", "", empty, empty > 0, empty, empty), None)
