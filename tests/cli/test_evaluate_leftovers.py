"""scripts/evaluate.py passes over nothing in silence; two sets have a report; workers and batches change no value."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts.evaluate import main
from util.errors import DataError, UserError


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Seven pairs of two sizes, with masks, labels and instances."""
    rng = np.random.default_rng(0)
    for i in range(7):
        shape = (48, 64) if i % 2 else (56, 40)
        real, fake = rng.integers(0, 256, (2, *shape, 3), dtype=np.uint8)
        mask = np.zeros(shape, np.uint8)
        mask[: 6 * (i + 1), 4:30] = 255
        save(tmp_path / "real" / f"{i}.png", real)
        save(tmp_path / "fake" / f"{i}.png", np.where(mask[..., None] > 0, fake, real))
        save(tmp_path / "masks" / f"{i}.png", mask)
        save(tmp_path / "labels" / f"{i}.png", rng.integers(0, 3, shape, dtype=np.uint8))
        save(tmp_path / "instances" / f"{i}.png", np.full(shape, 26000, np.uint16))
    return tmp_path


def run(folder: Path, *more: str, metrics: str = "l1_whole") -> dict[str, Any]:
    args = ["--real", str(folder / "real"), "--fake", str(folder / "fake"), "--metrics", metrics, "--device", "cpu"]
    out = folder / "out.json"
    assert main([*args, "--num_workers", "0", "--json", str(out), *more]) == 0
    return json.loads(out.read_text())


