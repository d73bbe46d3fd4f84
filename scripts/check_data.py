"""Show what a data folder holds and what is wrong in it: `python scripts/check_data.py DIR [--dataset_mode MODE]`.

Prints classes, sizes and instance counts of each split. Exit code 0: usable; 2: at least one problem.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from data import DATASETS
from data.checks import SplitReport, check_split, quick_check
from data.folder import FolderDataset
from data.packed import is_packed, read_manifest
from options.parser import script_parser
from util.errors import EXIT_OK, EXIT_USER_ERROR, UserError, run_main
from util.opt import Opt
from util.progress import progress

__all__ = ["main", "quick_check"]


def folder_modes() -> list[str]:
    return [name for name in DATASETS.names() if issubclass(DATASETS.get(name), FolderDataset)]


def parse(arguments: Sequence[str] | None) -> Opt:
    parser = script_parser(__doc__)
    parser.add_argument("dataroot", metavar="DIR", help="folder with <split>/{images,labels,inst_map}/, or packed")
    parser.add_argument("--dataset_mode", default="custom", choices=folder_modes(), help="layout of the data")
    parser.add_argument("--split", help="only this one; otherwise every folder that has images/")
    parser.add_argument("--label_nc", type=int, help="number of classes; from classes.json if not given")
    parser.add_argument("--ignore_label", type=int, help="id without a class; from classes.json if not given")
    parser.add_argument("--label_map", help="ids to replace, e.g. 255:0,3:4")
    parser.add_argument("--crop_size", type=int, help="also report pictures whose short side is smaller")
    opt: Opt = parser.parse_args(arguments)
    opt.load_size = 0  # as stored
    return opt


def print_report(report: SplitReport, names: Sequence[str]) -> None:
    print(f"\n{report.name}: {report.count} complete pictures, {len(report.problems)} problems")
    if not report.sizes:
        return
    shown = ", ".join(f"{w}x{h} ({n})" for (w, h), n in report.sizes.most_common(5))
    print(f"  sizes: {shown}" + (f" and {len(report.sizes) - 5} more" if len(report.sizes) > 5 else ""))
    counts = report.instances
    kind = "instances (classes' regions included)" if report.has_inst else "no inst_map/: one instance per class,"
    if counts:
        print(f"  {kind} per picture: {min(counts)} to {max(counts)}, mean {mean(counts):.1f}")
    total = sum(report.pixels.values())
    print(f"  {'id':>5}  {'class':<24} {'share of pixels':>15}")
    for label, pixels in sorted(report.pixels.items()):
        name = names[label] if label < len(names) else "-"
        print(f"  {label:>5}  {name:<24} {100 * pixels / total:>14.3f}%")


def main(arguments: Sequence[str] | None = None) -> int:
    opt = parse(arguments)
    root = Path(opt.dataroot)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    dataset = DATASETS.get(opt.dataset_mode)
    assert issubclass(dataset, FolderDataset)
    for name, value in dataset.complete_options(opt).items():
        setattr(opt, name, value)
    rules = dataset.map_rules(opt)
    names = dataset.class_table(opt.dataroot).resized(opt.label_nc).names
    if is_packed(opt.dataroot):
        splits = list(read_manifest(opt.dataroot)["splits"])
    else:
        splits = sorted(p.name for p in root.iterdir() if (p / "images").is_dir())
    splits = [opt.split] if opt.split else splits
    if not splits:
        raise UserError(f"{root} has no <split>/images folder")
    print(f"{root}: {opt.label_nc} classes, ignored id: {'none' if rules.ignore_label is None else rules.ignore_label}")
    problems = 0
    for split in splits:
        bar = partial(progress, desc=split, unit="picture", leave=False)
        report = check_split(root / split, rules, min_side=opt.crop_size or 0, progress=bar)
        print_report(report, names)
        for problem in report.problems:
            print(f"  PROBLEM {problem}")
        for kind, notes in report.notes.items():
            more = f" (and {len(notes) - 1} more such {kind})" if len(notes) > 1 else ""
            print(f"  note: {notes[0]}{more}")
        problems += len(report.problems)
    print(f"\n{problems} problems" if problems else "\nno problems")
    return EXIT_USER_ERROR if problems else EXIT_OK


if __name__ == "__main__":
    run_main(main)
