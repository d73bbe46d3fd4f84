"""YAML and JSON that would run code, grow beyond bounds, or are damaged."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
import yaml

from data.records import CLASSES_FILE, read_class_table
from metrics.registry import METRICS
from metrics.reporting.summary import read_lines, summarise
from metrics.segments.external import read_card
from metrics.segments.segmenters import load_segmenter
from options.base_options import OPTIONS_FILE
from options.experiment import read_experiment
from options.test_options import TestOptions
from options.train_options import TrainOptions
from scripts.make_table import last_line
from testing.analogy_flow import MARKER, clear_earlier
from trainers.logger import Logger
from util.errors import UserError
from util.results import ResultFolder

TAGS = (
    "a: !!python/object/apply:os.mkdir [{trace}]",
    "a: !!python/object/new:os.mkdir [{trace}]",
    "a: !!python/name:os.mkdir",
    "!!python/object/apply:os.mkdir [{trace}]",
    "a: !mine {{b: 1}}",
)
BILLION = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 10)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
BOMBS = {
    "aliases of aliases": BILLION,
    "merged aliases": MERGED,
    "an alias of itself": "a: &a [1, *a]",
    "nested lists": "a: " + "[" * 5000,
    "nested mappings": "{a: " * 5000,
    "too many bytes": "#" * 2_000_000,
    "no date": "a: 2024-13-45",
    "no number": "a: !!int ''",
    "no time": "a: !!timestamp x",
    "no key": "? [a, b]\n: 1",
    "a second document": "a: 1\n--- \nb: 2",
    "no UTF-8": "\xff",
    "a control character": "a: \x07",
}


def readers(path: Path) -> list:
    """Every way from a YAML file into the programs."""
    run = path.parent / "run"
    run.mkdir(exist_ok=True)
    (run / OPTIONS_FILE).write_bytes(path.read_bytes())
    (run / "segmenter.yaml").write_bytes(path.read_bytes())
    where = ["--name", "run", "--checkpoints_dir", str(path.parent)]
    return [
        lambda: TrainOptions().parse(["--name", "x", "--config", str(path)]),
        lambda: TestOptions().parse(where),
        lambda: TrainOptions().parse([*where, "--continue_train"]),
        lambda: read_experiment(path, metrics=METRICS.names()),
        lambda: read_card(path),
        lambda: load_segmenter("run", weights=None, checkpoints_dir=str(path.parent), device="cpu"),  # type: ignore[arg-type]
    ]


def refused(path: Path) -> None:
    for read in readers(path):
        begun = time.monotonic()
        with pytest.raises(UserError, match=r"\.yaml"):
            read()
        assert time.monotonic() - begun < 30


@pytest.mark.fault("15", "YAML with tags of Python objects", sees="file, line and tag; nothing of it runs")
def test_tags(ledger, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "c.yaml"
    yaml.load(TAGS[0].format(trace=trace), yaml.UnsafeLoader)
    assert trace.exists(), "the trap does not work"
    trace.rmdir()
    for attempt in ledger.attempts(len(TAGS), quick=len(TAGS)):
        with attempt as number:
            path.write_text(TAGS[number].format(trace=trace))
            refused(path)
            assert not trace.exists()


@pytest.mark.fault("15", "YAML bombs: aliases, nesting, odd values", sees="the file, and what is wrong in it")
def test_bombs(ledger, tmp_path: Path) -> None:
    for attempt in ledger.attempts(len(BOMBS), quick=len(BOMBS)):
        with attempt as number:
            path = tmp_path / "c.yaml"
            path.write_text(list(BOMBS.values())[number], encoding="latin-1")
            refused(path)


def test_anchors_of_honest_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text("train: &t {ngf: 4, lr_G: 1e-4}\nrows: {a: {train: {<<: *t, ndf: 8}}, b: {train: *t}}\n")
    first, second = read_experiment(path, metrics=METRICS.names()).rows
    assert (first.train, second.train) == ({"ngf": 4, "lr_G": "1e-4", "ndf": 8}, {"ngf": 4, "lr_G": "1e-4"})


ODD_TABLES = (
    "", "[]", "null", "3", '{"num_classes": 1}', '{"num_classes": 0, "classes": []}',
    '{"num_classes": 1e30, "classes": []}', '{"num_classes": 99999999999, "classes": []}',
    '{"num_classes": -1, "classes": []}', '{"num_classes": NaN, "classes": []}', '{"num_classes": "x", "classes": []}',
    '{"num_classes": 2, "classes": 5}', '{"num_classes": 2, "classes": [1]}', '{"num_classes": 2, "classes": "ab"}',
    '{"num_classes": 2, "classes": [{"id": -7, "name": "a", "color": [1, 2, 3]}]}',
    '{"num_classes": 2, "classes": [{"id": 0, "name": "a", "color": [1, 2, 3000]}]}',
    '{"num_classes": 2, "classes": [{"id": 0, "name": "a", "color": "red"}]}',
    '{"num_classes": 2, "classes": [{"id": 0, "name": "a", "color": [[[1]]]}]}',
    '{"num_classes": 2, "classes": [{"id": 0, "name": "a", "object": {"aspect": [1]}}]}',
    '{"num_classes": 2, "classes": [{"id": 0, "name": "a"}], "objects": [9]}',
    '{"num_classes": 2, "classes": [{"id": 0, "name": "a"}], "ignore_id": "none"}',
    "[" * 100_000, "\xff\xfe", '{"num_classes": 2, "classes": [',
)  # fmt: skip


@pytest.mark.fault(
    "15", "a classes.json of odd or damaged content", sees="the file, what is wrong in it, and where its form stands"
)
def test_class_tables(ledger, tmp_path: Path) -> None:
    path = tmp_path / CLASSES_FILE
    whole = json.dumps(
        {"num_classes": 3, "classes": [{"id": i, "name": f"c{i}", "color": [1, 2, 3]} for i in range(3)]}
    )
    rng = random.Random(0)
    for attempt in ledger.attempts(500, quick=len(ODD_TABLES) + 10):
        with attempt as number:
            text = ODD_TABLES[number] if number < len(ODD_TABLES) else whole[: rng.randrange(len(whole))]
            path.write_text(text, encoding="latin-1")
            with pytest.raises(UserError, match=r"classes.json: not a class table"):
                read_class_table(path)


LINE = {
    "metrics": {"l1": 1.0},
    "details": {"l1": {"unit": ""}},
    "step": 3,
    "task": "free_form",
    "protocol": {"run": "a"},
}


@pytest.mark.fault(
    "15", "damaged lines in metrics.jsonl and stats.jsonl", sees="file and line, or the log goes on without it"
)
def test_damaged_lines(ledger, tmp_path: Path) -> None:
    rng = random.Random(1)
    for attempt in ledger.attempts(200, quick=20):
        with attempt:
            line = bytearray(json.dumps(LINE).encode())
            for _ in range(rng.randrange(1, 4)):
                line[rng.randrange(len(line))] = rng.randrange(256)
            path = tmp_path / "metrics.jsonl"
            path.write_bytes(json.dumps(LINE).encode() + b"\n" + bytes(line) + b"\n" + b"[" * 10_000 + b"\n")
            with pytest.raises(UserError, match=r"metrics.jsonl, line [23]"):
                last_line(path, "free_form", {})
            with pytest.raises(UserError, match=r"metrics.jsonl"):
                read_lines([str(path)])
            path.write_bytes(bytes(line) + b"\n")
            try:
                summarise(read_lines([str(path)]))
            except UserError as error:
                assert "metrics.jsonl" in str(error) or "one measurement" in str(error)
            stats = tmp_path / "stats.jsonl"
            stats.write_bytes(b'{"step": 1}\n' + bytes(line) + b'\n{"step": "x"}\n\xff\n{"step": 9}\n{"step"')
            Logger(tmp_path, enabled=True, tensorboard=False, start_step=2).close()
            assert json.loads(stats.read_text().splitlines()[0]) == {"step": 1}
            assert '"step": 9' not in stats.read_text()


def test_what_a_shared_run_names_for_removal_stays(tmp_path: Path) -> None:
    precious = tmp_path / "precious.png"
    precious.touch()
    results = tmp_path / "run" / "results"
    results.mkdir(parents=True)
    (results / "own.png").touch()
    (results / MARKER).write_text(f"../../precious.png\n{precious}\n..\nown.png\n")
    clear_earlier(results)
    assert precious.exists()
    assert not (results / "own.png").exists()
    (results / ".pictures").touch()
    (results / "fake").symlink_to(tmp_path)
    with pytest.raises(UserError, match="is a link"):
        ResultFolder(results, count=1, palette=None)  # type: ignore[arg-type]
    assert precious.exists()