def test_what_is_no_picture_is_counted_and_named(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "real" / "Thumbs.db").write_bytes(b"x")
    np.save(folders / "fake" / "7.npy", np.zeros(3))
    save(folders / "fake" / "inner" / "0.png", np.zeros((8, 8, 3), np.uint8))
    (folders / "fake" / "like.png").mkdir()
    for which in ("real", "fake"):
        (folders / which / ".DS_Store").write_bytes(b"x")
        (folders / which / "._0.png").write_bytes(b"x")
    line = run(folders)
    out = capsys.readouterr().out
    told = [
        f"--real {folders / 'real'}: 1 entry is not a picture and was not read: Thumbs.db",
        f"--fake {folders / 'fake'}: 3 entries are not pictures and were not read: 7.npy, inner/, like.png/",
    ]
    assert all(f"note: {text}\n" in out for text in told)
    assert line["protocol"]["notes"] == told
    assert line["num_images"] == 7
    np.save(folders / "real" / "8.npy", np.zeros(3))
    save(folders / "fake" / "8.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"8: no file of this name in --real\n(.*\n)*.*not read: 8.npy, Thumbs.db"):
        run(folders)


def test_maps_without_a_picture_are_counted_and_named(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(20, 27):
        save(folders / "masks" / f"{i}.png", np.zeros((8, 8), np.uint8))
    save(folders / "labels" / "other.png", np.zeros((8, 8), np.uint8))
    maps = [f"--{kind}={folders / kind}" for kind in ("masks", "labels")]
    line = run(folders, *maps, metrics="l1")
    out = capsys.readouterr().out
    assert (
        "7 files have no picture of their name and were not used: 20.png, 21.png, 22.png, 23.png, 24.png, and 2" in out
    )
    assert "1 file has no picture of its name and was not used: other.png" in out
    assert line["num_images"] == 7


def test_folders_and_flags_that_serve_nothing_are_said(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps = [f"--{kind}={folders / kind}" for kind in ("labels", "instances")]
    flags = ["--segmenter", "streets", "--label_nc", "9", "--ignore_label", "255"]
    run(folders, *maps, *flags, "--masks", str(folders / "masks"), metrics="l1")
    out = capsys.readouterr().out
    for flag in ("labels", "segmenter streets", "label_nc 9", "ignore_label 255"):
        assert re.search(
            rf"note: --{flag}.*: no use was made of it, as none of miou, acc, class_acc.* is computed", out
        )
    assert re.search(r"note: --instances .*: no use .* none of style is computed", out)
    run(folders, *maps, "--masks", str(folders / "masks"), metrics="style")
    assert "--instances" not in capsys.readouterr().out
    with pytest.raises(UserError, match="--metrics all,fid: 'all' stands alone"):
        run(folders, metrics="all,fid")


def test_two_sets_have_a_report_with_pictures_of_each(folders: Path) -> None:
    for file in (folders / "fake").iterdir():
        file.rename(file.with_name(f"made_{file.name}"))
    (folders / "fake" / "made_3.png").write_bytes(b"broken")
    (folders / "real" / "notes.txt").write_text("x")
    line = run(folders, "--skip_bad", "--report", str(folders / "out"), metrics="kid")
    assert line["details"]["kid"]["num_generated"] == 6
    page = (folders / "out" / "report.html").read_text()
    for name in (*(f"generated: made_{i}" for i in (0, 1, 2, 4, 5, 6)), *(f"real: {i}" for i in range(7))):
        assert f'aria-label="{name}"' in page
    assert "made_3<" not in page
    assert page.count("data:image/jpeg;base64") == 13
    assert "1 entry is not a picture and was not read: notes.txt" in page


def test_workers_and_batches_change_no_value(folders: Path) -> None:
    """Every metric that needs no further network, FID's own network included."""
    maps = [f"--{kind}={folders / kind}" for kind in ("masks", "labels", "instances")]
    metrics = "fid,kid,prdc,l1,psnr,ssim,l1_whole,psnr_whole,ssim_whole,seam,style,miou,acc,class_acc"
    settings = [("1", "0", "none"), ("3", "2", str(folders / "cache"))]
    lines = [
        run(folders, *maps, "--segmenter", "streets", "--label_nc", "9", "--intervals", "--batch_size", size,
            "--num_workers", workers, "--cache_dir", cache, metrics=metrics)
        for size, workers, cache in settings
    ]  # fmt: skip
    assert lines[0]["protocol"]["label_nc"] == lines[0]["details"]["miou_streets"]["label_nc"] == 9
    assert len(lines[0]["metrics"]) == 18
    assert lines[1]["metrics"] == pytest.approx(lines[0]["metrics"], rel=1e-4, abs=1e-6)
    for name, detail in lines[0]["details"].items():
        assert ("ci95" in detail) == (name not in ("precision", "recall", "density", "coverage")), name
        found, ends = (line["details"][name].get("ci95", []) for line in reversed(lines))
        assert found == pytest.approx(ends, rel=1e-3, abs=1e-5), name
    for which in ("real_set", "fake_set", "mask_set"):
        assert lines[1]["protocol"][which] == lines[0]["protocol"][which]


def test_one_ending_of_all_names_is_one_hint(folders: Path) -> None:
    for kind, ending in (("fake", "_fake"), ("masks", "_mask001")):
        for file in sorted((folders / kind).iterdir()):
            file.rename(file.with_stem(file.stem + ending))
    with pytest.raises(DataError) as caught:
        run(folders, "--masks", str(folders / "masks"))
    fake, masks = str(caught.value).splitlines()
    assert fake.startswith(f"--fake {folders / 'fake'}: no file has the name of its real picture, but all 7 would fit")
    assert "0_fake.png belongs to 0.png, and so on" in fake
    assert "0_mask001.png belongs to 0.png, and so on" in masks
    for file in sorted((folders / "fake").iterdir()):
        file.rename(file.with_stem(file.stem.removesuffix("_fake") * 2))  # 00, 11, ...: no such ending
    with pytest.raises(DataError, match="14 unusable"):
        run(folders)


def test_kid_does_not_depend_on_names(folders: Path) -> None:
    """Nor its error, but that pairs have another than sets."""
    lines = [run(folders, metrics="kid")]
    for ending in ("", "_again"):
        for kind in ("fake", "real"):
            for i, file in enumerate(sorted((folders / kind).iterdir())):
                file.rename(file.with_stem(f"{3 * i % 7}_{kind}{ending}"))  # in another order, and no pairs
        lines.append(run(folders, metrics="kid"))
    assert [line["protocol"]["paired"] for line in lines] == [True, False, False]
    first, second, third = (line["metrics"]["kid"] for line in lines)
    assert second == pytest.approx(first, rel=1e-6) and third == pytest.approx(first, rel=1e-6)
    _, second, third = (line["details"]["kid"]["standard_error"] for line in lines)
    assert third == pytest.approx(second, rel=1e-6)


def test_lines_of_several_folders_have_a_mean(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folders, "--name", "mine")
    (folders / "out.json").rename(folders / "first.json")
    (folders / "fake").rename(folders / "elsewhere")
    args = ["--real", str(folders / "real"), "--fake", str(folders / "elsewhere"), "--metrics", "l1_whole", "--name"]
    args.append("mine")
    second = folders / "second.json"
    assert main([*args, "--device", "cpu", "--num_workers", "0", "--json", str(second)]) == 0
    capsys.readouterr()
    assert main(["--summarise", str(folders / "first.json"), str(second)]) == 0
    assert "(2 runs)" in capsys.readouterr().out
    (folders / "elsewhere" / "0.png").unlink()
    assert main([*args, "--device", "cpu", "--num_workers", "0", "--json", str(second), "--skip_bad"]) == 0
    with pytest.raises(UserError, match=r"(?s)num_images: 7 \(mine, seed None\); 6 .*real_set"):
        main(["--summarise", str(folders / "first.json"), str(second)])


@pytest.mark.parametrize("names", [("telea", "mean_colour"), ()], ids=["other names", "without names"])
def test_two_methods_have_no_mean(folders: Path, names: tuple[str, ...]) -> None:
    run(folders, *(["--name", names[0]] if names else []))
    (folders / "out.json").rename(folders / "first.json")
    (folders / "fake").rename(folders / "elsewhere")
    (folders / "fake").symlink_to(folders / "elsewhere")
    second = ["--fake", str(folders / "elsewhere"), *(["--name", names[1]] if names else [])]
    run(folders, *second)
    told = r"method: telea .*; mean_colour" if names else r"method: \['.*fake'\] .*; \['.*elsewhere'\]"
    with pytest.raises(UserError, match=rf"(?s)folder: .*no mean.*{told}.*one --name for folders of one method"):
        main(["--summarise", str(folders / "first.json"), str(folders / "out.json")])
