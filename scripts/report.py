"""Put the results of several methods and tasks on one page, <output>/report.html.

    python scripts/report.py checkpoints/*/results/test_free_form --output page
    python scripts/report.py ours.json theirs.json --output page

RESULT is a folder of results of test.py, import_results.py or baselines.py, or a file of evaluate.py --json. The page
needs no network and no other file: values with the certainty of their differences, every picture's values to sort and
filter, the pictures to zoom into and to flicker between. Results of one task must be of the same pictures.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from metrics.folders import list_pictures
from metrics.pairing import pair_folders
from metrics.reporting.folder_pictures import shown
from metrics.reporting.page.gallery import Load, Result
from metrics.reporting.report import load_results, write_report
from metrics.reporting.result import RESULT_FILE
from metrics.reporting.summary import read_lines
from options.parser import script_parser
from util.errors import EXIT_OK, UserError, run_main
from util.files import require_writable

SAVED = ("fake", "real", "mask", "label")  # folders of pictures that belong to a result file


def read_result(given: str) -> Result:
    """Return a result with its pictures; raises `UserError` or `DataError`."""
    file = Path(given) / RESULT_FILE if Path(given).is_dir() else Path(given)
    (line,) = read_lines([str(file)], "RESULT") if file.suffix == ".json" else [{}]
    if not line:
        raise UserError(f"RESULT {given}: name a folder of results, or the file of evaluate.py --json (.json)")
    load = saved_pictures(file.parent) if file.name == RESULT_FILE else pictures_of_folders(file, line["protocol"])
    notes = list(line["protocol"].get("notes") or [])
    if "per_picture" not in line:  # of an earlier version
        folder = file.parent / SAVED[0]
        names = list(list_pictures(str(folder), "RESULT")[0]) if folder.is_dir() else []
        line = {**line, "per_picture": {"names": sorted(names)}}
        notes.append("its result file keeps no values of single pictures; test it again")
    return Result(str(line["protocol"].get("run")), line, load, notes)


def saved_pictures(folder: Path) -> Load:
    """Return the pictures beside a result file."""
    if missing := [name for name in SAVED if not (folder / name).is_dir()]:
        raise UserError(f"RESULT {folder}: the pictures in {', '.join(missing)} are not there; only tests that fill "
                        "masks keep all of them, test again if it was one")  # fmt: skip
    return partial(load_results, folder)


def pictures_of_folders(file: Path, protocol: dict[str, Any]) -> Load:
    """Return the pictures that evaluate.py measured, from where they were."""
    if not (protocol.get("paired") and protocol.get("real") and protocol.get("fake")):
        raise UserError(f"RESULT {file}: is not of pairs in folders, so that there is nothing to compare")
    masks = {"masks": protocol["masks"]} if protocol.get("masks") else {}
    items = pair_folders(protocol["real"], protocol["fake"], masks, needs_pairs=True).items
    by_name = {item.name: item for item in items}
    return lambda name: shown(by_name[name])


def main(argv: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("results", nargs="+", metavar="RESULT", help="folders of results, or files of --json")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of report.html")
    parser.add_argument("--title", default="Results", help="title of the page")
    args = parser.parse_args(argv)
    require_writable(args.output, "--output")
    print(write_report([read_result(each) for each in args.results], args.output, title=args.title))
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
