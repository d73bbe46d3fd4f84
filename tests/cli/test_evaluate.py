"""scripts/evaluate.py on folders of any pictures: values, report, refusals, skips."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_process import ROOT, free_port, start
from trainer_toys import one_thread

from scripts.benchmark import main as benchmark
from scripts.evaluate import evaluate, main, parse_options
from trainers.distributed import Distributed
from util.errors import DataError, UserError


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Six pairs with masks, labels and instances, a second draw of each."""
    rng = np.random.default_rng(0)
    for i in range(6):
        real = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
        mask = np.zeros((64, 80), np.uint8)
        mask[: 8 * (i + 1), 4:70] = 255
        save(tmp_path / "real" / f"{i}.png", real)
        save(tmp_path / "mask" / f"{i}.png", mask)
        save(tmp_path / "label" / f"{i}.png", rng.integers(0, 3, (64, 80), dtype=np.uint8))
        save(tmp_path / "inst" / f"{i}.png", np.tile(np.arange(2, dtype=np.uint16).repeat(40) + 26000, (64, 1)))
        for draw in ("fake", "fake_2"):
            save(
                tmp_path / draw / f"{i}.png",
                np.where(mask[..., None] > 0, rng.integers(0, 256, real.shape), real).astype(np.uint8),
            )
    return tmp_path


def run(folder: Path, *more: str, metrics: str = "l1_whole") -> dict:
    args = ["--real", str(folder / "real"), "--fake", str(folder / "fake"), "--metrics", metrics, "--device", "cpu"]
    out = folder / "out.json"
    assert main([*args, "--num_workers", "0", "--cache_dir", str(folder / "cache"), "--json", str(out), *more]) == 0
    return json.loads(out.read_text())


