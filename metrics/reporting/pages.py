"""Documents whose numbers are those of files: tables and figures in the text, written from the ledger and checked.

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`, a figure before `<!-- TABLE/ROW/COLUMN -->`.
How a table looks is said in docs/results.yaml; one that is not named there has all its rows and columns.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from metrics.registry import METRICS, arrow
from metrics.reporting.ledger import FIELDS, LEADERBOARD_FILE, LEDGER_FILE, Number, leaderboard_numbers, read_ledger
from metrics.reporting.table import markdown_rows
from util.errors import UserError
from util.text_files import load_yaml

LAYOUT_FILE = "results.yaml"
TABLE = re.compile(r"(?P<begin><!-- table: (?P<name>\w+) -->\n)(?P<body>.*?)(?P<end><!-- end of table -->)", re.DOTALL)
FIGURE = re.compile(r"(?P<figure>-?[\d,]*\d(?:\.(?P<decimals>\d+))?)<!-- (?P<key>[^<>\n]+/[^<>\n]+) -->")
NEITHER = f"of neither {LEDGER_FILE} nor {LEADERBOARD_FILE}"


class Cells:
    """Numbers by their keys, and which of them were asked for."""

    def __init__(self, numbers: Iterable[Number]) -> None:
        self.numbers = {number.key: number for number in numbers}
        self.used: set[str] = set()

    def find(self, key: str) -> Number | str | None:
        """Return a number, or a field of one (`<key>.spread`)."""
        number, field = self.numbers.get(key), ""
        if number is None:
            key, _, field = key.rpartition(".")
            number = self.numbers.get(key)
        if number is None or field not in ("", *FIELDS):
            return None
        self.used.add(key)
        found: Number | str = getattr(number, field) if field else number
        return found


class Template(string.Formatter):
    """Fills texts as `str.format` does, with a row's numbers by their columns and any other by its key."""

    def __init__(self, cells: Cells, row: str = "") -> None:
        self.cells, self.row = cells, row

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Number | str, str]:
        """Return what stands in a pair of braces; raises `KeyError` for a number that is not known."""
        own = f"{self.row}/{field_name}"
        for key in (own, field_name):
            if (found := self.cells.find(key)) is not None:
                return found, field_name
        raise KeyError(own)

    def knows_any(self, text: str) -> bool:
        """Return whether any of a text's numbers is known."""
        for _, field, _, _ in self.parse(text):
            with suppress(KeyError):
                if field is not None and self.get_field(field, (), {}):
                    return True
        return False


def documents(docs: Path) -> list[Path]:
    """Return the Markdown files that may show numbers: those of the folder and of the one around it."""
    return sorted([*docs.resolve().parent.glob("*.md"), *docs.resolve().glob("*.md")])


def read_layout(path: Path) -> dict[str, Any]:
    """Return how tables look, by their names; raises `UserError` for what says nothing, or is of the wrong kind."""
    try:
        layout = (load_yaml(path) if path.is_file() else None) or {}
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if not isinstance(layout, dict) or not all(isinstance(name, str) for name in layout):
        raise UserError(f"{path}: it should hold tables by their names")
    for name, entry in layout.items():
        if not isinstance(entry, dict) or entry.keys() - {"rows", "columns", "first"}:
            raise UserError(f"{path}: {name}: `rows`, `columns` and `first` are what can be said of a table")
        columns, rows = entry.get("columns", {}), entry.get("rows", [])
        if not isinstance(columns, dict) or not _texts([*columns, *columns.values()]):
            raise UserError(f"{path}: {name}: `columns` should be texts by their heads")
        if not isinstance(rows, list | dict) or not _texts([*rows, *(rows.values() if isinstance(rows, dict) else ())]):
            raise UserError(f"{path}: {name}: `rows` should be a list of rows, or rows by their labels")
    return layout


