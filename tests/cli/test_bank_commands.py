"""Style banks by the commands: made when they are missing or of other weights, enlarged, and done without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_runs import run_test, train

from models.style_bank import StyleBank
from scripts.build_style_bank import main as build_style_bank
from scripts.prepare_streets import main as prepare_streets
from util.errors import UserError
from util.images import save_png


def test_style_bank_is_rebuilt_where_it_is_missing_and_draws_are_seeded(tmp_path: Path) -> None:
    run = train(
        "divsem", tmp_path, "run", "--max_steps", "2", "--streets_test_size", "6", "--ema", "0.9", "--seed", "3"
    )
    bank = (run / "style_bank.safetensors").read_bytes()
    (run / "style_bank.safetensors").unlink()
    run_test(tmp_path, "run", "--task", "class", "--num_samples", "2")
    assert (run / "style_bank.safetensors").read_bytes() == bank
    folder = run / "results" / "test_class"
    first = {p.name: p.read_bytes() for p in (folder / "fake").glob("*.png")}
    second = {p.name: p.read_bytes() for p in (folder / "fake_2").glob("*.png")}
    assert first != second  # a fully erased class is drawn anew for each sample
    run_test(tmp_path, "run", "--task", "class", "--num_samples", "2")
    assert first == {p.name: p.read_bytes() for p in (folder / "fake").glob("*.png")}


def test_a_bank_of_other_weights_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("divsem", tmp_path, "run", "--max_steps", "1")
    path = run / "style_bank.safetensors"
    old = path.read_bytes()
    train("divsem", tmp_path, "run", "--max_steps", "2", "--continue_train")
    new = path.read_bytes()
    path.write_bytes(old)  # as if the second training had been stopped before it made a bank
    run_test(tmp_path, "run", "--task", "class")
    assert "made with other weights (step 1, now step 2)" in capsys.readouterr().out
    assert path.read_bytes() == new


def test_without_any_bank_only_pictures_that_need_a_code_fail(tmp_path: Path) -> None:
    run = train("divsem", tmp_path, "run", "--max_steps", "0")
    (run / "style_bank.safetensors").unlink()
    data = tmp_path / "data"
    assert prepare_streets(["--output", str(data), "--train", "0", "--test", "2"]) == 0
    own = ["--dataset_mode", "custom", "--dataroot", str(data)]
    with pytest.raises(UserError, match=r"no style bank for these weights.*--dataroot"):
        run_test(tmp_path, "run", "--task", "class", *own)
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("a", "b"):  # a little of the road
        save_png(np.pad(np.full((2, 2), 255, np.uint8), ((60, 2), (31, 31))), masks / f"{name}.png")
    run_test(tmp_path, "run", "--task", "folder", "--mask_dir", str(masks), *own)


def test_a_class_without_a_code_takes_the_mean_and_is_counted(tmp_path: Path) -> None:
    run = train("divsem", tmp_path, "run", "--max_steps", "1", "--streets_test_size", "6")
    bank = StyleBank.load(run / "style_bank.safetensors", style_dim=8)
    kept = {label: rows for label, rows in bank.codes.items() if label == 0}
    StyleBank(kept, weights=bank.weights).save(run / "style_bank.safetensors")
    counters = run_test(tmp_path, "run", "--task", "outpainting")["protocol"]["counters"]
    assert (
        0 < counters["instances whose class has no code (mean code used)"] <= counters["instances drawn from the bank"]
    )


def test_a_bank_can_be_enlarged_and_its_mean_chosen(tmp_path: Path) -> None:
    run = train("divsem", tmp_path, "run", "--max_steps", "1", "--style_bank_size", "1")
    path, where = run / "style_bank.safetensors", ["--checkpoints_dir", str(tmp_path), "--name", "run"]
    small = StyleBank.load(path, style_dim=8)
    assert build_style_bank([*where, "--style_bank_size", "3", "--num_workers", "0"]) == 0
    large = StyleBank.load(path, style_dim=8)
    assert len(small) == len(small.codes) < len(large) <= 3 * len(large.codes)
    assert all(torch.equal(large.codes[label][:1], rows) for label, rows in small.codes.items())
    told = json.loads(path.with_suffix(".json").read_text())
    assert {int(k): len(v) for k, v in told["codes"].items()} == {k: len(v) for k, v in large.codes.items()}
    draws = [
        run_test(tmp_path, "run", "--task", "class", "--num_samples", "2", "--style_source", s)
        for s in ("mean", "bank")
    ]
    assert [line["protocol"]["style_source"] for line in draws] == ["mean", "bank"]
    assert draws[0]["metrics"] != draws[1]["metrics"]
    train("spmpgan", tmp_path, "base", "--max_steps", "0")
    with pytest.raises(UserError, match="no style codes"):
        run_test(tmp_path, "base", "--style_source", "mean")