def test_everything_that_needs_no_segmenter_in_one_command(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps = ["--masks", str(folders / "mask"), "--labels", str(folders / "label"), "--instances", str(folders / "inst")]
    metrics = "fid,kid,prdc,fid_region,l1,psnr_whole,seam,style"
    line = run(folders, *maps, "--intervals", "--report", str(folders / "out"), metrics=metrics)
    names = {
        "fid",
        "kid",
        "precision",
        "recall",
        "density",
        "coverage",
        "fid_region",
        "l1_masked",
        "psnr_whole",
        "seam",
    }
    assert set(line["metrics"]) == names | {"style_colour", "style_texture"}
    assert line["metrics"]["l1_masked"] == pytest.approx(1 / 3, abs=0.02)  # two independent uniform levels
    low, high = line["details"]["fid"]["ci95"]
    assert low < line["metrics"]["fid"] < high
    assert sum(b["pictures"] for b in line["details"]["l1_masked"]["bins"].values()) == 6
    assert line["per_picture"]["names"] == [str(i) for i in range(6)]
    assert line["protocol"]["versions"]["torch"]
    for which in ("real_set", "fake_set", "mask_set"):
        assert re.fullmatch("[0-9a-f]{12}", line["protocol"][which])
    page = (folders / "out" / "report.html").read_text()
    assert not re.search(r"https?://|src=|<link", page)
    assert page.count("data:image/jpeg;base64") >= 12
    for text in (*names, "Best and worst", "By erased share", "Precision and recall"):
        assert text in page
    assert "fid ↓" in capsys.readouterr().out


def test_sets_that_are_no_pairs_have_a_distance_and_intervals(folders: Path) -> None:
    paired = run(folders, metrics="fid")
    for file in (folders / "fake").iterdir():
        file.rename(file.with_name(f"other_{file.name}"))
    sets = run(folders, "--bootstrap", "20", metrics="fid,kid,prdc")  # the older name
    for name in ("fid", "kid"):
        low, high = sets["details"][name]["ci95"]
        assert low <= sets["metrics"][name] <= high
    assert (paired["protocol"]["paired"], sets["protocol"]["paired"]) == (True, False)
    assert sets["metrics"]["fid"] == pytest.approx(paired["metrics"]["fid"], rel=1e-5)
    with pytest.raises(DataError, match=r"all 6 would fit under other names: other_0\.png belongs to 0\.png"):
        run(folders, metrics="psnr_whole")


def test_equal_names_of_other_sizes_are_two_sets(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (folders / "real").iterdir():
        with Image.open(file) as picture:
            picture.resize((40, 32)).save(file)
    line = run(folders, metrics="fid")
    assert not line["protocol"]["paired"]
    assert line["details"]["fid"]["num_real"] == 6
    assert "taken as two sets" in capsys.readouterr().out
    with pytest.raises(DataError, match="pairs must have one size"):
        run(folders, metrics="fid,l1_whole")


def test_two_bad_files_of_one_name_count_twice(folders: Path) -> None:
    (folders / "fake" / "5.png").rename(folders / "fake" / "other.png")
    for which in ("real", "fake"):
        (folders / which / "0.png").write_bytes(b"broken")
    assert len(run(folders, "--skip_bad", metrics="fid")["protocol"]["skipped"]) == 2


def test_pictures_of_one_bit_stand_in_the_report(folders: Path) -> None:
    for which in ("real", "fake"):
        for file in (folders / which).iterdir():
            save(file, np.random.default_rng(1).random((64, 80)) > 0.5)
    run(folders, "--report", str(folders / "out"))
    assert "data:image/jpeg" in (folders / "out" / "report.html").read_text()


def test_bad_files_stop_or_are_counted_and_listed(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "fake" / "0.png").write_bytes(b"\x89PNG broken")
    save(folders / "fake" / "1.png", np.zeros((64, 80, 4), np.uint8))
    save(folders / "fake" / "2.png", np.zeros((32, 80, 3), np.uint8))
    (folders / "real" / "3.png").unlink()
    with pytest.raises(DataError, match=r"1 unusable .--skip_bad"):
        run(folders)
    with pytest.raises(DataError, match="cannot be decoded"):
        run(folders, metrics="fid")
    line = run(folders, "--skip_bad")
    assert line["num_images"] == 2
    assert set(line["protocol"]["skipped"]) == {"0", "1", "2", "3"}
    out = capsys.readouterr().out
    for text in (
        "4 skipped",
        "0.png: the picture cannot be decoded",
        "transparent",
        "pairs must have one size",
        "no file of this name",
    ):
        assert text in out


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (["--metrics", "l1"], "l1: needs --masks DIR"),
        (["--metrics", "miou"], "miou: needs --labels DIR"),
        (["--metrics", "none"], "nothing to compute"),
        (["--metrics", "fidd"], "Did you mean 'fid'"),
        (["--bootstrap", "-1"], "--bootstrap -1"),
        (["--masks", "nowhere", "--metrics", "l1"], "--masks nowhere: no such folder"),
        (["--json", "."], "--json .: is a folder"),
        (["--json", f"{__file__}/out.json"], "--json .*: exists and is not a folder"),
        (["--report", __file__], "--report .*: exists and is not a folder"),
        (["--cache_dir", __file__], "--cache_dir .*: exists and is not a folder"),
    ],
)
def test_wrong_flags_are_answered(folders: Path, args: list[str], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        main(["--real", str(folders / "real"), "--fake", str(folders / "fake"), *args])


def test_too_small_pictures_are_named_or_skipped(folders: Path) -> None:
    for which in ("real", "fake"):
        save(folders / which / "0.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"0\.png is 8x8; SSIM or LPIPS needs at least 11 pixels a side"):
        run(folders, metrics="ssim_whole")
    count = len(list((folders / "fake").iterdir()))
    line = run(folders, "--skip_bad", metrics="ssim_whole")
    assert line["details"]["ssim_whole"]["count"] == count - 1


@pytest.mark.parametrize(("args", "fault"), [(["--num_images", "1"], "--num_images"), (["--repeats", "0"], "--repeats"),
                                             (["--json", "/nowhere/x.json"], "folder does not exist")])  # fmt: skip
def test_wrong_flags_of_the_benchmark_are_answered(args: list[str], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        benchmark(["metrics", *args])


def test_two_processes_share_the_features_and_measure_what_one_does(folders: Path) -> None:
    """Three batches, so that one process has none in the last round; each has a cache of its own."""
    for file in [file for which in ("real", "fake", "mask") for file in (folders / which).iterdir()]:
        if int(file.stem) > 2:
            file.unlink()
    command = ["--real", str(folders / "real"), "--fake", str(folders / "fake"), "--masks", str(folders / "mask")]
    command += ["--metrics", "fid,fid_region,l1", "--device", "cpu", "--num_workers", "0", "--batch_size", "1"]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    caches = [folders / "cache_0", folders / "cache_1"]
    pair = [
        start(*command, "--cache_dir", str(cache), "--json", str(folders / "two.json"),
              script=ROOT / "scripts" / "evaluate.py", RANK=str(rank), LOCAL_RANK=str(rank), **address)
        for rank, cache in enumerate(caches)
    ]  # fmt: skip
    told = [process.communicate(timeout=120) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], told
    assert "fid ↓" in told[0][0] and told[1][0] == ""
    kept = [[file.name for file in cache.rglob("*.f32")] for cache in caches]
    assert [len(names) for names in kept] == [2 * 4, 2 * 2]  # of two pairs and one; pictures and their regions
    assert not set(kept[0]) & set(kept[1])
    with one_thread():
        assert main([*command, "--cache_dir", "none", "--json", str(folders / "one.json")]) == 0
    one, two = (json.loads((folders / f"{name}.json").read_text(encoding="utf-8")) for name in ("one", "two"))
    assert one == two


def test_what_several_processes_cannot_share_is_refused(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without torchrun"):
        main(["--summarise", "metrics.jsonl"])
    opt = parse_options(["--real", str(folders / "real"), "--fake", str(folders / "fake"), "--metrics", "l1_whole"])
    with pytest.raises(UserError, match=r"--metrics l1_whole: .*without torchrun"):
        evaluate(opt, Distributed(rank=1, world_size=2))


def test_nothing_left_is_said(folders: Path) -> None:
    for file in (folders / "fake").iterdir():
        file.rename(file.with_stem(2 * file.stem))
    with pytest.raises(DataError, match="no picture is left"):
        run(folders, "--skip_bad")


def test_one_picture_has_no_fid(folders: Path) -> None:
    for file in [*(folders / "real").iterdir(), *(folders / "fake").iterdir()]:
        if file.stem != "0":
            file.unlink()
    with pytest.raises(UserError, match="at least two pictures"):
        run(folders, metrics="fid")


def test_result_lines_are_summarised(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, value in ((0, 2.0), (1, 4.0)):
        line = {"task": "class", "step": 1, "metrics": {"fid": value}, "protocol": {"run": "r", "seed": seed}}
        with (folders / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    assert main(["--summarise", str(folders / "metrics.jsonl")]) == 0
    assert "3 +- 1.414  (2 runs)" in capsys.readouterr().out
    (folders / "other.json").write_text("[1]")
    with pytest.raises(UserError, match="holds no result lines"):
        main(["--summarise", str(folders / "other.json")])
    (folders / "metrics.jsonl").write_text("{")
    with pytest.raises(UserError, match="cannot be read as result lines"):
        main(["--summarise", str(folders / "metrics.jsonl")])
