"""Tables of published and own numbers as Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from metrics.differences import verdicts
from metrics.influence import LEVEL
from metrics.registry import METRICS, arrow
from metrics.reporting.protocol import Line, columns, describe_protocol, require_one_protocol

CSV_HEAD = (
    "group", "task", "row", "label", "metric", "published", "ours", "difference", "status", "pictures", "step",
    "protocol", "provenance", "notes", "low", "high", "certainty", "deviation",
)  # fmt: skip


TIE = " ="


@dataclass(frozen=True)
class Entry:
    """A row of a table.

    Args:
        name, label: the run and what the table calls it.
        line: the run's result, or None.
        status: "done", or what the table says instead of numbers or beside them ("not run", "step 3 of 9").
        published: metric -> value, for this table's task.
        published_as: metric, or "all" -> field of a line -> value that these were measured with, or metric -> why no
            line can agree; a difference is told where the run's line has the same.
        provenance: where these were read.
        notes: sentences for the foot of the table.
        with_spread: tell the deviation beside the run's number, which is a mean over seeds.
    """

    name: str
    label: str
    line: Line | None
    status: str
    published: Mapping[str, float]
    provenance: str = ""
    notes: list[str] = field(default_factory=list)
    published_as: Mapping[str, Mapping[str, Any] | str] = field(default_factory=dict)
    with_spread: bool = False

    def difference(self, column: str, metric: str) -> float | None:
        """Return ours - published where both are known and nothing says that they were measured otherwise."""
        ours, published = self.ours(column), self.published.get(metric)
        if ours is None or published is None or self.otherwise(column, metric):
            return None
        return ours - published

    def otherwise(self, column: str, metric: str) -> list[str]:
        """Return in which fields the run's line is not as the published number was measured."""
        if self.line is None:
            return []
        detail = self.line.get("details", {}).get(columns(self.line).get(column), {})
        found = {**self.line["protocol"], "num_images": self.line.get("num_images"), **detail}
        reasons = []
        for wanted in (self.published_as.get("all", {}), self.published_as.get(metric, {})):
            if isinstance(wanted, str):
                reasons.append(f"published {wanted}")
                continue
            other = {name: value for name, value in wanted.items() if str(found.get(name)) != str(value)}
            reasons += [f"{name}: published {value}, ours {found.get(name)}" for name, value in other.items()]
        return reasons

    def ours(self, column: str) -> float | None:
        """Return the run's number, or None."""
        if self.line is None or column not in (names := columns(self.line)):
            return None
        return float(self.line["metrics"][names[column]])

    def spread(self, column: str) -> float | None:
        """Return the standard deviation over seeds, or None."""
        if not self.with_spread or self.line is None or column not in (names := columns(self.line)):
            return None
        return float(self.line["spread"][names[column]])

    def interval(self, column: str) -> list[float] | None:
        """Return the ends of the 95 % interval around the run's number, or None."""
        if self.line is None or column not in (names := columns(self.line)):
            return None
        found: list[float] | None = self.line.get("details", {}).get(names[column], {}).get("ci95")
        return found


class Table:
    """Rows of one group under one task.

    Raises:
        UserError: their results were not measured under one protocol.
    """

    def __init__(self, *, group: str, task: str, entries: Sequence[Entry]) -> None:
        self.group, self.task, self.entries = group, task, list(entries)
        self.lines = {entry.name: entry.line for entry in entries if entry.line is not None}
        require_one_protocol(self.lines, self.heading)
        names = {column: name for line in self.lines.values() for column, name in columns(line).items()}
        self.verdicts = {column: verdicts(self.lines, name) for column, name in names.items()}

    @property
    def heading(self) -> str:
        """Title of the table."""
        return f"{self.group}, {self.task}" if self.group else self.task

    @property
    def columns(self) -> dict[str, str]:
        """Columns, published ones included, in the order of --metrics: {column: published metric or ""}."""
        ours = list(dict.fromkeys(column for line in self.lines.values() for column in columns(line)))
        chosen = dict.fromkeys(ours, "")
        for metric in dict.fromkeys(metric for entry in self.entries for metric in entry.published):
            alike = [column for column in ours if METRICS.gives(metric, column)]
            chosen[metric if metric in alike or not alike else alike[0]] = metric
        order = {metric: place for place, metric in enumerate(METRICS.names())}
        return dict(sorted(chosen.items(), key=lambda item: order.get(METRICS.asked_name(item[0]), len(order))))

    def full_name(self, column: str) -> str:
        """Return the metric's name with its segmenter."""
        names = (columns(line).get(column) for line in self.lines.values())
        return next((name for name in names if name), column)

    def cells(self, bold: tuple[str, str]) -> list[list[str]]:
        """Return the head and all rows as text; `bold` is put around what is certainly the best of its column."""
        head = [""]
        for column, metric in self.columns.items():
            name = f"{self.full_name(column)} {arrow(column)}"
            head += [f"{name} published", f"{name} ours", "difference"] if metric else [name]
        body = [self._row(entry, bold) for entry in self.entries]
        return [[*head, "pictures", "step"], *body]

    def _row(self, entry: Entry, bold: tuple[str, str]) -> list[str]:
        row = [entry.label]
        for column, metric in self.columns.items():
            ours, published = entry.ours(column), entry.published.get(metric)
            verdict = self.verdicts.get(column, {}).get(entry.name)
            number = format_number(ours).join(bold if verdict == "best" else ("", TIE if verdict == "tie" else ""))
            number += format_spread(entry.spread(column)) + format_interval(entry.interval(column))
            if metric:
                row += [as_published(published), number, format_number(entry.difference(column, metric), "+")]
            else:
                row.append(number)
        if entry.line is None:
            return [*row, entry.status, ""]
        return [*row, str(entry.line["num_images"]), _step(entry.line)]

    def foot(self) -> list[str]:
        """Return protocol, provenance and notes, a sentence each."""
        sentences = []
        if self.lines:
            widest = max(self.lines.values(), key=lambda line: len(line["metrics"]))
            sentences += [f"Protocol: {text}" for text in describe_protocol(widest)]
        if any(self.verdicts.values()):
            sentences.append(
                f"Bold: certainly better than every other row (paired t-test, p < {1 - LEVEL:.2f}); {TIE.strip()}: not "
                "certainly worse than the best"
            )
        sentences += [f"Published, {entry.label}: {entry.provenance}" for entry in self.entries if entry.published]
        if self.lines and any(entry.published for entry in self.entries):
            sentences.append("The published mask set and segmenter are not known: a difference is no test of equality")
            sentences += self._measured_otherwise()
        return sentences + [f"{entry.label}: {note}" for entry in self.entries for note in entry.notes]

    def _measured_otherwise(self) -> list[str]:
        """Return why differences are missing: for which metrics, and what was measured otherwise."""
        reasons: dict[str, dict[str, None]] = {}
        for entry in self.entries:
            for column, metric in self.columns.items():
                if entry.published.get(metric) is not None and entry.ours(column) is not None:
                    for reason in entry.otherwise(column, metric):
                        reasons.setdefault(reason, {})[column] = None
        return [f"No difference is told for {', '.join(names)}: {why}" for why, names in reasons.items()]


