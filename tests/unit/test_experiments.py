"""Experiment files: what a file may say, and that all files of the repository say it rightly."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from data import DATASETS
from data.prepare.writing import write_class_table
from data.records import CLASSES_FILE
from metrics.registry import METRICS
from options.base_options import OPTIONS_FILE
from options.experiment import Experiment, Row, read_experiment, to_args
from options.test_options import TestOptions
from options.train_options import TrainOptions
from scripts import baselines, pack_benchmark, prepare_analogy, prepare_cityscapes
from testing.fills.plain import FILLS
from util.errors import UserError

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
FILES = sorted(FOLDER.glob("*.yaml"))
NOT_OURS = {"him", "sesame", "asset", "comod", "siedob"}  # published rows; the last where its classes are not known
NOT_OURS |= {"inst", "ip_adapter", "styleid", "diffuseit", "zero_star"}


PICTURES = {"cityscapes": 2975, "ade20k_room": 2246, "ade20k_landscape": 1689, "objects": 20000}  # of an epoch
BATCHES = {"divsem": 3, "spmpgan": 1, "siedob_background": 21, "siedob_inpaint": 90, "siedob_style": 50,
           "siedob_fusion": 30}  # fmt: skip


def read(path: Path) -> Experiment:
    return read_experiment(path, metrics=METRICS.names())


@cache
def rows_by_run() -> dict[str, Row]:
    return {row.run: row for path in FILES for row in read(path).rows if not row.not_built() and row.run == row.name}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in with the class tables of the objects that the files' `prepare` lines cut."""
    monkeypatch.chdir(tmp_path)
    for path in FILES:
        for line in read(path).prepare:
            words = line.split()
            if words[0] == "scripts/prepare_cityscapes.py":
                with pytest.raises(UserError, match=r"leftImg8bit_trainvaltest\.zip: no such archive"):
                    prepare_cityscapes.main(words[1:])
                continue
            if words[0] != "scripts/prepare_objects.py":
                assert prepare_analogy.main(words[1:]) == 0
                continue
            flags = dict(zip(words[1::2], words[2::2], strict=True))
            scenes = DATASETS.get(flags["--dataset_mode"]).class_table(None)
            entries = [
                {"id": k, "name": scenes.names[rule.label], "scene_id": rule.label}
                for k, rule in enumerate(scenes.foreground)
            ]
            folder = tmp_path / flags["--output"]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / CLASSES_FILE).write_text(json.dumps({"num_classes": len(entries), "classes": entries}))
    return tmp_path


def train_values(row: Row, root: Path) -> dict[str, Any]:
    """Return a row's options; the runs that it is built on are left in `root` as if they were trained."""
    known = rows_by_run()
    for name in row.built_on():
        if not (root / name / OPTIONS_FILE).exists():
            train_values(known[name], root)
    opt = TrainOptions().parse([*row.train_args(), "--checkpoints_dir", str(root)])
    folder = root / row.run
    folder.mkdir(exist_ok=True)
    opt.save(folder / OPTIONS_FILE)
    write_class_table(folder, DATASETS.get(opt.dataset_mode).class_table(opt.dataroot).resized(opt.label_nc))
    return opt.values()


# --- the files of the repository ------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_row_parses(path: Path, data: Path) -> None:
    experiment = read(path)
    assert experiment.title != path.stem
    assert len({(row.group, row.label) for row in experiment.rows}) == len(experiment.rows)
    built = [row for row in experiment.rows if not row.not_built()]
    assert built
    for row in experiment.rows:
        if row.baseline:
            for task in row.tasks:
                packing, measuring, _ = baselines.commands(row, task, str(data))
                assert pack_benchmark.parse(packing)[0].task == task
                assert baselines.build_parser().parse_args(measuring).fill == [row.baseline]
                assert row.baseline in FILLS
            continue
        if row.not_built():
            assert row.mean_of or row.train["model"] in NOT_OURS
            continue
        assert train_values(row, data)["label_nc"]
        for task in row.tasks:
            tested = TestOptions().parse([*row.test_args(task), "--checkpoints_dir", str(data)])
            assert tested.task == task


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_numbers_of_papers_have_a_source_and_no_full_size_run_is_cut_short(path: Path) -> None:
    experiment = read(path)
    for row in (row for row in experiment.rows if not row.baseline):
        assert not row.published or re.search(r"second hand|authors", row.provenance)
        if row.train["model"] == "s2prest":
            assert row.train["max_steps"] == 6100
        elif experiment.paper and not row.not_built() and row.train.get("fusion", True):
            pictures = PICTURES[row.train["dataset_mode"]]
            batch, steps = row.train["batch_size"], row.train["max_steps"]
            assert batch == BATCHES[row.train["model"]]
            assert 0 <= steps * batch - 500 * pictures < batch
    assert bool(experiment.paper) != bool(re.search("streets|camvid|demo|lake|drawn|cost", path.stem))


def test_a_name_means_one_run_in_all_files(data: Path) -> None:
    seen: dict[str, dict[str, Any]] = {}
    for path in FILES:
        for row in read(path).rows:
            if not row.not_built() and not row.baseline:
                values = train_values(row, data)
                assert seen.setdefault(row.run, values) == values, f"{path.name}: {row.name}"
    assert len(seen) > 20


