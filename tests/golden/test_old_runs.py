"""What earlier versions wrote stays readable: options of runs, and result lines (`results/old/`)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from frozen import RESULTS, check

from models import MODELS
from options.parser import PROVENANCE, read_yaml
from options.run_options import NOT_CARRIED
from options.test_options import TestOptions
from options.train_options import TrainOptions
from scripts import evaluate, make_table
from util.errors import UserError

OLD = RESULTS / "old"
RUNS = sorted(path.parent.name for path in OLD.glob("*/opt.yaml"))
EXPERIMENT = """
title: Old lines
tasks: [free_form]
groups:
  cascade: {label: One cascade, tasks: [free_form, class]}
  parts: {label: In parts}
  whole: {label: Together}
  styles: {label: Styles, tasks: [stylise]}
rows:
  spmpgan: {group: cascade, train: {model: spmpgan, max_steps: 1}}
  divsem:
    group: cascade
    train: {model: divsem, max_steps: 9, ngf: 8}
    published: {free_form: {fid: 55.25, lpips: 0.084, miou: 40}}
    provenance: "second hand: a note"
  siedob_background: {group: parts, train: {model: siedob_background}}
  siedob_inpaint: {label: not tested, run: nowhere, group: parts, train: {model: siedob_inpaint}}
  siedob_fusion: {group: whole, train: {model: siedob_fusion}}
  s2prest:
    group: styles
    train: {model: s2prest}
    published: {stylise: {art_fid: 30.5, psnr: 18}}
    provenance: a table
"""


def test_every_method_has_an_old_run() -> None:
    assert set(RUNS) <= set(MODELS.names())
    assert {MODELS.get(name).flow for name in RUNS} == {MODELS.get(name).flow for name in MODELS.names()}


@pytest.mark.parametrize("name", RUNS)
def test_test_py_takes_the_options_of_an_old_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved = read_yaml(OLD / name / "opt.yaml", "options of the run")
    model = MODELS.get(saved["model"])
    stylises = model.flow == "stylising"
    if not stylises:
        model.tiny(Path())  # its data, which the saved options name by relative paths
    opt = TestOptions().parse(["--name", name, "--checkpoints_dir", str(OLD), *(["--content", "."] * stylises)])
    carried = saved.keys() & opt.values().keys() - NOT_CARRIED - {PROVENANCE}
    assert {key: getattr(opt, key) for key in carried} == {key: saved[key] for key in carried}
    assert carried >= {"model", "dataset_mode", "crop_size", "load_size", "label_nc"}
    if not stylises:  # that one is built from its base model's files
        assert model.from_options(opt, is_train=False).networks()


@pytest.mark.parametrize("name", [name for name in RUNS if MODELS.get(name).formerly])
def test_a_flag_that_came_later_has_the_meaning_that_old_runs_had(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    formerly = MODELS.get(name).formerly
    MODELS.get(name).tiny(Path())  # its data
    saved = read_yaml(OLD / name / "opt.yaml", "options of the run")
    assert not formerly.keys() & saved.keys()
    shutil.copytree(OLD / name, tmp_path / name)
    opt = TrainOptions().parse(["--name", name, "--checkpoints_dir", str(tmp_path), "--continue_train"])
    assert {key: getattr(opt, key) for key in formerly} == dict(formerly)


def test_old_lines_are_summarised(capsys: pytest.CaptureFixture[str]) -> None:
    for name in RUNS:
        assert evaluate.main(["--summarise", str(OLD / name / "metrics.jsonl")]) == 0
    check("old_summaries", capsys.readouterr().out)
    with pytest.raises(UserError, match="not one measurement"):
        evaluate.main(["--summarise", *(str(OLD / name / "metrics.jsonl") for name in ("divsem", "siedob_style"))])


def test_old_lines_stand_in_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old.yaml").write_text(EXPERIMENT)
    found = {}
    for style in ("markdown", "latex", "csv"):
        assert make_table.main([str(tmp_path / "old.yaml"), "--checkpoints_dir", str(OLD), "--format", style]) == 0
        found[style] = capsys.readouterr().out
    check("old_tables", found)
