"""The ledger: documents show its numbers and no others, each says what makes it again, and a row is made again."""

from __future__ import annotations

import copy
import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from metrics.reporting.ledger import Figure, Number, read_ledger
from scripts import ledger, make_table, run_experiment
from util.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
LINE: dict[str, Any] = {
    "metrics": {"fid": 80.25, "miou_streets": 61.5, "l1_masked": 0.125},
    "details": {
        "fid": {"unit": "distance", "protocol": "Frechet", "count": 4, "ci95": [70.5, 90.0], "weights": "inception.pt",
                "weights_sha256": "7ff4a85c3a6378f0"},
        "miou_streets": {"unit": "%", "protocol": "IoU", "count": 4, "segmenter": "streets", "real": 77.0},
        "l1_masked": {"unit": "1", "protocol": "mean", "count": 4},
    },
    "step": 3,
    "task": "free_form",
    "num_images": 4,
    "protocol": {"run": "one", "dataset_mode": "streets", "split": "test", "mask_set": "0123456789ab", "seed": 0,
                 "crop_size": 64, "commit": "c0ffee00c0ff", "versions": {"torch": "2.14.1"}},
}  # fmt: skip
FIGURE = "0.0<!-- short/Second/fid -->"
PAGE = f"""# Numbers

<!-- table: short -->
<!-- end of table -->

The second has {FIGURE} in FID.
"""
COMMAND = ["--command", "python scripts/run_experiment.py experiments/x.yaml", "--date", "2026-01-02"]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    write(folder / "page.md", PAGE.replace(FIGURE, "no number"))
    add(folder, "First | one")
    add(folder, "Second", fid=60.0)
    write(folder / "page.md", read(folder / "page.md").replace("no number", FIGURE))
    assert ledger.main(["write", "--docs", str(folder)]) == 0
    return folder


def add(docs: Path, row: str, *flags: str, **metrics: float) -> None:
    line = copy.deepcopy(LINE)
    line["metrics"] |= metrics
    result = docs.parent / "result.json"
    write(result, json.dumps(line))
    what = ["add", "short", "--row", row, "--result", str(result), "--docs", str(docs), "--machine", "one core"]
    assert ledger.main([*what, *COMMAND, *flags]) == 0


def check(docs: Path) -> int:
    return ledger.main(["check", "--docs", str(docs)])


def test_a_result_enters_by_one_command(docs: Path) -> None:
    assert check(docs) == 0
    page = read(docs / "page.md").splitlines()
    assert page[2:8] == [
        "<!-- table: short -->",
        "|  | fid ↓ | miou ↑ | miou_real ↑ | l1_masked ↓ |",
        "| --- | --- | --- | --- | --- |",
        r"| First \| one | 80.25 [70.50, 90.00] | 61.50 | 77.00 | 0.1250 |",
        "| Second | 60.00 [70.50, 90.00] | 61.50 | 77.00 | 0.1250 |",
        "<!-- end of table -->",
    ]
    assert page[-1] == "The second has 60.0<!-- short/Second/fid --> in FID."
    (number,) = (number for number in read_ledger(docs / "results.csv") if number.key == "short/Second/fid")
    assert number == Number(
        "short", "Second", "fid", Figure("60.0000"), Figure("70.5000"), Figure("90.0000"), Figure(""), "1", "distance",
        "4", "0123456789ab", "Frechet; free_form: streets, test, 64 pixels, seed 0; step 3",
        "inception.pt 7ff4a85c3a63", "c0ffee00c0ff", "2026-01-02", "one core; torch 2.14.1", COMMAND[1],
    )  # fmt: skip


def test_a_cell_that_the_ledger_does_not_give_is_refused(docs: Path) -> None:
    path = docs / "page.md"
    before = read(path)
    for there, changed, line in (("| 61.50", "| 62.50", 6), ("has 60.0<", "has 59.0<", 10), ("| First", "| Best", 6)):
        write(path, before.replace(there, changed, 1))
        with pytest.raises(UserError, match=rf"page\.md, line {line}: its files do not give this.*ledger\.py write"):
            check(docs)
    write(path, before)
    assert check(docs) == 0
    assert ledger.main(["write", "--docs", str(docs)]) == 0 and read(path) == before


