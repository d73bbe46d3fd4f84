"""scripts/report.py: several methods and tasks on one page, from files of evaluate.py and from folders of results."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts import evaluate, report
from util.errors import UserError
from util.images import save_labels, save_png

SEGMENTER = "--metrics miou_masked,l1 --segmenter streets --label_nc 9"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures, results of two methods, and what evaluate.py wrote of each."""
    home = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    for k in range(4):
        real = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        mask = np.zeros((32, 32), np.uint8)
        mask[: 4 * (k + 1)] = 255
        label = np.full((32, 32), 5)  # a class that all see; the first picture shows another one under its mask
        label[:2, :8] = 6 if k == 0 else 5
        save_png(real, home / "real" / f"{k}.png")
        save_png(mask, home / "mask" / f"{k}.png")
        save_labels(label, np.full((9, 3), 128, np.uint8), home / "label" / f"{k}.png")
        for name, off in (("near", 8), ("far", 90)):
            moved = np.clip(real.astype(int) + rng.integers(-off, off + 1, real.shape), 0, 255)
            save_png(np.where(mask[..., None] > 0, moved, real).astype(np.uint8), home / name / f"{k}.png")
    for name in ("near", "far"):
        folders = [f"--{flag}={home / folder}" for flag, folder in
                   (("real", "real"), ("fake", name), ("masks", "mask"), ("labels", "label"))]  # fmt: skip
        usual = ["--name", name, "--task", "rows", "--device", "cpu", "--num_workers", "0"]
        assert evaluate.main([*folders, *usual, *SEGMENTER.split(), "--json", str(home / f"{name}.json")]) == 0
    return home


def data_of(folder: Path) -> tuple[str, dict[str, Any]]:
    page = (folder / "report.html").read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert found is not None
    return page, json.loads(found[1])


def test_files_of_two_methods_make_one_page(measured: Path, tmp_path: Path) -> None:
    files = [str(measured / f"{name}.json") for name in ("far", "near")]
    assert report.main([*files, "--output", str(tmp_path), "--title", "Two"]) == 0
    page, data = data_of(tmp_path)
    (task,) = data["tasks"]
    assert (task["name"], task["methods"]) == ("rows", ["far", "near"])
    for picture, share in zip(task["pictures"], (0.125, 0.25, 0.375, 0.5), strict=True):
        l1 = picture["values"][[metric["name"] for metric in task["metrics"]].index("l1_masked")]
        assert l1[0] > 5 * l1[1] and picture["erased"] == share
        assert [title for title, _ in picture["shown"]] == ["input", "far", "near", "real"]
    assert [len(picture["classes"]) for picture in task["pictures"]] == [2, 1, 1, 1]
    assert "<h2>Confusion</h2>" in page and "<h2>Classes</h2>" in page
    value = json.loads((measured / "near.json").read_text())["metrics"]["l1_masked"]
    assert f"<b>{value:.4f}</b>" in page and "p = " in page


def test_a_folder_of_results_shows_its_own_pictures(measured: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    for name, kind in (("real", "real"), ("mask", "mask"), ("label", "label"), ("near", "fake")):
        shutil.copytree(measured / name, folder / kind)
    line = json.loads((measured / "near.json").read_text())
    (folder / "result.json").write_text(json.dumps(line))
    assert report.main([str(folder), "--output", str(tmp_path / "page")]) == 0
    _, data = data_of(tmp_path / "page")
    assert [title for title, _ in data["tasks"][0]["pictures"][0]["shown"]] == ["input", "labels", "result", "real"]
    del line["per_picture"], line["pictures"]  # as an earlier version wrote it
    (folder / "result.json").write_text(json.dumps(line))
    assert report.main([str(folder), "--output", str(tmp_path / "page")]) == 0
    page, data = data_of(tmp_path / "page")
    assert [picture["values"] for picture in data["tasks"][0]["pictures"]] == [[]] * 4
    assert "keeps no values of single pictures" in page
    shutil.rmtree(folder / "mask")
    with pytest.raises(UserError, match="the pictures in mask are not there"):
        report.main([str(folder), "--output", str(tmp_path / "page")])


def test_what_holds_no_result_is_refused(measured: Path, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("")
    with pytest.raises(UserError, match=r"RESULT .*out.jsonl: name a folder of results"):
        report.main([str(tmp_path / "out.jsonl"), "--output", str(tmp_path)])
    with pytest.raises(UserError, match=r"RESULT .*result.json: cannot be read"):
        report.main([str(tmp_path), "--output", str(tmp_path)])
    line = json.loads((measured / "near.json").read_text())
    (tmp_path / "sets.json").write_text(json.dumps({**line, "protocol": {**line["protocol"], "paired": False}}))
    with pytest.raises(UserError, match="is not of pairs in folders"):
        report.main([str(tmp_path / "sets.json"), "--output", str(tmp_path)])
    near = str(measured / "near.json")
    with pytest.raises(UserError, match="near, rows: given twice"):
        report.main([near, near, "--output", str(tmp_path)])
