"""The ledger: every number that the documents show, with what it was measured by, in docs/results.csv."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from metrics.registry import METRICS
from metrics.reporting.protocol import Line, columns
from metrics.reporting.table import format_interval, format_number
from util.errors import UserError

LEDGER_FILE, LEADERBOARD_FILE = "results.csv", "leaderboard.csv"
NOT_REPEATABLE = "not repeatable: "  # in the place of a command, before the reason
NO_MASKS = "none: "  # in the place of a mask set, before the reason
NEEDED = ("table", "row", "column", "unit", "protocol", "machine")
NAMES = {"table": r"\w+", "row": r"[^<>{}\n]+", "column": r"[^<>{}:!\n]+"}  # which documents and templates can quote
LEAST_DIGITS = 4  # decimals that are written of a number of which all digits are known


class Figure(str):
    """A number as it was written down, which shows no more decimals than are known; "" where there is none."""

    __slots__ = ()

    @property
    def decimals(self) -> int:
        """How many are known."""
        exponent = Decimal(self).as_tuple().exponent
        return max(-exponent, 0) if isinstance(exponent, int) else 0

    def __format__(self, spec: str) -> str:
        if spec and not self:
            raise ValueError("no such number is known, only its range, or none: leave the format out")
        asked = re.search(r"\.(\d+)f$", spec)
        if asked and int(asked[1]) > self.decimals:
            raise ValueError(f"{self} is not known to {asked[1]} decimals")
        return format(float(self), spec) if spec else str(self)

    @classmethod
    def of(cls, number: float | None) -> Figure:
        """Return a number of which all digits are known."""
        if number is None:
            return cls("")
        text = cls(repr(float(number)))
        return text if text.decimals >= LEAST_DIGITS else cls(f"{number:.{LEAST_DIGITS}f}")


@dataclass(frozen=True)
class Number:
    """A line of the ledger.

    Args:
        table, row, column: where the number stands; a table is known by its name in the documents.
        value: of one run, or the mean of several; "" for a range.
        low, high: ends of the 95 % interval over pictures, or of the range.
        spread, seeds: standard deviation over so many runs; one where the value is a single run's.
        unit, pictures: of the value, and how many pictures were measured.
        mask_set: the masks' hash, or "none: " and the reason.
        protocol: how it was measured.
        hashes: of the weights that it was measured with.
        commit, date, machine: what it was measured at, when and on what.
        command: makes it again; or "not repeatable: " and the reason.
    """

    table: str
    row: str
    column: str
    value: Figure
    low: Figure
    high: Figure
    spread: Figure
    seeds: str
    unit: str
    pictures: str
    mask_set: str
    protocol: str
    hashes: str
    commit: str
    date: str
    machine: str
    command: str

    @property
    def key(self) -> str:
        """By which documents name it."""
        return f"{self.table}/{self.row}/{self.column}"

    def __format__(self, spec: str) -> str:
        if spec:
            return format(self.value, spec)
        if not self.value:
            return f"{self.low} to {self.high}"
        around = f" +- {_plain(self.spread)}" if self.spread else ""
        if not around and self.low:
            around = format_interval((float(self.low), float(self.high)))
        return _plain(self.value) + around

    def fault(self) -> str:
        """Return what the ledger does not take; "" for a number that it does."""
        for name in FIGURES:
            if not re.fullmatch(r"(-?\d+(\.\d+)?(e[+-]?\d+)?)?", getattr(self, name)):
                return f"{name} {getattr(self, name)!r} is no number"
        if not self.value and not (self.low and self.high):
            return "neither a value nor the two ends of a range"
        if empty := [name for name in NEEDED if not getattr(self, name)]:
            return f"{empty[0]} is empty"
        for name, names in NAMES.items():
            if not re.fullmatch(names, getattr(self, name)):
                return f"{name} {getattr(self, name)!r} cannot be named in a document: take letters, digits and spaces"
        if not re.search(r"^(not repeatable: .|.*\b(python|make|torchrun) )", self.command):
            return f"no command ({self.command!r}): a line that can be run, or '{NOT_REPEATABLE}' and the reason"
        if not re.fullmatch(r"[0-9a-f]{7,40}\+?", self.commit) or not re.fullmatch(r"\d{4}-\d\d-\d\d", self.date):
            return f"commit {self.commit!r} and date {self.date!r} are not those of a measurement"
        measured = METRICS.value(self.column) is not None
        if measured and not re.fullmatch(rf"[0-9a-f]{{12}}|{NO_MASKS}.+", self.mask_set):
            return f"mask_set {self.mask_set!r}: a metric needs the masks' hash, or '{NO_MASKS}' and the reason"
        return ""


FIELDS = tuple(field.name for field in fields(Number))
FIGURES = ("value", "low", "high", "spread")


def _plain(figure: Figure) -> str:
    """Return a figure with as many decimals as tables show, or as are known."""
    shown = format_number(float(figure))
    return shown if Figure(shown).decimals <= figure.decimals else str(figure)


def numbers_of(
    line: Line,
    *,
    table: str,
    row: str,
    command: str,
    date: str,
    machine: str,
    seeds: int = 1,
    commit: str | None = None,
) -> list[Number]:
    """Return the numbers of a result line.

    Values that a metric tells beside its own, of the real pictures or of the source unchanged, are columns of their
    own: `<metric>_real` and `<metric>_unchanged`.

    Args:
        line: of `metrics.reporting.result.result_line`, or a mean of such lines.
        table, row: where they stand.
        command, date, machine: what made them, when and on what.
        seeds: of how many runs the line is the mean.
        commit: in the place of the line's own.
    """
    protocol, found = line["protocol"], []
    where = ", ".join(
        str(protocol[name]) + unit
        for name, unit in (("dataset_mode", ""), ("split", ""), ("crop_size", " pixels"))
        if protocol.get(name) is not None
    )
    step = "" if line["step"] is None else f"; step {line['step']}"
    seed = "" if protocol.get("seed") is None else f", seed {protocol['seed']}"
    for column, name in columns(line).items():
        detail: dict[str, Any] = dict(line.get("details", {}).get(name, {}))
        low, high = detail.get("ci95", (None, None))
        hashed = [key.removesuffix("_sha256") for key, sha in detail.items() if key.endswith("_sha256") and sha]
        facts: dict[str, Any] = {
            "unit": str(detail.get("unit", "")),
            "pictures": str(detail.get("count", line.get("num_images", ""))),
            "mask_set": protocol.get("mask_set") or f"{NO_MASKS}whole pictures",
            "protocol": f"{detail.get('protocol')}; {line['task']}: {where}{seed}{step}",
            "hashes": ", ".join(f"{detail.get(key) or key} {detail[f'{key}_sha256'][:12]}" for key in hashed),
            "commit": commit or str(protocol.get("commit") or ""),
            "date": date,
            "machine": f"{machine}; torch {torch}" if (torch := protocol.get("versions", {}).get("torch")) else machine,
            "command": command,
        }
        spread = line["spread"][name] if seeds > 1 else None
        ends = {"low": Figure.of(low), "high": Figure.of(high), "spread": Figure.of(spread)}
        found.append(Number(table, row, column, Figure.of(line["metrics"][name]), **ends, seeds=str(seeds), **facts))
        none = {key: Figure("") for key in ends}
        found += [
            Number(table, row, f"{column}_{key}", Figure.of(detail[key]), **none, seeds="", **facts)
            for key in ("real", "unchanged")
            if isinstance(detail.get(key), int | float)
        ]
    return found


def read_ledger(path: Path) -> list[Number]:
    """Return the ledger's numbers; raises `UserError` with the line of one that is incomplete or stands there twice."""
    if not path.is_file():
        return []
    found: dict[str, Number] = {}
    for line, cells in _cells(path, FIELDS):
        number = _number(cells)
        if why := "stands there twice" if number.key in found else number.fault():
            raise UserError(f"{path}, line {line}: {number.key}: {why}")
        found[number.key] = number
    return list(found.values())


