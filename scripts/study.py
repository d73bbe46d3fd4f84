"""A forced-choice study of two methods or more, for the user studies of papers.

    python scripts/study.py make checkpoints/{ours,theirs}/results/test_free_form --output study
    python scripts/study.py count study votes_*.json

make writes study.html, which participants open: one file that reads and sends nothing, and names no method. They save
their votes and send them back. Keep study.json beside it: it is the key, by which count counts them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from metrics.reporting.report import by_task
from options.parser import script_parser
from scripts.report import read_result
from testing.study.counting import count_votes, read_key, read_votes
from testing.study.making import PAGE, Study, draw_trials, require_two
from util.errors import EXIT_OK, UserError, run_main
from util.files import require_writable
from util.flags import positive_int

QUESTION = "Which looks more real, and fits better to the rest?"


def make(args: argparse.Namespace) -> None:
    """Write the page and the key."""
    tasks = by_task([read_result(each) for each in args.files])
    if len(tasks) > 1:
        raise UserError(f"results of several tasks ({', '.join(tasks)}): a study is of one; make one for each")
    methods = next(iter(tasks.values()))
    require_two(list(methods))
    require_writable(args.output, "--output")
    names = [set(result.line["per_picture"]["names"]) for result in methods.values()]
    trials = draw_trials(sorted(set.intersection(*names)), list(methods), count=args.pictures, seed=args.seed)
    if not trials:
        raise UserError("the results have no picture in common")
    line = next(iter(methods.values())).line
    study = Study({name: result.load for name, result in methods.items()}, trials, line["protocol"])
    study.write(args.output, title=args.title, question=args.question)
    pictures = len({trial.picture for trial in trials})
    print(f"study {study.id}: {len(trials)} choices on {pictures} pictures: {args.output / PAGE}")


def count(folder: Path, files: Sequence[Path]) -> None:
    """Print the votes of each pair."""
    study, trials = read_key(folder)
    votes = read_votes(files, study, len(trials))
    missing = sum(len(trials) - len(choices) for choices in votes.values())
    left_out = f"; {missing} choices were not made" if missing else ""
    print(f"study {study}: {len(votes)} participants, {len(trials)} choices each{left_out}")
    for pair in count_votes(trials, votes):
        (first, second), (low, high) = pair.methods, pair.interval
        print(
            f"{first} {pair.votes[0]}, {second} {pair.votes[1]}: {first} in {100 * pair.share:.1f} % of the choices "
            f"(95 %: {100 * low:.1f} to {100 * high:.1f})"
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("what", choices=("make", "count"), help="write the page and its key, or count votes")
    parser.add_argument("files", nargs="+", metavar="RESULT | STUDY VOTES",
                        help="make: folders of results, as scripts/report.py takes them; count: the study's folder, "
                        "then the files of participants")  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of the study to make")
    parser.add_argument("--pictures", type=positive_int, default=20, help="pictures that are shown, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0, help="seed of the pictures, their order and the sides")
    parser.add_argument("--title", default="Which picture is better?", help="title of the page")
    parser.add_argument("--question", default=QUESTION, help="what participants are asked at each choice")
    args = parser.parse_args(argv)
    if (args.what == "make") != (args.output is not None):
        raise UserError("make and --output DIR belong together; count writes nothing")
    make(args) if args.what == "make" else count(Path(args.files[0]), [Path(file) for file in args.files[1:]])
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
