"""scripts/benchmark.py: every command on tiny networks; figures, ratios, and equal results of both forms."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts import benchmark
from scripts.benchmarks import cascade, grid, memory, scaling
from util.errors import UserError
from util.images import read_image


def rows_of(tmp_path: Path, what: str, *args: str) -> dict[str, Any]:
    out = tmp_path / "out.json"
    assert benchmark.main([what, "--size", "64", "--json", str(out), *args]) == 0
    return json.loads(out.read_text(encoding="utf-8"))["rows"]


@pytest.mark.parametrize("what", ["infer", "train"])
def test_both_forms_are_timed(what: str, tmp_path: Path) -> None:
    for row in rows_of(tmp_path, what, "--ngf", "2").values():
        assert 0 < row["ours"]["gflop"] < row["plain"]["gflop"]
        assert row["ratio"] == pytest.approx(row["plain"]["wall_s"] / row["ours"]["wall_s"])
        assert row["ours"]["images_per_s"] == pytest.approx(1 / row["ours"]["wall_s"])
        assert row["share"] > 0
        assert row.get("difference", 0.0) < 1e-4


def test_ours_alone_in_batches(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "infer", "--ngf", "2", "--against", "none", "--batch_size", "2", "--precision", "bf16")
    for row in rows.values():
        assert "plain" not in row and "ratio" not in row
        assert row["ours"]["images_per_s"] == pytest.approx(2 / row["ours"]["wall_s"])


def test_styles(tmp_path: Path) -> None:
    for row in rows_of(tmp_path, "style").values():
        assert row["difference"] < 1e-4
        assert row["cpu_ratio"] > 1


def test_patch_losses(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "semia", "--height", "32", "--width", "40", "--loss_only")
    assert set(rows) == {"patch loss, released", "patch loss, semantic"}
    for row in rows.values():
        assert row["values"][0] == pytest.approx(row["values"][1], rel=1e-4)
        assert row["ratio"] == pytest.approx(row["plain"]["wall_s"] / row["ours"]["wall_s"])


def test_memory_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, gradients and Adam's two moments at least; less than what a process imports on top."""
    monkeypatch.setattr(memory, "ROWS", [("train", "spmpgan")])
    row = rows_of(tmp_path, "memory", "--ngf", "16", "--against", "none")["spmpgan, train"]
    model = cascade.build(Namespace(size=64, ngf=16), "spmpgan", cascade.CLASSES, is_train=True)
    least = 16 * sum(p.numel() for net in model.networks().values() for p in net.parameters()) / 2**20
    assert 100 < least < row["ours"]["peak_mb"] < 3 * least + 300


def test_scaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "NAMES", {"infer": "fill"})
    plot = tmp_path / "plot.png"
    rows = rows_of(tmp_path, "scaling", "--ngf", "2", "--plot", str(plot))
    assert rows["fill, size 64"]["ratio"] == 1
    assert rows["fill, size 128"]["gflop"] > 2 * rows["fill, size 64"]["gflop"]
    assert rows["fill, batch 2"]["gflop"] == pytest.approx(rows["fill, batch 1"]["gflop"], rel=0.3)  # not of both
    assert read_image(plot).std() > 1
    with pytest.raises(UserError, match="--plot"):
        rows_of(tmp_path, "scaling", "--plot", str(tmp_path / "plot.jpg"))


def test_processes_that_train_together_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "NAMES", {"train": "step"})
    monkeypatch.setattr(scaling, "sweeps", lambda opt: {"processes": [1, 2]})
    rows = rows_of(tmp_path, "scaling", "--ngf", "2")
    assert rows["step, processes 1"]["ratio"] == 1
    assert rows["step, processes 2"]["gflop"] == pytest.approx(rows["step, processes 1"]["gflop"], rel=0.01)
    assert rows["step, processes 2"]["cpu_s"] > 0


def test_processes_that_fail_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling.subprocess, "run", lambda *line, **how: Namespace(returncode=7))
    opt = Namespace(size=64, ngf=2, batch_size=1, repeats=1, precision="fp32", device="cpu")
    with pytest.raises(UserError, match=r"2 processes .* code 7"):
        scaling.cost_together(opt, 2)


def test_settings_by_batch_size_until_the_memory_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, form_of = [], grid.form_of

    def form(opt: Namespace, *args: Any, **how: Any) -> Any:
        made.append((opt.precision, opt.channels_last, opt.batch_size))
        if opt.batch_size == 4:
            raise torch.OutOfMemoryError("full")
        return form_of(opt, *args, **how)

    monkeypatch.setattr(grid, "form_of", form)
    monkeypatch.setattr(grid, "apart", lambda function, opt: function(opt))
    monkeypatch.setattr(grid, "SETTINGS", {name: grid.SETTINGS[name] for name in ("fp32", "bf16, channels last")})
    monkeypatch.setattr(grid, "BATCHES", (1, 4, 8))
    rows = rows_of(tmp_path, "grid", "--ngf", "2")
    assert made == [("fp32", None, 1), ("fp32", None, 4), ("bf16", True, 1), ("bf16", True, 4)]
    assert set(rows) == {"fp32, batch 1", "bf16, channels last, batch 1"}
    assert all(row["images_per_s"] == pytest.approx(1 / row["wall_s"]) for row in rows.values())
    assert capsys.readouterr().out.count("4  out of memory") == 2
