"""Measure what anybody's method made of a pack, and keep it like the test of a run.

    python scripts/import_results.py pack RESULTS --name their_method --segmenter streets
    python scripts/import_results.py pack RESULTS --form lama --name lama --paste_known --leaderboard "8 GPU hours"

RESULTS is a folder with a picture per picture of the pack. An altered pack, missing or resized pictures, inverted masks
and changed given pixels are refused. The result goes to <checkpoints_dir>/<name>, where scripts/make_table.py and
scripts/evaluate.py find it like that of a run.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from metrics.evaluator import KEPT
from metrics.flags import add_metric_flags
from metrics.registry import EDITING
from metrics.reporting.result import RESULT_FILE, append_result, as_json
from options.base_options import OPTIONS_FILE
from options.experiment import to_args
from options.parser import StrictParser, check_name, script_parser
from scripts import evaluate, leaderboard
from testing.editing_flow import EditingFlow
from testing.packs.forms import FORMS
from testing.packs.pack import LABEL, MASK, REAL, Pack, read_pack
from testing.packs.returned import find_results, take_results
from testing.ways import folder_of_test
from util.errors import EXIT_OK, UserError, run_main
from util.files import results_in, write_text
from util.flags import natural, positive_int
from util.images import save_labels
from util.shared_flags import add_shared
from util.text_files import parse_json


def build_parser(text: str | None = __doc__) -> StrictParser:
    """Return a parser with the flags of measuring."""
    parser = script_parser(text)
    parser.add_argument("pack", type=Path, metavar="PACK", help="folder of scripts/pack_benchmark.py")
    parser.add_argument("--name", help="name of the method: its folder in --checkpoints_dir")
    add_shared(parser, "checkpoints_dir")
    parser.add_argument("--batch_size", type=positive_int, default=16, help="pictures at a time")
    parser.add_argument("--num_workers", type=natural, default=2, help="decoding processes; 0 for none")
    add_shared(parser, "device")
    add_metric_flags(parser, EDITING, default=EditingFlow.default_metrics)
    return parser


def measure(pack: Pack, files: dict[str, Path], args: argparse.Namespace, more: dict[str, Any]) -> Path:
    """Check, keep and measure results; return the folder of the test.

    Args:
        pack: verified.
        files: the result of each picture.
        args: of `build_parser`, with `paste_known`.
        more: what else the line's protocol says.
    """
    check_name(args.name)
    run = Path(args.checkpoints_dir) / args.name
    if (run / OPTIONS_FILE).is_file():
        raise UserError(f"--name {args.name}: {run} is a trained run, which is not written over; take another name")
    data = pack.manifest["data"]
    folder = folder_of_test(run / "results", data["split"], pack.manifest["task"], data)
    with results_in(folder, "--checkpoints_dir"):
        with tempfile.TemporaryDirectory(dir=folder) as new:  # what is there stays until the results are found good
            fake = Path(new) / "fake"
            given = take_results(pack, files, fake, paste_known=args.paste_known)
            replace_folder(fake, folder / "fake")
        for kind in (REAL, MASK):
            replace_folder(pack.folder / kind, folder / kind, copy=True)
        shutil.rmtree(folder / LABEL, ignore_errors=True)
        for name in pack.texts:  # as test.py saves them: the ids, with colours to look at
            save_labels(pack.item(name).label, pack.palette, folder / LABEL / f"{name}.png")
        line = evaluate_results(pack, folder, args)
        if given.changed:
            line["protocol"] |= {"pasted_known": given.fields()}
            print(f"note: put back {given.told()}")
        line["protocol"] |= more
        kept = {key: line.pop(key) for key in KEPT if key in line}
        write_text(folder / RESULT_FILE, as_json(line, kept))
        append_result(line, run)
    return folder


def evaluate_results(pack: Pack, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the line of scripts/evaluate.py --as_run for the results in a folder."""
    own = ("pack", "name", "checkpoints_dir")
    known = build_parser().actions_by_name()
    flags = {
        name: value for name, value in vars(args).items() if name in known and name not in own and value is not False
    }
    fixed = {"as_run": pack.folder, "name": args.name, "fake": folder / "fake", "report": folder}
    with tempfile.TemporaryDirectory(dir=folder) as new:
        out = Path(new) / RESULT_FILE
        evaluate.main(to_args({**flags, **fixed, "json": out}))
        return dict(parse_json(out.read_bytes()))


def replace_folder(source: Path, target: Path, *, copy: bool = False) -> None:
    """Put a folder in the place of another."""
    if target.is_symlink():
        raise UserError(f"{target} is a link; remove it")
    shutil.rmtree(target, ignore_errors=True)
    if copy:
        shutil.copytree(source, target)
    else:
        source.rename(target)


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    parser.add_argument("results", type=Path, metavar="RESULTS", help="folder of the method's pictures")
    parser.add_argument("--form", choices=FORMS, help="results are named as this form's project names them")
    parser.add_argument("--paste_known", action="store_true",
                        help="put given pixels back that the method changed; the result line says so")  # fmt: skip
    parser.add_argument("--leaderboard", metavar="COST", help="add a row to the leaderboard; says what it cost, '8 h'")
    args = parser.parse_args(argv)
    pack = read_pack(args.pack)
    pack.verify()
    folder = measure(pack, find_results(pack, args.results, args.form), args, {})
    print(f"{args.name}: {folder}")
    if args.leaderboard:
        leaderboard.main(["add", str(folder / RESULT_FILE), "--method", args.name, "--cost", args.leaderboard])
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
