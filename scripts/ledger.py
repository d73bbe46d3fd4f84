r"""The ledger of all numbers in the documents, docs/results.csv, and the tables that are made of it.

    python scripts/make_table.py experiments/camvid.yaml --ledger camvid
    python scripts/ledger.py add camvid --row "OpenCV, Telea" --result RESULT.json --command "python scripts/..."
    python scripts/ledger.py add speed --row DivSem --values fill=0.91 step=4.99 --unit s \
        --protocol "least wall seconds of 5" --command "python scripts/benchmark.py infer --repeats 5"
    python scripts/ledger.py write
    python scripts/ledger.py check

add enters a row, in the place of one of that name, with commit, date and machine, and writes the documents; the first
form is for whole experiments. A document shows a table between <!-- table: NAME --> and <!-- end of table -->, and a
number before <!-- TABLE/ROW/COLUMN -->; docs/results.yaml says how tables look. What no document shows is not kept.
check says whether the documents are what the ledger gives.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from metrics.reporting.ledger import LEDGER_FILE, Figure, Number, enter, numbers_of, read_ledger, to_csv
from metrics.reporting.pages import Pages, place
from metrics.reporting.summary import read_lines
from options.parser import script_parser
from util.errors import EXIT_OK, UserError, run_main
from util.files import write_text
from util.versions import current_commit, this_machine

DOCS = Path(__file__).resolve().parents[1] / "docs"
OF_VALUES = ("unit", "protocol", "pictures", "mask_set")
OF_ADD = ("row", "result", "values", "command", "commit", "date", *OF_VALUES)
VALUE = re.compile(r"(?P<column>[^=]+)=(?P<value>-?[\d.e+-]*?\d)(?:\+-(?P<spread>[\d.e-]+)/(?P<seeds>\d+))?")


def day_of(path: Path) -> str:
    """Return the day on which a file was written."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()


def today() -> str:
    """Return the day that it is, in UTC."""
    return datetime.now(UTC).date().isoformat()


def given_numbers(args: argparse.Namespace) -> list[Number]:
    """Return the numbers of --values."""
    if not args.unit or not args.protocol:
        raise UserError("--values: --unit and --protocol say what they are and how they were measured")
    found = []
    for text in args.values:
        parts = VALUE.fullmatch(text)
        if parts is None:
            raise UserError(f"--values {text}: COLUMN=NUMBER or COLUMN=MEAN+-DEVIATION/RUNS")
        number = Number(
            args.table, args.row, parts["column"], value=Figure(parts["value"]), low=Figure(""), high=Figure(""),
            spread=Figure(parts["spread"] or ""), seeds=parts["seeds"] or "", unit=args.unit,
            pictures=args.pictures or "", mask_set=args.mask_set or "", protocol=args.protocol, hashes="",
            commit=args.commit or current_commit() or "", date=args.date or today(), machine=args.machine,
            command=args.command,
        )  # fmt: skip
        if why := number.fault():
            raise UserError(f"--values {text}: {why}")
        found.append(number)
    return found


def add(docs: Path, new: Sequence[Number], outdated: Collection[tuple[str, str]] = ()) -> str:
    """Enter rows, without those that are `outdated`, and write the documents; return what was kept.

    Raises:
        UserError: a number is incomplete, or no document has a place for any of the tables.
    """
    entered = enter(read_ledger(docs / LEDGER_FILE), new, outdated)
    pages = Pages(docs, entered)
    unused = set(pages.unused())
    kept = [number for number in new if number not in unused]
    if not kept:
        raise UserError(f"no document has a place for {new[0].table}: {place(new[0].table)}")
    text = to_csv(number for number in entered if number not in unused)  # before anything is written
    write_text(docs / LEDGER_FILE, text)
    write(pages)
    told = []
    for table in dict.fromkeys(number.table for number in new):
        rows = {number.row for number in kept if number.table == table}
        numbers = sum(number.table == table for number in kept)
        told.append(f"{table}: {len(rows)} rows, {numbers} numbers" if rows else f"{table}: not shown; {place(table)}")
    return "\n".join(told)


def write(pages: Pages) -> None:
    """Write the documents that are not as the ledger gives them."""
    for path, text in pages.texts.items():
        if path.read_text(encoding="utf-8") != text:
            write_text(path, text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("what", choices=("add", "write", "check"), help="enter a row, write the documents, check them")
    parser.add_argument("table", nargs="?", metavar="TABLE", help="where the row stands, for add")
    parser.add_argument("--row", help="what the row is called")
    parser.add_argument("--result", type=Path, metavar="FILE", help="result.json of a test, or evaluate.py's --json")
    parser.add_argument(
        "--values", nargs="+", metavar="COLUMN=NUMBER", help="numbers of another kind; MEAN+-DEVIATION/RUNS"
    )
    parser.add_argument("--command", help="what makes the row again, or 'not repeatable: ' and the reason")
    parser.add_argument("--unit", help="unit of --values")
    parser.add_argument("--protocol", help="how --values were measured")
    parser.add_argument("--pictures", help="number of pictures behind --values")
    parser.add_argument("--mask_set", help="masks' hash of --values that need one, or 'none: ' and the reason")
    parser.add_argument("--commit", help="code that was measured; default: what the result tells, or the present")
    parser.add_argument("--date", help="when it was measured; default: when the result was written, or today")
    parser.add_argument("--machine", default=this_machine(), help="what it was measured on")
    parser.add_argument(
        "--docs", type=Path, metavar="DIR", help="where the ledger and the documents are; default: docs"
    )
    args = parser.parse_args(argv)
    docs = args.docs or DOCS
    if not docs.is_dir():
        raise UserError(f"--docs {docs}: no such folder")
    require_fitting(args)
    if args.what == "check":
        Pages(docs).check()
        return EXIT_OK
    if args.what == "write":
        pages = Pages(docs)
        unused = set(pages.unused())
        if unused:
            write_text(docs / LEDGER_FILE, to_csv(number for number in pages.numbers if number not in unused))
        write(pages)
        return EXIT_OK
    print(add(docs, given_numbers(args) if args.values else numbers_of_file(args)))
    return EXIT_OK


def require_fitting(args: argparse.Namespace) -> None:
    """Raise `UserError` for arguments that are missing, or that what is asked for does not read."""
    if args.what != "add":
        if args.table or (given := [name for name in OF_ADD if getattr(args, name)]):
            raise UserError(f"{args.what} takes --docs alone, {args.table or f'--{given[0]}'} belongs to add")
        return
    if not (args.table and args.row and args.command) or bool(args.result) == bool(args.values):
        raise UserError("add TABLE --row NAME --command LINE takes a --result or --values")
    if args.result and (given := [name for name in OF_VALUES if getattr(args, name)]):
        raise UserError(f"--{given[0]} goes with --values: --result {args.result} tells it itself")
    if args.date and not is_day(args.date):
        raise UserError(f"--date {args.date}: no day; write it as 2026-01-31")


def numbers_of_file(args: argparse.Namespace) -> list[Number]:
    """Return the numbers of --result."""
    *_, line = read_lines([str(args.result)], "--result")
    return numbers_of(line, table=args.table, row=args.row, command=args.command, date=args.date or day_of(args.result),
                      machine=args.machine, commit=args.commit)  # fmt: skip


def is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    run_main(main)
