"""experiments/s2prest_comparison.yaml: refused before training where something is missing, run on the tiny pipeline."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

from models import MODELS
from scripts import make_table, run_experiment
from util.errors import UserError
from util.images import save_png

FILE = Path(__file__).resolve().parents[2] / "experiments" / "s2prest_comparison.yaml"
ROWS = ["--only", "s2prest_style_1", "--only", "s2prest_style_2"]


def contents(folder: Path) -> Path:
    for k in range(2):
        save_png(np.random.RandomState(k).randint(0, 255, (64, 64, 3)).astype(np.uint8), folder / f"{k}.png")
    return folder


def test_what_a_row_needs_is_looked_for_before_training(tmp_path: Path) -> None:
    where, place = [*ROWS, "--checkpoints_dir", str(tmp_path / "runs")], shlex.quote(str(contents(tmp_path)))
    for flags, told in (
        ("--content nowhere", "--content nowhere: no such file or folder"),
        (f"--content {place} --metrics psnr,cfsd --vgg_weights nowhere.pth", r"nowhere\.pth: no such"),
        (f"--content {place} --metrics pnsr", "Did you mean 'psnr'"),
        (f"--content {place} --metrics none --style_guidance 2", r"not in \(0, 1\]"),
    ):
        with pytest.raises(UserError, match=told):
            run_experiment.main([str(FILE), *where, "--test_args", flags])
    assert not (tmp_path / "runs").exists()


def test_rows_run_on_the_tiny_pipeline_and_stand_beside_published_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for library in ("diffusers", "transformers"):
        pytest.importorskip(library, reason="requirements-diffusion.txt is not installed")
    tiny = MODELS.get("s2prest").tiny(tmp_path)
    train = shlex.join([*tiny[2:], *"--max_steps 1 --no-tensorboard --num_workers 0 --device cpu".split()])
    where = shlex.join(["--content", str(contents(tmp_path / "faces")), "--results_dir", str(tmp_path / "results")])
    clip = shlex.quote(tiny[tiny.index("--clip_model") + 1])
    test = f"{where} --clip_loss_model {clip} --size 64 --steps 10 --metrics psnr,clip_loss --device cpu"
    runs = ["--checkpoints_dir", str(tmp_path / "runs")]
    line = [str(FILE), *ROWS, *runs, "--train_args", train, "--test_args", test]
    assert run_experiment.main(line) == 0
    assert "S2PreST by style, stylise, 2 pictures" in capsys.readouterr().out
    assert (tmp_path / "results" / "s2prest_style_2" / "wt_0.4_steps=10_size=64" / "stylized" / "1.png").is_file()
    assert run_experiment.main(line) == 0
    assert "$ python" not in capsys.readouterr().out  # finished rows are not run again
    assert make_table.main([str(FILE), *runs]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| style 1 |"))
    assert "| 18.225 |" in row and row.endswith("| 2 | 1 |")
