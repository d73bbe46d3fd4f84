"""The leaderboard: result lines kept in files, and the pages made of nothing but these.

A board holds the rows of one data set, size and task; `<board>.jsonl` has a line per row: method, date, cost and the
result, without what a table does not read.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metrics.differences import INFLUENCE, Difference, differences
from metrics.registry import METRICS, arrow
from metrics.reporting.protocol import Line, columns, describe_protocol, require_one_protocol
from metrics.reporting.table import format_interval, format_number, markdown_rows
from util.errors import UserError
from util.listing import entries, is_file_name
from util.text_files import parse_json

PARTS = ("metrics", "details", "step", "task", "num_images", "protocol")  # of a result that are kept
OF_PROTOCOL = (
    "run", "model", "baseline", "as_run", "pack", "dataset_mode", "split", "split_size", "left_out", "mask_set", "seed",
    "draw", "crop_size", "load_size", "reference", "real_set", "weights", "precision", "pasted_known", "style_source",
    "test_cuts", "object_classes", "removal", "cpu_seconds_per_picture", "commit",
)  # fmt: skip
CSV_HEAD = (
    "board", "method", "metric", "value", "low", "high", "unit", "better", "pictures", "mask_set", "date", "commit",
    "cost", "protocol", "against", "difference", "difference_low", "difference_high", "p",
)  # fmt: skip
TIE = "≈"  # beside a value that is not certainly another than the column's best
HEAD = """# Leaderboard

Made by `python scripts/leaderboard.py write` from the result lines in `docs/leaderboard/*.jsonl` and from nothing else:
a test compares. All rows of a board have one protocol ([what every value means](protocols.md)): pictures, masks,
segmenter, units. In brackets 95 % intervals over pictures. The best value of a column is bold; ≈ marks those that are
not certainly worse: the interval of their difference on the same pictures holds 0. Where a row was measured without
what that takes, nothing is marked. `leaderboard.csv` has every value with all digits, and its difference from the best.

To add a row: make the pack (the command is below each board), let a method fill it, then

```
python scripts/import_results.py pack RESULTS --name Theirs --segmenter NAME --intervals --leaderboard "8 h"
```

`--leaderboard` says what the row cost; `python scripts/leaderboard.py add RESULT --method Theirs --cost "8 h"` adds the
`result.json` of any test. Kept of a result are its values, intervals, each picture's influence on them (for the
differences), protocol and hashes of weights; no picture.
"""


@dataclass(frozen=True)
class BoardRow:
    """A row: the name of its method, the day it was measured, what it cost, its result line."""

    method: str
    date: str
    cost: str
    line: Line

    def to_json(self) -> str:
        """Return the row's line in a file."""
        return json.dumps({"method": self.method, "date": self.date, "cost": self.cost, "result": self.line})


def kept_line(line: Line) -> dict[str, Any]:
    """Return what is kept of a result line; raises `UserError` if it is none of a task with masks."""
    if not {*PARTS} <= line.keys() or not line["protocol"].get("mask_set") or not line["protocol"].get("crop_size"):
        raise UserError(
            "not a result under known masks: a row needs the result.json of test.py, scripts/import_results.py or "
            "scripts/baselines.py"
        )
    if not is_file_name(board_of(line)):
        raise UserError(f"its data set, size and task make no file's name: {board_of(line)!r}; measure it again")
    protocol = {name: line["protocol"][name] for name in OF_PROTOCOL if name in line["protocol"]}
    details = {
        name: {key: value for key, value in detail.items() if key == "ci95" or not isinstance(value, dict | list)}
        for name, detail in line["details"].items()
    }
    influence = {INFLUENCE: line[INFLUENCE]} if INFLUENCE in line else {}
    return {**{part: line[part] for part in PARTS}, "protocol": protocol, "details": details, **influence}


def board_of(line: Line) -> str:
    """Return the name of the board that a line belongs to."""
    protocol = line["protocol"]
    return f"{protocol['dataset_mode']}_{protocol['crop_size']}_{line['task']}"


def read_boards(folder: Path) -> dict[str, list[BoardRow]]:
    """Return the rows of every board, by its name.

    Raises:
        UserError: a line is no row, lies in another board's file, stands there twice, or was not measured as others.
    """
    boards = {}
    for path in (path for path in entries(folder) if path.suffix == ".jsonl"):
        rows = [_read_row(path, i, text) for i, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)]
        check_board(path.stem, rows)
        if rows:
            boards[path.stem] = rows
    return dict(sorted(boards.items()))


def _read_row(path: Path, number: int, text: str) -> BoardRow:
    try:
        row = parse_json(text)
        return BoardRow(str(row["method"]), str(row["date"]), str(row["cost"]), kept_line(row["result"]))
    except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"{path}, line {number}: no row of a leaderboard ({error}); remove the line") from error


