"""run_experiment.py and make_table.py as a user calls them, on two tiny rows."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import test as test_command
from models.base_cascade_gan import CascadeGAN
from options.experiment import read_experiment
from scripts import make_table, run_experiment
from testing import parallel
from util.device import visible_gpus
from util.errors import UserError
from util.progress import Lines

FILE = """
title: Two rows
paper: A paper; its numbers second hand
train:
  dataset_mode: streets
  streets_train_size: 6
  streets_test_size: 3
  crop_size: 64
  num_workers: 0
  batch_size: 2
  device: cpu
  ngf: 4
  ndf: 4
  spm_hidden: 8
  lambda_vgg: 0
  max_steps: 3
  log_every: 1
  image_every: 0
  tensorboard: false
test: {num_workers: 0, device: cpu, metrics: "l1,psnr"}
tasks: [free_form, class]
rows:
  base: {label: SPMPGAN, train: {model: spmpgan}}
  ours:
    label: DivSem
    train: {model: divsem, style_dim: 8, nef: 2}
    published: {free_form: {psnr: 20.25, lpips: 0.084}}
    provenance: "second hand: a note"
  later: {label: To come, train: {model: not_yet}}
next: that was all
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    (tmp_path / "two.yaml").write_text(FILE)
    return tmp_path / "two.yaml"


def run(path: Path, *args: str) -> int:
    return run_experiment.main([str(path), "--checkpoints_dir", str(path.parent / "runs"), *args])


def table(path: Path, capsys: Any, style: str) -> str:
    capsys.readouterr()
    assert make_table.main([str(path), "--checkpoints_dir", str(path.parent / "runs"), "--format", style]) == 0
    return capsys.readouterr().out


def results(path: Path, row: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (path.parent / "runs" / row / "metrics.jsonl").read_text().splitlines()]


def weights(path: Path, row: str) -> dict[str, torch.Tensor]:
    model = torch.load(path.parent / "runs" / row / "latest.pt", weights_only=True)["model"]
    return {f"{net}.{k}": v for net, state in model.items() for k, v in state.items()}