def test_streets_ablation_changes_one_flag_per_row(tmp_path: Path) -> None:
    rows = [row for row in read(FOLDER / "streets_ablation.yaml").rows if not row.baseline]
    full, *others = [train_values(row, tmp_path) for row in rows]
    changed = [[k for k in full if k != "name" and full[k] != other[k]] for other in others]
    assert all(len(flags) == 1 for flags in changed)
    flags = {flag for row in changed for flag in row}
    wanted = "style_encoding valid_ratio ratio_input multi_scale dual_encoding edge_input raw_modulation modulation"
    assert flags == {*wanted.split(), "style_pool", "style_dim", "lambda_feat"}


def test_published_numbers_are_those_that_were_found() -> None:
    found = {}
    for path in FILES:
        for row in read(path).rows:
            for task, values in row.published.items():
                for metric, value in values.items():
                    found[path.stem, row.name, task, metric] = value
    assert found["divsem_ablation", "landscape_divsem", "free_form", "fid"] == 24.19
    assert found["spmpgan_ablation", "room_spmpgan_spade", "free_form", "fid"] == 23.27
    assert found["siedob_comparison", "cityscapes_spmpgan", "outpainting", "fid"] == 27.63
    assert not any(path in ("divsem_main", "divsem_style_length") for path, *_ in found)
    assert found["s2prest_comparison", "s2prest_eight_styles", "stylise", "art_fid_own"] == 30.56
    assert found["s2prest_comparison", "s2prest_style_7", "stylise", "content_loss"] == 138.374
    assert len(found) == 3 + 2 + 4 + 23 + 14 + (6 + 8) * 9


# --- the format -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("rowz: {a: {}}", ["'rowz' is unknown", "'rows'"]),
        ("title: x", ["'rows' is missing"]),
        ("rows: [a, b]", ["'rows' should hold"]),
        ("rows: {a: 3}", ["row a", "'name: value' pairs"]),
        ("rows: {a: {trian: {}}}", ["row a: 'trian' is unknown", "'train'"]),
        ("rows: {a: {train: [ngf]}}", ["row a", "'train' should hold"]),
        ("rows: {a: {}, a: {}}", ["line 1", "'a' stands there twice"]),
        ("tasks: [free_from]\nrows: {a: {}}", ["'free_from' is unknown", "'free_form'"]),
        ("rows: {a: {group: b}}", ["row a", "'group: b'"]),
        ("groups: {b: {}}\nrows: {a: {}}", ["row a", "one of the file's groups: b"]),
        ("rows: {a: {seeds: 3}}", ["row a", "'seeds: 3'", "[0, 1, 2]"]),
        ("rows: {a: {seeds: [1]}}", ["row a", "two whole numbers or more"]),
        ("rows: {a: {seeds: [1, 1]}}", ["row a", "'seeds' are different ones"]),
        ("rows: {a: {seeds: [0, 1], train: {seed: 3}}}", ["row a", "without a 'seed' in 'train'"]),
        ("rows: {a: {seeds: [0, 1]}, a_1: {}}", ["row a_1", "also a seed of row a"]),
        ("rows: {a: {published: {free_form: {fid: 3}}}}", ["row a", "'provenance'"]),
        ("rows: {a: {provenance: p, published: {class: {fid: 3}}}}", ["row a", "none of the row's tasks"]),
        ("rows: {a: {provenance: p, published: {free_form: {fidd: 3}}}}", ["'fidd' is unknown", "'fid'"]),
        ("rows: {a: {provenance: p, published: {free_form: {fid: best}}}}", ["published fid 'best' is not a number"]),
    ],
)
def test_a_wrong_file_is_answered(text: str, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read(path)
    for part in (*parts, "x.yaml"):
        assert part in str(caught.value)


def test_row_is_stronger_than_group_and_group_than_file(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "train: {a: 1, b: 1, c: 1}\ntasks: [class]\n"
        "groups: {g: {label: G, train: {b: 2, c: 2}, tasks: [instance]}, h: {}}\n"
        "rows: {r: {group: g, train: {c: false}}, s: {group: h, tasks: [free_form, class]}, t: {group: h}}\n"
    )
    experiment = read(tmp_path / "x.yaml")
    r, s, t = experiment.rows
    assert experiment.groups == {"g": "G", "h": "h"}
    assert (r.train, r.tasks, s.tasks, t.tasks) == (
        {"a": 1, "b": 2, "c": False}, ["instance"], ["free_form", "class"], ["class"]
    )  # fmt: skip
    assert to_args({"a": "1e-3", "b": True, "c": False, "d": None}) == ["--a", "1e-3", "--b", "--no-c"]
    assert to_args({"a": ["x y", 2]}) == ["--a", "x y", "2"]


def test_make_pretrained_exports_what_its_experiment_tests() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    asked = ["make", "--dry-run", "--always-make", "pretrained"]
    shown = subprocess.run(asked, cwd=FOLDER.parent, capture_output=True, text=True, check=True).stdout
    rows = read(FOLDER / "streets_pretrained.yaml").rows
    assert "run_experiment.py experiments/streets_pretrained.yaml" in shown
    exported = dict(re.findall(r"export.py --name (\S+) --output checkpoints/pretrained/(\S+) --half", shown))
    assert exported == {row.run: row.run.removeprefix("streets_128_") for row in rows if row.tasks}
    assert all(row.train["crop_size"] == 128 for row in rows if row.tasks)
