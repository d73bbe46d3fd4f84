"""Tables of experiments: which results may share one, and what stands in its cells and below it."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.influence import as_kept
from metrics.registry import METRICS
from metrics.reporting.protocol import OF_THE_TEST, require_one_protocol
from metrics.reporting.table import CSV_HEAD, FORMATS, Entry, Table, as_published, format_number
from options.experiment import Row, read_experiment
from scripts import make_table, run_experiment
from util.errors import UserError
from util.images import read_image

PLAIN = ("", "")  # around what is certainly the best


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


def test_a_row_of_a_method_from_elsewhere_shows_pictures_that_were_imported_under_its_name(tmp_path: Path) -> None:
    train = {"model": "sesame", "max_steps": 5}
    row = Row("theirs", "theirs", "Theirs", "", train, {"style_source": "mean"}, ["free_form"], {}, "")
    assert make_table.make_entry(row, "free_form", tmp_path).status == "not built"
    (tmp_path / "theirs").mkdir()
    imported = {**line(7), "step": None, "protocol": {"pack": "p", "run": "theirs"}}
    (tmp_path / "theirs" / "metrics.jsonl").write_text(json.dumps(imported) + "\n")
    found = make_table.make_entry(row, "free_form", tmp_path)
    assert (found.status, found.ours("fid"), found.notes) == ("done", 7, ["pictures of another make"])


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


def test_a_difference_is_told_where_the_protocols_agree() -> None:
    measured = {"all": {"num_images": 8}, "fid": {"weights": "w", "crop_size": 64}}
    for published_as, cell in (
        (measured, "+1.67"),
        ({**measured, "all": {"num_images": 200}}, ""),
        ({"fid": {"weights": "other"}}, ""),
        ({"fid": "by another network"}, ""),
        ({"lpips": {"net": "vgg"}}, "+1.67"),
    ):
        row = replace(entry("run_1", line(20.5), fid=18.83), published_as=published_as)
        table = Table(group="", task="free_form", entries=[row])
        assert table.cells(PLAIN)[1][1:4] == ["18.83", "20.50", cell]
        told = [text for text in table.foot() if text.startswith("No difference is told for fid: ")]
        assert bool(told) == (not cell)
        (found, *_) = csv.DictReader(io.StringIO(FORMATS["csv"]([table], title="t", paper="p")))
        assert bool(found["difference"]) == bool(cell)
    assert told == []
    other = replace(entry("run_1", line(20.5), fid=18.83), published_as={"all": {"num_images": 200}})
    foot = Table(group="", task="free_form", entries=[other]).foot()
    assert "No difference is told for fid: num_images: published 200, ours 8" in foot


def test_a_row_of_means_has_numbers_when_all_of_its_rows_have(tmp_path: Path) -> None:
    rows = {name: {"train": {"model": "divsem"}} for name in ("a", "b")}
    mean = {"mean_of": ["a", "b"], "published": {"free_form": {"fid": 30.0}}, "provenance": "the authors"}
    file, runs = tmp_path / "e.yaml", tmp_path / "runs"
    file.write_text(json.dumps({"rows": {**rows, "both": mean}}))
    names = METRICS.names()

    def both() -> Entry:
        (table,) = make_table.build_tables(read_experiment(file, metrics=names), runs)
        return table.entries[-1]

    for name, fid in (("a", 10.0), ("b", 20.0)):
        (runs / name).mkdir(parents=True)
        result = line(fid)
        result["protocol"] |= make_table.WAYS
        (runs / name / "metrics.jsonl").write_text(json.dumps(result) + "\n")
        assert (both().ours("fid"), both().status) == ((None, "1 of 2 rows tested") if name == "a" else (15.0, "done"))
    assert both().difference("fid", "fid") == -15
    assert both().notes == ["mean of the rows a, b"]
    result["protocol"]["seed"] = 1
    (runs / "b" / "metrics.jsonl").write_text(json.dumps(result) + "\n")
    with pytest.raises(UserError, match=r"(?s)mean: the rows .*seed: 0 \(a\); 1 \(b\)"):
        both()
    file.write_text(json.dumps({"rows": {**rows, "both": {**mean, "mean_of": ["a", "c"]}}}))
    with pytest.raises(UserError, match="row both: 'mean_of' names c: no row with results of its own"):
        both()


def test_seeds_of_a_row_become_their_mean_and_deviation(tmp_path: Path) -> None:
    file, runs = tmp_path / "e.yaml", tmp_path / "runs"
    file.write_text(json.dumps({"rows": {"a": {"label": "A", "train": {"model": "divsem"}, "seeds": [0, 1, 5]}}}))
    experiment = read_experiment(file, metrics=METRICS.names())
    assert [(row.name, row.label, row.train.get("seed")) for row in experiment.rows] == [
        ("a_0", "A, seed 0", 0), ("a_1", "A, seed 1", 1), ("a_5", "A, seed 5", 5), ("a", "A", None)
    ]  # fmt: skip

    for only in ([], ["a"], ["a_0", "a_1", "a_5"]):
        assert [row.name for row in run_experiment.select(experiment, only)] == ["a_0", "a_1", "a_5"]

    def table(**flags: bool) -> Table:
        return make_table.build_tables(experiment, runs, **flags)[0]

    for name, fid in (("a_0", 10.0), ("a_1", 20.0), ("a_5", 30.0)):
        assert [entry.name for entry in table(each_seed=False).entries] == ["a_0", "a_1", "a_5", "a"]
        (runs / name).mkdir(parents=True)
        result = line(fid)
        result["protocol"] |= make_table.WAYS
        (runs / name / "metrics.jsonl").write_text(json.dumps(result) + "\n")
    (mean,) = table(each_seed=False).entries
    assert table(each_seed=False).cells(PLAIN)[1][:2] == ["A", "20.00 +- 10.00"]
    assert mean.notes == ["mean +- standard deviation of the rows a_0, a_1, a_5"]
    assert [entry.ours("fid") for entry in table().entries] == [10, 20, 30, 20]
    found = list(csv.DictReader(io.StringIO(FORMATS["csv"]([table()], title="t", paper="p"))))
    assert [row["deviation"] for row in found if row["metric"] == "fid"] == ["", "", "", "10.0"]


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


# --- curves of validations -------------------------------------------------------------------------------------------
def test_curves_hold_the_validations_of_every_row(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "train: {model: spmpgan, dataset_mode: streets}\n"
        "rows: {a: {label: A}, again: {label: A once more, run: a}, b: {label: B}}\nbaselines: {mean: mean colour}\n"
    )
    runs, plot = tmp_path / "runs", tmp_path / "curves.png"
    command = [str(file), "--checkpoints_dir", str(runs), "--curves"]
    with pytest.raises(UserError, match="no row of own was validated in training"):
        make_table.main([*command, str(plot)])
    for name, lines in {
        "a": ['{"step": 5, "losses": {}}', '{"step": 10, "eval": {"fid": 40.0, "seam": 1}}', '{"step": 20, "ev'],
        "b": ['{"step": 20, "eval": {"fid": 30.0}}'],
    }.items():
        (runs / name).mkdir(parents=True)
        (runs / name / "stats.jsonl").write_text("\n".join(lines))
    experiment = read_experiment(file, metrics=METRICS.names())
    fid, seam = make_table.validations(experiment, runs)
    assert (fid.title, fid.x, seam.x) == ("fid against steps", [10, 20], [10])
    assert fid.lines["A"][0] == 40 and math.isnan(fid.lines["A"][1]) and fid.lines["B"][1] == 30
    assert set(seam.lines) == {"A"}
    make_table.main([*command, str(plot)])
    assert read_image(plot).std() > 0
    with pytest.raises(UserError, match=r"--curves .*curves\.svg: name a PNG file"):
        make_table.main([*command, str(tmp_path / "curves.svg")])
