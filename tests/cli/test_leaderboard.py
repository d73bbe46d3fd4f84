"""The leaderboard: a row by one command, pages made of the files and of nothing else."""

from __future__ import annotations

import copy
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from scripts import leaderboard
from util.errors import UserError

LINE: dict[str, Any] = {
    "metrics": {"fid": 80.25, "l1_masked": 0.125, "miou_streets": 61.5},
    "details": {
        "fid": {"unit": "distance", "protocol": "Frechet", "count": 4, "ci95": [70.5, 90.0], "bins": {"0-10%": {}}},
        "l1_masked": {"unit": "1", "protocol": "mean", "count": 4},
        "miou_streets": {"unit": "%", "protocol": "IoU", "count": 4, "segmenter": "streets", "real": 77.0},
    },
    "step": None,
    "task": "free_form",
    "num_images": 4,
    "protocol": {
        "run": "one", "dataset_mode": "streets", "split": "test", "split_size": 4, "left_out": 0, "mask_set": "abc",
        "seed": 0, "draw": "first", "crop_size": 64, "load_size": 64, "reference": "cuts", "pack": "123",
        "commit": "c0ffee",
    },
    "per_picture": {"names": ["a"]},
}  # fmt: skip


def write(path: Path, line: dict[str, Any] | None = None, **metrics: float) -> str:
    line = copy.deepcopy(line or LINE)
    line["metrics"] |= metrics
    path.write_text(json.dumps(line))
    return str(path)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    add(folder, write(tmp_path / "one.json"), "First | one")
    add(folder, write(tmp_path / "two.json", fid=60.0), "Second", "--cost", "2 h")
    return folder


def add(docs: Path, result: str, method: str, *flags: str) -> None:
    day = ["--date", "2026-01-02"]
    assert leaderboard.main(["add", result, "--method", method, "--docs", str(docs), *day, *flags]) == 0


def check(docs: Path) -> int:
    return leaderboard.main(["check", "--docs", str(docs)])


def test_rows_of_one_protocol_stand_in_one_board(docs: Path) -> None:
    page = (docs / "leaderboard.md").read_text()
    assert page.count("\n## ") == 1 and "## streets_64_free_form" in page
    rows = [line for line in page.splitlines() if line.startswith(("| First", "| Second"))]
    assert rows == [  # the best FID first
        "| Second | **60.00** [70.50, 90.00] | **61.50** | **0.1250** | 2026-01-02 | c0ffee | 2 h |",
        r"| First \| one | 80.25 [70.50, 90.00] | 61.50 | 0.1250 | 2026-01-02 | c0ffee | not told |",
    ]
    assert "--streets_test_size 4 --split test --task free_form --seed 0 --output pack`" in page
    table = (docs / "leaderboard.csv").read_text().splitlines()
    assert (
        "streets_64_free_form,Second,fid,60.0,70.5,90.0,distance,lower,4,abc,2026-01-02,c0ffee,2 h,Frechet,,,,,"
        in table
    )
    assert len(table) == 1 + 2 * 3
    stored = (docs / "leaderboard" / "streets_64_free_form.jsonl").read_text()
    assert "per_picture" not in stored and "bins" not in stored
    assert check(docs) == 0


def test_a_row_that_its_files_do_not_give_is_refused(docs: Path) -> None:
    for page in ("leaderboard.md", "leaderboard.csv"):
        path = docs / page
        before = path.read_text()
        path.write_text(before.replace("60.0", "50.0", 1))
        with pytest.raises(UserError, match=rf"{page}, line \d+: its files do not give this"):
            check(docs)
        path.write_text(before + "| Mine | 1.00 |\n")
        with pytest.raises(UserError, match=r"its files do not give this: '. Mine"):
            check(docs)
        path.write_text(before)
    (docs / "leaderboard" / "streets_64_free_form.jsonl").write_text("")
    with pytest.raises(UserError, match="its files do not give this"):
        check(docs)


def test_what_does_not_fit_a_board_is_refused(docs: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in docs.rglob("*.*")}
    other = copy.deepcopy(LINE)
    other["protocol"]["mask_set"] = "other"
    with pytest.raises(UserError, match=r"mask_set: abc .*; other \(Third\)"):
        add(docs, write(tmp_path / "x.json", other), "Third")
    with pytest.raises(UserError, match="Second stands there twice; --replace"):
        add(docs, write(tmp_path / "x.json"), "Second")
    folder = copy.deepcopy(LINE)
    folder["protocol"]["mask_set"] = None
    for text in (json.dumps(folder), "{}", "[]", "no json"):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(UserError, match=r"x\.json: (not a result under known masks|no result can be read)"):
            add(docs, str(tmp_path / "x.json"), "Third")
    away = {**LINE, "task": "/../../stolen"}
    with pytest.raises(UserError, match=r"x\.json: its data set, size and task make no file's name"):
        add(docs, write(tmp_path / "x.json", away), "Third")
    with pytest.raises(UserError, match="belong together"):
        leaderboard.main(["add", "--docs", str(docs)])
    assert {path.name: path.read_bytes() for path in docs.rglob("*.*")} == before
    shutil.copy(docs / "leaderboard" / "streets_64_free_form.jsonl", docs / "leaderboard" / "camvid_64_class.jsonl")
    with pytest.raises(UserError, match="a result of streets_64_free_form in the board camvid_64_class"):
        check(docs)


def test_differences_from_the_best_are_told_with_their_certainty(docs: Path, tmp_path: Path) -> None:
    def influence(l1: float, fid: float) -> dict[str, Any]:
        values = {"l1_masked": [[l1, -l1, 2 * l1, -2 * l1]], "fid": [[fid, -fid, fid, -fid]]}
        return {"influence": {"units": {"pairs": "abc"}, "blocks": 1, "values": values}}

    add(docs, write(tmp_path / "x.json", LINE | influence(1e-6, 1.0), fid=50.0, l1_masked=0.1), "Best")
    add(docs, write(tmp_path / "x.json", LINE | influence(3e-6, 400.0), fid=51.0, l1_masked=0.11), "Other")
    row = next(line for line in (docs / "leaderboard.md").read_text().splitlines() if line.startswith("| Other"))
    assert "| ≈ 51.00 [" in row and "| 0.1100 |" in row  # FID: not certainly worse; L1: worse
    with (docs / "leaderboard.csv").open() as file:
        told = {line["metric"]: line for line in csv.DictReader(file) if line["method"] == "Other"}
    assert told["fid"]["against"] == "Best" and float(told["fid"]["difference"]) == 1.0
    assert float(told["fid"]["difference_low"]) < 0 < float(told["fid"]["difference_high"])
    assert float(told["l1_masked"]["p"]) < 0.05 < float(told["fid"]["p"])
    assert told["miou_streets"]["against"] == ""  # nothing was kept of it


def test_a_newer_row_replaces_the_older(docs: Path, tmp_path: Path) -> None:
    add(docs, write(tmp_path / "x.json", fid=55.5), "Second", "--replace")
    page = (docs / "leaderboard.md").read_text()
    assert page.count("| Second |") == 1 and "55.50" in page and "60.00" not in page


def test_the_pages_of_the_repository_are_what_its_files_give() -> None:
    assert leaderboard.main(["check"]) == 0