def leaderboard_numbers(path: Path) -> list[Number]:
    """Return what documents may quote of the leaderboard: its values by board, method and metric."""
    if not path.is_file():
        return []
    names = {"table": "board", "row": "method", "column": "metric", "value": "value", "low": "low", "high": "high"}
    return [_number({ours: row[theirs] for ours, theirs in names.items()}) for _, row in _cells(path, names.values())]


def _cells(path: Path, names: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number and the cells, by column, of each line; raises `UserError` for a file that lacks some."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in names if name not in (reader.fieldnames or ())]:
                raise UserError(f"{path}, line 1: the column {missing[0]} is missing")
            for cells in reader:
                if None in cells or None in cells.values():
                    raise UserError(f"{path}, line {reader.line_num}: has not as many cells as there are columns")
                yield reader.line_num, cells
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no table can be read ({error})") from error


def _number(cells: Mapping[str, str]) -> Number:
    """Return a number of a line's cells; what it lacks is empty."""
    texts: dict[str, Any] = {name: cells.get(name, "") for name in FIELDS}
    return Number(**{name: Figure(text) if name in FIGURES else text for name, text in texts.items()})


def to_csv(numbers: Iterable[Number]) -> str:
    """Return the ledger's text; raises `UserError` for a number that it does not take."""
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n")
    writer.writeheader()
    for number in numbers:
        if why := number.fault():
            raise UserError(f"{number.key}: {why}")
        writer.writerow(asdict(number))
    return out.getvalue()


def enter(numbers: Sequence[Number], new: Sequence[Number], outdated: Collection[tuple[str, str]] = ()) -> list[Number]:
    """Return the ledger with new rows, each in the place of the row of that name or at the end of its table.

    Args:
        numbers, new: of the ledger, and the new ones.
        outdated: tables and rows that the new ones take the place of, too.
    """
    places = {(number.table, number.row) for number in new} | {*outdated}
    rows: dict[tuple[str, str], list[Number]] = {}
    for number in numbers:
        known = rows.setdefault((number.table, number.row), [])
        known += [] if (number.table, number.row) in places else [number]
    for number in new:
        rows.setdefault((number.table, number.row), []).append(number)
    tables = list(dict.fromkeys(table for table, _ in rows))
    return [number for table in tables for (name, _), row in rows.items() if name == table for number in row]