def _texts(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


class Pages:
    """The documents as the ledger's numbers make them.

    Args:
        docs: folder with the ledger, the layout and documents.
        numbers: in the place of the ledger's.

    Raises:
        UserError: a document shows what no file holds.
    """

    def __init__(self, docs: Path, numbers: Sequence[Number] | None = None) -> None:
        self.ledger = docs / LEDGER_FILE
        self.numbers = read_ledger(self.ledger) if numbers is None else list(numbers)
        self.layout = read_layout(docs / LAYOUT_FILE)
        self.cells = Cells([*leaderboard_numbers(docs / LEADERBOARD_FILE), *self.numbers])
        self.placed: set[str] = set()
        self.texts = {path: self._render(path) for path in documents(docs)}
        if unplaced := sorted(self.layout.keys() - self.placed):
            raise UserError(f"{docs / LAYOUT_FILE}: no document shows {', '.join(unplaced)}: {place(unplaced[0])}")

    def unused(self) -> list[Number]:
        """Return the numbers that no document shows."""
        return [number for number in self.numbers if number.key not in self.cells.used]

    def check(self) -> None:
        """Raise `UserError` with the first line of a document that the ledger does not give."""
        for path, text in self.texts.items():
            require_given(path, text, "python scripts/ledger.py write")
        if unused := self.unused():
            raise UserError(f"{self.ledger}: {unused[0].key}: no document shows it: python scripts/ledger.py write")

    def _render(self, path: Path) -> str:
        text = path.read_text(encoding="utf-8")
        text = TABLE.sub(lambda found: found["begin"] + self._table(path, found["name"]) + found["end"], text)
        return FIGURE.sub(lambda found: self._figure(path, found), text)

    def _figure(self, path: Path, found: re.Match[str]) -> str:
        key, decimals = found["key"], len(found["decimals"] or "")
        comma = "," if "," in found["figure"] else ""
        try:
            shown = Template(self.cells).format(f"{{{key}:{comma}.{decimals}f}}")
        except KeyError:
            raise UserError(f"{path}: {found[0]}: {key} is a number {NEITHER}") from None
        except ValueError as error:
            raise UserError(f"{path}: {found[0]}: {error}") from error
        return f"{shown}<!-- {key} -->"

    def _table(self, path: Path, name: str) -> str:
        self.placed.add(name)
        rows = list(dict.fromkeys(number.row for number in self.numbers if number.table == name))
        entry = self.layout.get(name, {})
        asked = entry.get("rows", rows)
        prefixes = asked if isinstance(asked, dict) else {row: f"{name}/{row}" for row in asked}
        columns = entry.get("columns") or self._all_columns(name)
        head = [str(entry.get("first", "")), *columns]
        body = []
        for label, prefix in prefixes.items():
            filler, where = Template(self.cells, prefix), f"{path}: {name}, {label}"
            cells = [self._cell(filler, text, where) for text in columns.values()]
            if not any(cells):
                raise UserError(f"{path}: {name}, {label}: a row {NEITHER}")
            body.append([label, *cells])
        if not body:
            return ""
        return "".join(f"{line}\n" for line in markdown_rows([head, ["---"] * len(head), *body]))

    def _all_columns(self, name: str) -> dict[str, str]:
        """Return a template for each column of a table, in the order of --metrics."""
        found = dict.fromkeys(number.column for number in self.numbers if number.table == name)
        order = {metric: place for place, metric in enumerate(METRICS.names())}
        chosen = sorted(found, key=lambda column: order.get(METRICS.asked_name(column), len(order)))
        return {f"{each} {arrow(each)}" if METRICS.value(each) else each: f"{{{each}}}" for each in chosen}

    @staticmethod
    def _cell(filler: Template, text: str, where: str) -> str:
        """Fill a cell's text; one of which no number is known is empty."""
        try:
            return filler.format(text) if filler.knows_any(text) else ""
        except KeyError as error:
            raise UserError(f"{where}: {text!r} needs {error}, a number {NEITHER}") from None
        except ValueError as error:
            raise UserError(f"{where}: {text!r}: {error}") from error


def place(table: str) -> str:
    """Say how a document makes room for a table."""
    return f"put `<!-- table: {table} -->` and `<!-- end of table -->` on lines of their own where it should stand"


def require_given(path: Path, text: str, command: str) -> None:
    """Raise `UserError` with the first line of a file that is not the text, and the command that writes it."""
    wanted = text.splitlines()
    found = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    lines = zip([*found, *[""] * len(wanted)], [*wanted, *[""] * len(found)], strict=False)
    for number, (there, given) in enumerate(lines, start=1):
        if there != given:
            raise UserError(f"{path}, line {number}: its files do not give this: {there[:200]!r}; they give "
                            f"{given[:200]!r}: run {command}")  # fmt: skip