def _step(line: Line) -> str:
    return "" if line["step"] is None else str(line["step"])  # anybody's pictures tell none


def format_number(value: float | None, sign: str = "") -> str:
    """Return two decimals, four below 1; nothing for None."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return str(value)
    return f"{value:{sign}.4f}" if abs(value) < 1 else f"{value:{sign}.2f}"


def format_interval(ends: Sequence[float] | None) -> str:
    """Return the ends in brackets; nothing for None."""
    return "" if ends is None else " [{}, {}]".format(*map(format_number, ends))


def format_spread(deviation: float | None) -> str:
    """Return a standard deviation after its sign; nothing for None."""
    return "" if deviation is None else f" +- {format_number(deviation)}"


def as_published(value: float | None) -> str:
    """Format a published number with at least two decimals and no digit beyond the source's."""
    if value is None:
        return ""
    return f"{value:.2f}" if value == round(value, 2) else str(value)


def markdown_rows(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; the second row holds its alignment."""
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


def to_markdown(tables: Sequence[Table], *, title: str, paper: str) -> str:
    """Return a section with a table per group and task."""
    parts = [f"## {title}", *([paper] if paper else [])]
    for table in tables:
        head, *body = table.cells(("**", "**"))
        rows = [head, ["---", *["---:"] * (len(head) - 1)], *body]
        parts += [f"### {table.heading}", "\n".join(markdown_rows(rows))]
        parts += ["\n".join(f"- {text}" for text in table.foot())] if table.foot() else []
    return "\n\n".join(parts) + "\n"


def to_latex(tables: Sequence[Table], *, title: str, paper: str) -> str:
    """Return a `table` environment per group and task; it needs no package."""
    parts = [f"% {line}" for line in f"{title}\n{paper}".strip().splitlines()]
    for table in tables:
        rows = table.cells(_BOLD)
        head, *body = [" & ".join(map(_tex, row)) + r" \\" for row in rows]
        parts += [
            r"\begin{table}",
            rf"\caption{{{_tex(title)}: {_tex(table.heading)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}",
            r"\hline", head, r"\hline", *body, r"\hline",
            r"\end{tabular}",
            *(rf"\par\footnotesize {_tex(text)}" for text in table.foot()),
            r"\end{table}",
        ]  # fmt: skip
    return "\n".join(parts) + "\n"


def to_csv(tables: Sequence[Table], *, title: str, paper: str) -> str:
    """Return a line per group, task, row and metric, all digits kept; title and paper are left to the other formats."""
    del title, paper
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for table in tables:
        for entry in table.entries:
            line = entry.line
            facts = [line["num_images"], _step(line)] if line else ["", ""]
            protocol = " | ".join(describe_protocol(line)) if line else ""
            for column, metric in (table.columns or {"": ""}).items():
                ours, published = entry.ours(column), entry.published.get(metric)
                name = table.full_name(column)
                numbers = [published, ours, entry.difference(column, metric)]
                where = entry.provenance if published is not None else ""
                writer.writerow([table.group, table.task, entry.name, entry.label, name, *numbers, entry.status,
                                 *facts, protocol, where, " | ".join(entry.notes),
                                 *(entry.interval(column) or ("", "")),
                                 table.verdicts.get(column, {}).get(entry.name, ""),
                                 entry.spread(column)])  # fmt: skip
    return out.getvalue()


_BOLD = ("\x02", "\x03")
_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "↓": r"$\downarrow$",
        "↑": r"$\uparrow$", "<": "$<$", ">": "$>$", "|": "$|$", **{c: f"\\{c}" for c in "&%$#_{}"},
        _BOLD[0]: r"\textbf{", _BOLD[1]: "}"}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


FORMATS = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv}
