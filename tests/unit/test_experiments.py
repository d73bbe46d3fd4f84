"""Experiment files: what a file may say, that all files of the repository say it rightly, and their tables."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data import DATASETS
from data.prepare.writing import write_class_table
from data.records import CLASSES_FILE
from metrics.influence import as_kept
from metrics.registry import METRICS
from metrics.reporting.protocol import OF_THE_TEST, require_one_protocol
from metrics.reporting.table import CSV_HEAD, FORMATS, Entry, Table, as_published, format_number
from options.base_options import OPTIONS_FILE
from options.experiment import Experiment, Row, read_experiment, to_args
from options.test_options import TestOptions
from options.train_options import TrainOptions
from scripts import baselines, make_table, pack_benchmark, prepare_analogy, prepare_cityscapes
from testing.fills.plain import FILLS
from util.errors import UserError

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
FILES = sorted(FOLDER.glob("*.yaml"))
PLAIN = ("", "")  # around what is certainly the best
NOT_OURS = {"him", "sesame", "asset", "comod", "siedob"}  # published rows; the last where its classes are not known
NOT_OURS |= {"s2prest_eight_styles", "inst", "ip_adapter", "styleid", "diffuseit", "zero_star"}


PICTURES = {"cityscapes": 2975, "ade20k_room": 2246, "ade20k_landscape": 1689, "objects": 20000}  # of an epoch
BATCHES = {"divsem": 3, "spmpgan": 1, "siedob_background": 21, "siedob_inpaint": 90, "siedob_style": 50,
           "siedob_fusion": 30}  # fmt: skip


def read(path: Path) -> Experiment:
    return read_experiment(path, metrics=METRICS.names())


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
            assert row.train["model"] in NOT_OURS
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
    assert bool(experiment.paper) != bool(re.search("streets|camvid|demo|lake|drawn", path.stem))


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
    assert found["s2prest_comparison", "s2prest_eight_styles", "stylise", "art_fid"] == 30.56
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


# --- one protocol ---------------------------------------------------------------------------------------------------
def line(fid: float = 20.0, *, segmenter: str = "net", **protocol: Any) -> dict[str, Any]:
    detail = {"unit": "distance", "protocol": "features", "count": 8, "weights": "w", "weights_sha256": "a" * 64}
    seg = {**detail, "protocol": f"by {segmenter}", "segmenter": segmenter, "real": 77.0}
    usual = dict.fromkeys(OF_THE_TEST, "x") | {"run": "r", "commit": "c", "model": "m", "crop_size": 64, "seed": 0}
    return {
        "metrics": {"fid": fid, f"miou_{segmenter}": 50.0},
        "details": {"fid": detail, f"miou_{segmenter}": seg},
        "step": 9,
        "task": "free_form",
        "num_images": 8,
        "protocol": {**usual, **protocol},
    }


def entry(name: str, result: dict[str, Any] | None, status: str = "done", **published: float) -> Entry:
    return Entry(name, name.upper(), result, status, published, "a note" if published else "")


@pytest.mark.parametrize("field", ["mask_set", "seed", "crop_size", "split", "dataset_mode", "weights", "precision"])
def test_every_field_of_the_protocol_counts(field: str) -> None:
    with pytest.raises(UserError, match=rf"(?s)here: .*{field}: .*\(a, c\).*other \(b\)"):
        require_one_protocol({"a": line(), "b": line(**{field: "other"}), "c": line()}, "here")


def test_rows_that_test_one_run_in_different_ways_take_their_own_lines(tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [
        {"object_classes": "car,person"},
        {"removal": "released"},
        {"style_source": "noise"},
        {},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({**line(number), "protocol": way}) + "\n" for number, way in enumerate(ways)))
    for number, way in enumerate(ways):
        found = make_table.last_line(path, "free_form", way)
        assert found is not None and found["metrics"]["fid"] == number
    assert make_table.last_line(path, "free_form", {"object_classes": "car"}) is None
    row = Row("r", ".", "R", "", {"style_source": "noise"}, {}, ["free_form"], {}, "")
    trained = make_table.make_entry(row, "free_form", tmp_path)
    assert trained.ours("fid") == 2, "a run that is trained with noise is tested with noise"


@pytest.mark.parametrize("field", ["num_images", "task"])
def test_count_and_task_count(field: str) -> None:
    with pytest.raises(UserError, match=rf"{field}: "):
        require_one_protocol({"a": line(), "b": {**line(), field: "other"}}, "here")


def test_what_a_run_is_does_not_count() -> None:
    require_one_protocol({"a": line(), "b": line(3.0, run="q", commit="d", model="n")}, "here")


@pytest.mark.parametrize("field", ["protocol", "count", "weights_sha256", "segmenter"])
def test_a_metric_must_be_the_same_where_two_rows_have_it(field: str) -> None:
    other = line()
    other["details"]["miou_net"][field] = "other"
    if field != "segmenter":
        with pytest.raises(UserError, match=f"miou: {field}|miou_net: {field}"):
            require_one_protocol({"a": line(), "b": other}, "here")
    del other["metrics"]["miou_net"]  # b has no such cell any more
    require_one_protocol({"a": line(), "b": other}, "here")


def test_two_segmenters_are_two_protocols() -> None:
    with pytest.raises(UserError, match=r"miou: segmenter: net \(a\); unet \(b\)"):
        Table(group="G", task="free_form", entries=[entry("a", line()), entry("b", line(segmenter="unet"))])


@settings(deadline=None, max_examples=25)
@given(st.permutations(["a", "b", "c", "d"]), st.integers(0, 3))
def test_refusal_does_not_depend_on_the_order(order: list[str], odd: int) -> None:
    lines = {name: line(mask_set="odd" if name == "abcd"[odd] else "even") for name in order}
    with pytest.raises(UserError, match=rf"odd \({'abcd'[odd]}\)"):
        require_one_protocol(lines, "here")


# --- tables ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def table() -> Table:
    rows = [
        entry("paper_only", None, "not built", fid=11.9, lpips=0.084),
        entry("run_1", line(20.5), fid=18.83),
        entry("later", None, "not run"),
    ]
    return Table(group="A & B", task="free_form", entries=rows)


def test_cells(table: Table) -> None:
    head, paper, run, later = table.cells(PLAIN)
    assert head == [
        "", "fid ↓ published", "fid ↓ ours", "difference", "miou_net ↑", "lpips ↓ published", "lpips ↓ ours",
        "difference", "pictures", "step",
    ]  # fmt: skip
    assert paper == ["PAPER_ONLY", "11.90", "", "", "", "0.084", "", "", "not built", ""]
    assert run == ["RUN_1", "18.83", "20.50", "+1.67", "50.00", "", "", "", "8", "9"]
    assert later == ["LATER", *[""] * 7, "not run", ""]
    foot = "\n".join(table.foot())
    for part in (
        "masks x",
        "seed 0",
        "fid: features",
        "sha256 aaaa",
        "real pictures 77.00",
        "Published, RUN_1: a note",
    ):
        assert part in foot


@pytest.mark.parametrize("extra", ["fid_clean", "fid_crops"])
def test_a_published_number_stands_beside_the_metric_of_its_very_name(extra: str) -> None:
    result = line()
    result["metrics"] = {extra: 1.0, **result["metrics"]}
    columns = Table(group="", task="free_form", entries=[entry("a", result, fid=3.0)]).columns
    assert columns == {extra: "", "fid": "fid", "miou": ""}


def test_intervals_stand_beside_the_numbers() -> None:
    result = line(20.5)
    result["details"]["fid"]["ci95"] = [0.25, 31.0]
    table = Table(group="", task="free_form", entries=[entry("a", result, fid=18.0)])
    assert table.cells(PLAIN)[1] == ["A", "18.00", "20.50 [0.2500, 31.00]", "+2.50", "50.00", "8", "9"]
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"]([table], title="t", paper="p"))))
    assert [(row["low"], row["high"]) for row in rows] == [("0.25", "31.0"), ("", "")]


def test_the_best_of_a_column_is_bold_where_it_is_certain() -> None:
    def row(name: str, value: float, each: list[float] | None) -> Entry:
        result = line(value)
        parts = {} if each is None else {"fid": (torch.tensor(each, dtype=torch.float64),)}
        return entry(name, {**result, "influence": as_kept({"pairs": list("abcd")}, 1, parts)})

    wave = [0.1, -0.1, 0.1, -0.1]
    rows = [row("near", 20.1, [0.2, -0.1, 0.0, -0.1]), row("best", 20.0, wave), row("far", 25.0, [0.1, -0.1, 0.0, 0.0])]
    certain = Table(group="", task="free_form", entries=rows[1:])
    assert [cells[1] for cells in certain.cells(("<", ">"))[1:]] == ["<20.00>", "25.00"]
    tied = Table(group="", task="free_form", entries=rows)
    assert [cells[1] for cells in tied.cells(("<", ">"))[1:]] == ["20.10 =", "20.00 =", "25.00"]
    assert "| **20.00** |" in FORMATS["markdown"]([certain], title="t", paper="p")
    assert r"\textbf{20.00}" in FORMATS["latex"]([certain], title="t", paper="p")
    assert "Bold: certainly better" in "".join(certain.foot())
    unknown = Table(group="", task="free_form", entries=[row("best", 20.0, None), row("far", 25.0, [0.1, -0.1, 0, 0])])
    assert [cells[1] for cells in unknown.cells(("<", ">"))[1:]] == ["20.00", "25.00"]
    open_end = Table(group="", task="free_form", entries=[*rows[1:], row("new", 30.0, None)])
    assert open_end.cells(("<", ">"))[1][1] == "20.00 ="  # not known to be better than all


def test_the_foot_of_a_folder_tells_what_is_known() -> None:
    result = line()
    result["protocol"] = {"real": "real", "fake": ["fake"], "mask_set": "m", "draw": "first of each picture",
                          "reference": "the files as they are, 8 bit"}  # fmt: skip
    foot = Table(group="", task="free_form", entries=[entry("a", result)]).foot()
    assert foot[0] == (
        "Protocol: 8 pictures of real; masks m, first of each picture; reference: the files as they are, 8 bit"
    )


def test_csv_keeps_all_digits(table: Table) -> None:
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"]([table], title="t", paper="p"))))
    assert tuple(rows[0]) == CSV_HEAD
    assert len(rows) == 3 * 3
    fid = next(row for row in rows if row["row"] == "run_1" and row["metric"] == "fid")
    assert (float(fid["published"]), float(fid["ours"]), fid["status"]) == (18.83, 20.5, "done")
    assert float(fid["difference"]) == 20.5 - 18.83
    assert {row["status"] for row in rows} == {"done", "not run", "not built"}


def test_markdown_and_latex_are_rectangles(table: Table) -> None:
    markdown = FORMATS["markdown"]([table], title="T", paper="P")
    widths = {text.count("|") for text in markdown.splitlines() if text.startswith("|")}
    assert widths == {11}
    latex = FORMATS["latex"]([table], title="T", paper="P")
    rows = [text for text in latex.splitlines() if text.endswith(r"\\")]
    assert {re.sub(r"\\&", "", row).count("&") for row in rows} == {9}
    assert r"A \& B" in latex
    assert r"RUN\_1" in latex
    assert "lrrrrrrrrr" in latex
    assert not re.search(r"(?<!\\)_", latex)


def test_numbers() -> None:
    assert [format_number(x) for x in (None, 0.1234567, -0.5, 12.345, float("nan"))] == [
        "", "0.1235", "-0.5000", "12.35", "nan"
    ]  # fmt: skip
    assert [as_published(x) for x in (None, 11.9, 0.084, 24.19, 7.0)] == ["", "11.90", "0.084", "24.19", "7.00"]


def test_an_empty_table_still_names_its_rows() -> None:
    table = Table(group="", task="class", entries=[entry("a", None, "not run")])
    assert table.cells(PLAIN) == [["", "pictures", "step"], ["A", "not run", ""]]
    for name, write in FORMATS.items():
        assert "not run" in write([copy.deepcopy(table)], title="t", paper=""), name