def interrupt_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process SIGTERM when the training step after `steps` begins."""
    begin, done = CascadeGAN.begin_step, []

    def begin_step(self: CascadeGAN, batch: Any) -> Any:
        done.append(1)
        if len(done) == steps + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return begin(self, batch)

    monkeypatch.setattr(CascadeGAN, "begin_step", begin_step)


def test_rows_run_are_skipped_resumed_and_tabled(
    experiment: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(experiment, "--dry_run") == 0
    out = capsys.readouterr().out
    assert out.count("python train.py") == 2
    assert out.count("python test.py --name ours --task class") == 1
    assert out.count(f"--checkpoints_dir {shlex.quote(str(experiment.parent / 'runs'))}") == 2 + 4
    assert "finished" not in out
    assert "# later: not built: --model 'not_yet' is unknown" in out
    assert not (experiment.parent / "runs").exists()
    head, _, first, *_ = [t for t in table(experiment, capsys, "markdown").splitlines() if t.startswith("|")]
    assert "psnr ↑ published" in head
    assert "not run" in first

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(1, patch)
        run(experiment, "--only", "base")
    folder = experiment.parent / "runs" / "base"
    assert (folder / "latest.pt").exists()
    assert not (folder / "step_3.pt").exists()
    assert run(experiment) == 0
    out = capsys.readouterr().out
    assert "train.py --name base" in out
    assert sum(line.startswith("$ ") and "--continue_train" in line for line in out.splitlines()) == 1
    assert "Two rows: class, 3 pictures" in out
    assert out.rstrip().endswith("that was all")
    assert (experiment.parent / "runs" / "two_class.png").is_file()

    assert run(experiment) == 0
    out = capsys.readouterr().out
    assert "$" not in out
    assert out.count("already trained") == 2
    assert out.count("already tested") == 4
    assert [line["task"] for line in results(experiment, "ours")] == ["free_form", "class"]

    other = experiment.parent / "unbroken"
    other.mkdir()
    (other / "two.yaml").write_text(FILE)
    run(other / "two.yaml", "--only", "base")
    broken, unbroken = weights(experiment, "base"), weights(other / "two.yaml", "base")
    assert all(torch.equal(broken[k], v) for k, v in unbroken.items())
    assert broken.keys() == unbroken.keys()

    check_what_is_finished(experiment, capsys)
    check_tables(experiment, capsys)
    check_other_options(experiment)


def check_what_is_finished(experiment: Path, capsys: Any) -> None:
    """How a run is watched and kept is not what it is; --dry_run leaves open what a run would do."""

    def open_lines() -> list[str]:
        assert run(experiment, "--dry_run") == 0
        lines = capsys.readouterr().out.splitlines()
        assert len([line for line in lines if line.removeprefix("# finished: ").startswith("python t")]) == 6
        return [line for line in lines if line.startswith("python t")]

    capsys.readouterr()
    experiment.write_text(FILE.replace("log_every: 1", "log_every: 2\n  save_every: 7\n  keep: 3\n  cache: none"))
    assert run(experiment) == 0
    out = capsys.readouterr().out
    assert "$" not in out
    assert out.count("already t") == 6
    assert open_lines() == []
    runs = experiment.parent / "runs"
    moves = {runs / "ours/results/test_class/result.json": "result", runs / "base/step_3.pt": "step_2.pt"}
    for path, name in moves.items():
        path.rename(path.with_name(name))
    found = open_lines()
    assert [line.split()[1:4] for line in found] == [
        ["train.py", "--name", "base"], *[["test.py", "--name", "base"]] * 2, ["test.py", "--name", "ours"]
    ]  # fmt: skip
    assert found[0].endswith("--continue_train")
    for path, name in moves.items():
        path.with_name(name).rename(path)
    experiment.write_text(FILE.replace("max_steps: 3", "max_steps: 2"))
    with pytest.raises(UserError, match=r"other options \(max_steps 3 -> 2\)"):
        run(experiment)
    experiment.write_text(FILE)


def check_tables(experiment: Path, capsys: Any) -> None:
    """The three formats, and a later test with another seed."""
    found = results(experiment, "ours")[0]["metrics"]
    l1, psnr = found["l1_masked"], found["psnr_masked"]
    markdown = table(experiment, capsys, "markdown")
    own = [rf"\**{value}\**( =)?" for value in (f"{l1:.4f}", f"{psnr:.2f}")]  # with its certainty
    row = ["DivSem", *own[:1], "20.25", *own[1:], re.escape(f"{psnr - 20.25:+.2f}"), "0.084", "", "", "3", "3"]
    assert re.search(r" \| ".join(row), markdown), markdown
    assert "| To come |" in markdown
    assert "not built" in markdown
    assert "Published, DivSem: second hand: a note" in markdown
    rows = list(csv.DictReader(io.StringIO(table(experiment, capsys, "csv"))))
    mine = {(r["task"], r["row"], r["metric"]): r for r in rows}
    assert float(mine["free_form", "ours", "psnr_masked"]["ours"]) == psnr
    assert mine["free_form", "ours", "lpips"]["published"] == "0.084"
    assert mine["class", "later", "l1_masked"]["status"] == "not built"
    assert mine["class", "base", "l1_masked"]["pictures"] == "3"
    latex = table(experiment, capsys, "latex")
    assert latex.count(r"\begin{tabular}") == 2
    assert r"free\_form" in latex

    again = ["--name", "ours", "--checkpoints_dir", str(experiment.parent / "runs"), "--num_workers", "0"]
    test_command.main([*again, "--device", "cpu", "--metrics", "l1,psnr", "--task", "class", "--seed", "1"])
    with pytest.raises(UserError, match=r"(?s)class: .*mask_set: .*\(base\).*\(ours\).*seed: 0 \(base\); 1 \(ours\)"):
        make_table.main([str(experiment), "--checkpoints_dir", str(experiment.parent / "runs")])
    assert run(experiment) == 0  # tests again what was tested otherwise, and nothing else
    assert [line["protocol"]["seed"] for line in results(experiment, "ours")] == [0, 0, 1, 0]
    assert len(results(experiment, "base")) == 2
    assert table(experiment, capsys, "markdown") == markdown
    with (experiment.parent / "runs" / "ours" / "metrics.jsonl").open("a") as file:
        file.write("{cut short\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 5"):
        make_table.main([str(experiment), "--checkpoints_dir", str(experiment.parent / "runs")])


def check_other_options(experiment: Path) -> None:
    """Another width, and a run that was not finished."""
    experiment.write_text(FILE.replace("ngf: 4", "ngf: 8"))
    with pytest.raises(UserError, match=r"other options \(ngf 4 -> 8\)"):
        run(experiment)
    runs = experiment.parent / "runs"
    row = make_table.read_experiment(experiment, metrics=("psnr", "lpips")).rows[0]
    assert make_table.make_entry(row, "class", runs).notes == ["trained with ngf 4 instead of 8"]
    row.train.update(ngf=4, max_steps=5, lr_G="1e-4")
    unfinished = make_table.make_entry(row, "class", runs)
    assert unfinished.status == "unfinished"
    assert unfinished.notes[0] == "tested at step 3, the experiment asks for 5"


def test_what_the_metrics_need_is_looked_for_before_training(experiment: Path) -> None:
    experiment.write_text(FILE.replace('"l1,psnr"', '"miou", segmenter: espnet_camvid'))
    with pytest.raises(UserError, match="espnet_camvid needs a file"):
        run(experiment)
    experiment.write_text(FILE.replace('"l1,psnr"', "fid, inception_weights: nowhere.pth"))
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file"):
        run(experiment)
    assert not (experiment.parent / "runs").exists()
    with pytest.raises(UserError, match=r"--only ous: no such row\. Did you mean 'ours'"):
        run(experiment, "--only", "ous")


def test_rows_in_parallel_leave_logs_and_the_same_table(
    experiment: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = []

    def progress(**how: Any) -> Any:
        bars.append(Lines(None, desc=how["desc"], total=how["total"], unit=how["unit"], initial=how["initial"]))
        return bars[0]

    monkeypatch.setattr(parallel, "progress", progress)
    experiment.write_text(FILE.replace("max_steps: 3", "max_steps: 1"))
    assert run(experiment, "--jobs", "2") == 0
    assert (bars[0].initial, bars[0].n, bars[0].total, bars[0].unit) == (0, 2, 2, "step")
    assert bars[0].postfix == ", rows=2/2"
    assert "Two rows: free_form, 3 pictures" in capsys.readouterr().out
    assert "$ python train.py --name base" in (experiment.parent / "runs" / "two_base.log").read_text()


def test_each_row_in_parallel_has_a_gpu_in_turn(experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    seen = []

    class Started(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **how: Any) -> None:
            if "--only" in arguments[0]:
                seen.append(how["env"]["CUDA_VISIBLE_DEVICES"])
            super().__init__(*arguments, **how)

    experiment.write_text(FILE.replace("max_steps: 3", "max_steps: 0"))
    monkeypatch.setattr(parallel.subprocess, "Popen", Started)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert run(experiment, "--jobs", "2") == 0
    assert seen == ["5", "7"]
    assert "a GPU for each row, the freest of 5, 7" in capsys.readouterr().out
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1"]


def test_steps_are_counted_as_they_are_logged(experiment: Path) -> None:
    rows = [row for row in read_experiment(experiment, metrics=["psnr", "lpips"]).rows if not row.not_built()]
    runs = experiment.parent / "runs"
    count = parallel.StepCount(rows, str(runs))
    assert count.look() == (0, 6)
    (runs / "ours").mkdir(parents=True)
    (runs / "ours" / "stats.jsonl").write_text('{"step": 1}\n{"step": 2, "losses": {}}\n{"st')
    (runs / "base").mkdir()
    (runs / "base" / "step_3.pt").touch()
    assert count.look() == (5, 6)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    root = Path(__file__).resolve().parents[2]
    line = f"{sys.executable} -u scripts/run_experiment.py experiments/streets_ablation.yaml --dry_run | head -n 1"
    done = subprocess.run(line, shell=True, cwd=root, capture_output=True, text=True)
    assert done.stdout.startswith("python train.py")
    assert done.stderr == ""
