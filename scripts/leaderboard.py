"""The leaderboard of docs/leaderboard.md and .csv, made from result files only.

    python scripts/leaderboard.py add checkpoints/theirs/results/test_free_form/result.json --method Theirs --cost "8 h"
    python scripts/leaderboard.py write
    python scripts/leaderboard.py check

add keeps the result in docs/leaderboard/<data set>_<size>_<task>.jsonl, beside rows that were measured alike, and
writes the pages; check says whether they are what the files give.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from metrics.reporting.leaderboard import BoardRow, board_of, check_board, kept_line, read_boards, render
from metrics.reporting.pages import require_given
from metrics.reporting.protocol import Line
from options.parser import script_parser
from util.errors import EXIT_OK, UserError, run_main
from util.files import write_text
from util.text_files import parse_json

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = ("leaderboard.md", "leaderboard.csv")


def add_row(folder: Path, row: BoardRow, *, replace_old: bool) -> str:
    """Keep a row in its board's file; return the board's name. Raises `UserError` if it does not fit the others."""
    board = board_of(row.line)
    others = read_boards(folder).get(board, []) if folder.is_dir() else []
    if replace_old:
        others = [other for other in others if other.method != row.method]
    rows = [*others, row]
    check_board(board, rows)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{board}.jsonl", "".join(f"{each.to_json()}\n" for each in rows))
    return board


def read_result(path: Path) -> Line:
    try:
        return kept_line(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: no result can be read ({error})") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def told_cost(line: Line) -> str:
    """Return what a result line tells of the cost."""
    seconds = line["protocol"].get("cpu_seconds_per_picture")
    if seconds is not None:
        return f"no training; {seconds:.3g} CPU s a picture"
    return f"{line['step']} steps" if line["step"] is not None else "not told"


def check(docs: Path) -> None:
    """Raise `UserError` with the first line of a page that the files do not give."""
    for name, page in zip(PAGES, render(read_boards(docs / "leaderboard")), strict=True):
        require_given(docs / name, page, "python scripts/leaderboard.py write")


def main(argv: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("what", choices=("add", "write", "check"), help="add a row, write the pages, check them")
    parser.add_argument("result", nargs="?", type=Path, metavar="RESULT", help="result.json of a test, for add")
    parser.add_argument("--method", help="what the row is called, for add")
    parser.add_argument("--cost", help="training and time a picture; default: what the result tells")
    parser.add_argument("--date", default=datetime.now(UTC).date().isoformat(), help="when it was measured")
    parser.add_argument("--replace", action="store_true", help="take the place of the method's older row")
    parser.add_argument("--docs", type=Path, metavar="DIR", help="where leaderboard/ and the pages are; default: docs")
    args = parser.parse_args(argv)
    args.docs = args.docs or DOCS
    if (args.what == "add") != (args.result is not None) or (args.what == "add") != (args.method is not None):
        raise UserError("add RESULT --method NAME belong together; write and check take neither")
    if args.what == "check":
        check(args.docs)
        return EXIT_OK
    if args.what == "add":
        line = read_result(args.result)
        row = BoardRow(args.method, args.date, args.cost or told_cost(line), line)
        print(f"{args.method}: {add_row(args.docs / 'leaderboard', row, replace_old=args.replace)}")
    for name, page in zip(PAGES, render(read_boards(args.docs / "leaderboard")), strict=True):
        write_text(args.docs / name, page)
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