def test_every_number_says_what_makes_it_again(docs: Path) -> None:
    path = docs / "results.csv"
    with path.open(encoding="utf-8", newline="") as file:
        head, first, *rest = csv.reader(file)
    for column, value, told in (
        ("command", "", "no command"),
        ("command", "by hand", "no command"),
        ("commit", "unknown", "not those of a measurement"),
        ("date", "yesterday", "not those of a measurement"),
        ("mask_set", "", "a metric needs the masks' hash"),
        ("unit", "", "unit is empty"),
        ("protocol", "", "protocol is empty"),
        ("machine", "", "machine is empty"),
        ("value", "many", "is no number"),
        ("column", "fid}", "column 'fid}' cannot be named"),
        ("row", "one\ntwo", "row .* cannot be named"),
        ("column", "miou", "stands there twice"),
    ):
        cells = [value if name == column else cell for name, cell in zip(head, first, strict=True)]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([head, *([] if told == "stands there twice" else [cells]), *rest, cells])
        with pytest.raises(UserError, match=told):
            check(docs)


def test_damaged_ledgers_are_named(docs: Path) -> None:
    path = docs / "results.csv"
    text = path.read_bytes()
    for damaged, told in (
        (text[: text.index(b"Second")], "not as many cells"),
        (b"\xff" + text, "no table"),
        (b"a,b\n1,2\n", "is missing"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"results.csv.*{told}"):
            check(docs)


def test_numbers_of_another_kind_enter_too(docs: Path) -> None:
    page = docs / "page.md"
    write(page, read(page) + "\n<!-- table: speed -->\n<!-- end of table -->\n")
    what = ["add", "speed", "--row", "fill", "--docs", str(docs), *COMMAND]
    with pytest.raises(UserError, match="--unit and --protocol say"):
        ledger.main([*what, "--values", "plain=1.85"])
    what += ["--unit", "s", "--protocol", "least of 5"]
    with pytest.raises(UserError, match="--values plain: COLUMN=NUMBER or"):
        ledger.main([*what, "--values", "plain"])
    with pytest.raises(UserError, match="a metric needs the masks' hash"):
        ledger.main([*what, "--values", "fid=1.85"])
    assert ledger.main([*what, "--values", "plain=1.8", "ours=0.9123+-0.01/3"]) == 0
    assert "| fill | 1.8 | 0.9123 +- 0.01 |" in read(page)


def test_arguments_that_would_not_be_read_are_refused(docs: Path) -> None:
    add_it = ["add", "short", "--row", "x", "--result", str(docs.parent / "result.json"), *COMMAND]
    for line, told in (
        (["check", "short"], "check takes --docs alone, short belongs to add"),
        (["write", "--row", "x"], "write takes --docs alone, --row belongs to add"),
        ([*add_it, "--unit", "s"], "--unit goes with --values"),
        ([*add_it, "--values", "a=1"], "takes a --result or --values"),
        (["add", "short"], "takes a --result or --values"),
        ([*add_it, "--date", "2026-13-01"], "--date 2026-13-01: no day"),
    ):
        with pytest.raises(UserError, match=told):
            ledger.main([*line, "--docs", str(docs)])
    with pytest.raises(UserError, match=r"--docs .*none: no such folder"):
        check(docs / "none")


def test_a_layout_says_how_a_table_looks(docs: Path) -> None:
    layout = docs / "results.yaml"
    write(layout, "short: {first: method, rows: {B: short/Second}, columns: {FID: '{fid:.1f} to {fid.high:.0f}'}}")
    assert ledger.main(["write", "--docs", str(docs)]) == 0
    page = read(docs / "page.md")
    assert "| method | FID |\n| --- | --- |\n| B | 60.0 to 90 |\n<!-- end" in page
    assert {number.key for number in read_ledger(docs / "results.csv")} == {"short/Second/fid"}  # others are not shown
    for text, told in (
        ("short: {columns: {FID: '{fid:.9f}'}}", r"60\.0000 is not known to 9 decimals"),
        ("short: {columns: {FID: '{fid.spread:.1f}'}}", "no such number is known"),
        ("short: {columns: {FID: '{fid:.1f} {kid:.1f}'}}", "needs 'short/Second/kid', a number of neither"),
        ("short: {rows: [Third]}", "Third: a row of neither"),
        ("short: {heads: 3}", "are what can be said of a table"),
        ("long: {first: method}", "no document shows long: put `<!-- table: long -->`"),
        ("short: [", r"results\.yaml: "),
        ("- short", r"results\.yaml: it should hold tables"),
        ("short: {columns: {FID: '{fid:.1f'}}", r"'\{fid:.1f': unmatched"),
        ("short: {columns: [fid]}", "`columns` should be texts by their heads"),
        ("short: {columns: {FID: 3}}", "`columns` should be texts by their heads"),
        ("short: {rows: 5}", "`rows` should be a list"),
    ):
        write(layout, text)
        with pytest.raises(UserError, match=told):
            check(docs)


def test_what_no_document_shows_is_refused(docs: Path) -> None:
    before = (docs / "results.csv").read_bytes()
    what = ["add", "long", "--row", "x", "--result", str(docs.parent / "result.json"), "--docs", str(docs)]
    with pytest.raises(UserError, match="no document has a place for long: put `<!-- table: long -->`"):
        ledger.main([*what, *COMMAND])
    assert (docs / "results.csv").read_bytes() == before
    page = docs / "page.md"
    write(page, read(page) + "5.0<!-- short/Third/fid -->\n")
    with pytest.raises(UserError, match="short/Third/fid is a number of neither"):
        check(docs)
    write(page, "# None\n")
    with pytest.raises(UserError, match="no document shows it"):
        check(docs)


def test_an_experiment_enters_by_one_command(docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds enter as their mean and deviation; what the experiment's command does not make needs another."""
    file, runs = tmp_path / "own.yaml", tmp_path / "runs"
    row = {"label": "A", "train": {"model": "divsem", "max_steps": 3}, "seeds": [0, 1]}
    write(file, json.dumps({"rows": {"a": row}, "tasks": ["free_form", "class"]}))
    page = docs / "page.md"
    write(page, read(page) + "\n<!-- table: own_class -->\n<!-- end of table -->\n")
    monkeypatch.setattr(ledger, "DOCS", docs)
    enter = [str(file), "--checkpoints_dir", str(runs), "--ledger", "own"]
    for seed, fid in ((0, 10.0), (1, 20.0)):
        (runs / f"a_{seed}").mkdir(parents=True)
        for task in ("free_form", "class"):
            line = {**copy.deepcopy(LINE), "task": task}
            line["metrics"]["fid"] = fid
            with (runs / f"a_{seed}" / "metrics.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(line) + "\n")
        assert make_table.main(enter) == 0
        assert ("| A, seed 0 | 10.00 [" in read(page)) == (seed == 0)  # until all are tested
    assert "| A | 15.00 +- 7.07 | 61.50 +- 0.0000 | 0.1250 +- 0.0000 |" in read(page)
    found = {number.key: number for number in read_ledger(docs / "results.csv") if number.table.startswith("own")}
    assert {number.table for number in found.values()} == {"own_class"}  # no document shows the other
    assert found["own_class/A/fid"].seeds == "2"
    assert found["own_class/A/fid"].command == "python scripts/run_experiment.py experiments/own.yaml"
    write(file, read(file).replace('"max_steps": 3', '"max_steps": 4'))
    with pytest.raises(UserError, match=r"A: tested at step 3, the experiment asks for 4.*: say by --command"):
        make_table.main(enter)
    assert make_table.main([*enter, "--command", "python train.py ..."]) == 0


def test_a_row_made_again_is_the_ledgers_to_the_last_digit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fill without networks, so that it does not depend on the processor; as its command says, for one metric."""
    for file in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.*")):
        (tmp_path / file.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / file.relative_to(ROOT))
    tables, column = ("siedob_whole_system_free_form", "siedob_whole_system_object_addition"), "l1_masked"
    keys = [f"{table}/mean colour/{column}" for table in tables]
    known = {number.key: number for number in read_ledger(ROOT / "docs" / "results.csv")}
    (command,) = {known[key].command for key in keys}
    assert command.startswith("python scripts/run_experiment.py experiments/siedob_streets.yaml")
    file, runs = str(ROOT / "experiments" / "siedob_streets.yaml"), ["--checkpoints_dir", str(tmp_path / "runs")]
    only = ["--only", "siedob_streets_system_mean", "--no-prepare", "--test_args=--metrics l1 --device cpu"]
    fewer = ["--train_args=--streets_train_size 1"]  # the mean of what is given does not read them
    assert run_experiment.main([file, *only, *fewer, *runs]) == 0
    monkeypatch.setattr(ledger, "DOCS", tmp_path / "docs")
    assert make_table.main([file, *runs, "--ledger", "siedob"]) == 0
    again = {number.key: number for number in read_ledger(tmp_path / "docs" / "results.csv")}
    for key in keys:
        assert f"{again[key]:.4f}" == f"{known[key]:.4f}"  # as the table shows it
        assert math.isclose(float(again[key].value), float(known[key].value), rel_tol=1e-12)
        for name in ("unit", "pictures", "mask_set", "protocol", "hashes", "seeds", "command"):
            assert getattr(again[key], name) == getattr(known[key], name)