def check_board(name: str, rows: Sequence[BoardRow]) -> None:
    """Raise `UserError` if rows are of another board, of one method, or not measured alike."""
    for row in rows:
        if board_of(row.line) != name:
            raise UserError(f"{row.method}: a result of {board_of(row.line)} in the board {name}")
    methods = [row.method for row in rows]
    if twice := sorted({method for method in methods if methods.count(method) > 1}):
        raise UserError(f"{name}: {', '.join(twice)} stands there twice; --replace takes the newer one alone")
    require_one_protocol({row.method: row.line for row in rows}, name)


def render(boards: Mapping[str, Sequence[BoardRow]]) -> tuple[str, str]:
    """Return the pages as Markdown and CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    parts = [HEAD]
    for name, unsorted in boards.items():
        rows = sorted(unsorted, key=_order)
        parts.append(_markdown(name, rows))
        for row in rows:
            writer.writerows(_csv_rows(name, row, best_rows(rows)))
    return "\n".join(parts), out.getvalue()


def _order(row: BoardRow) -> tuple[float, str]:
    return float(row.line["metrics"].get("fid", float("inf"))), row.method


def best_rows(rows: Sequence[BoardRow]) -> dict[str, BoardRow]:
    """Return the row with the best value of each metric, by its full name."""
    best: dict[str, BoardRow] = {}
    for row in rows:
        for name, value in row.line["metrics"].items():
            other = best[name].line["metrics"][name] if name in best else None
            if other is None or (value < other if arrow(name) == "↓" else value > other):
                best[name] = row
    return best


def _csv_rows(board: str, row: BoardRow, best: Mapping[str, BoardRow]) -> list[list[Any]]:
    protocol = row.line["protocol"]
    found = []
    for name, value in row.line["metrics"].items():
        detail = row.line["details"][name]
        low, high = detail.get("ci95", ("", ""))
        apart = _apart(row, best[name]).get(name)
        against = [best[name].method, apart.value, apart.low, apart.high, apart.p] if apart else [""] * 5
        found.append([board, row.method, name, value, low, high, detail["unit"],
                      "lower" if arrow(name) == "↓" else "higher", detail["count"], protocol["mask_set"], row.date,
                      protocol.get("commit"), row.cost, detail["protocol"], *against])  # fmt: skip
    return found


def _apart(row: BoardRow, best: BoardRow) -> Mapping[str, Difference]:
    return {} if row is best else differences(row.line, best.line)


def _markdown(board: str, rows: Sequence[BoardRow]) -> str:
    names = {column: full for row in rows for column, full in columns(row.line).items()}
    order = {metric: place for place, metric in enumerate(METRICS.names())}
    chosen = sorted(names, key=lambda column: order.get(METRICS.asked_name(column), len(order)))
    head = ["method", *(f"{names[column]} {arrow(column)}" for column in chosen), "date", "commit", "cost"]
    body, best = [], best_rows(rows)
    for row in rows:
        cells = [_cell(row, columns(row.line).get(column), best) for column in chosen]
        commit = str(row.line["protocol"].get("commit") or "")[:8]
        body.append([row.method, *cells, row.date, commit, row.cost])
    table = [head, ["---", *["---:"] * len(chosen), "---", "---", "---"], *body]
    lines = markdown_rows(table)
    widest = max((row.line for row in rows), key=lambda line: len(line["metrics"]))
    foot = [f"- {text}" for text in [f"Pack: `{pack_command(widest)}`", *describe_protocol(widest)]]
    return "\n".join([f"## {board}", "", *lines, "", *foot, ""])


def _cell(row: BoardRow, name: str | None, best: Mapping[str, BoardRow]) -> str:
    if name is None:
        return ""
    number = format_number(row.line["metrics"][name])
    apart = _apart(row, best[name]).get(name)
    marked = f"**{number}**" if row is best[name] else f"{TIE} {number}" if apart and not apart.certain else number
    return marked + format_interval(row.line["details"][name].get("ci95"))


def pack_command(line: Line) -> str:
    """Return the command that makes the pictures of a board's rows."""
    protocol = line["protocol"]
    mode = protocol["dataset_mode"]
    root = "" if mode == "streets" else f" --dataroot datasets/{mode}"
    size = f" --streets_test_size {protocol['split_size']}" if mode == "streets" else ""
    few = protocol["split_size"] - (protocol.get("left_out") or 0) > line["num_images"]
    some = f" --num_images {line['num_images']}" if few else ""
    return (
        f"python scripts/pack_benchmark.py --dataset_mode {mode}{root} --crop_size {protocol['crop_size']} "
        f"--load_size {protocol['load_size']}{size} --split {protocol['split']} --task {line['task']} "
        f"--seed {protocol['seed']}{some} --output pack"
    )
