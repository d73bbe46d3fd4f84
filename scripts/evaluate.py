"""Score folders of pictures, from any source.

    python scripts/evaluate.py --real DIR --fake DIR
    python scripts/evaluate.py --real DIR --fake DIR --masks DIR --labels DIR --segmenter espnet_camvid \
        --segmenter_weights FILE --metrics all --intervals --json out.json --report out
    python scripts/evaluate.py --content DIR --style FILE --fake DIR --metrics psnr,ms_ssim,edge_f1,colour
    python scripts/evaluate.py --as_run RUN --fake DIR --name THEIRS --json out.json
    python scripts/evaluate.py --real DIR --fake OTHERS --against out.json
    python scripts/evaluate.py --summarise checkpoints/mine_seed*/metrics.jsonl

Files of one base name belong together; FID, KID and prdc alone need no pairs. Several --fake folders are several draws.
docs/protocols.md says what each number means.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import numpy as np
import torch
from torch import Tensor

from data.masks import inverted_note
from metrics.declaration import Clip, Setup, Source
from metrics.differences import compare
from metrics.doubts import Doubts
from metrics.evaluator import build_evaluator
from metrics.flags import add_metric_flags, validate_metric_flags
from metrics.folders import read_exact
from metrics.pairing import pair_folders
from metrics.registry import METRICS, STYLISING
from metrics.reporting.folder_pictures import shown, strips
from metrics.reporting.page.gallery import Result
from metrics.reporting.protocol import UNNAMED
from metrics.reporting.report import write_report
from metrics.reporting.result import as_json, format_table, result_line
from metrics.reporting.summary import format_summary, read_lines, summarise
from metrics.segments.segmentation import class_table
from models.diffusion_files import load_clip
from options.parser import script_parser
from testing.folder_pass import listed, measure, refuse, share_features
from testing.own_test import find_own_test
from trainers.distributed import Distributed, planned_processes
from util.errors import DataError, UserError, run_main
from util.files import require_writable, write_text
from util.flags import positive_int
from util.images import read_map
from util.opt import Opt
from util.shared_flags import add_shared

TIMEOUT = 10.0  # minutes that a process waits for another's weights to be loaded, and its batch
FOLDERS = ("masks", "labels", "instances")  # of maps that a metric may need, besides "style" and "source"


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--real", metavar="DIR", help="real pictures")
    parser.add_argument("--content", metavar="DIR", help="instead of --real: what stylised pictures were made of")
    parser.add_argument("--fake", metavar="DIR", nargs="+", help="generated pictures; several folders: several draws")
    parser.add_argument("--masks", metavar="DIR", help="masks, white where a pixel was generated")
    parser.add_argument("--labels", metavar="DIR", help="label maps (ids, not colours)")
    parser.add_argument("--instances", metavar="DIR", help="instance maps")
    parser.add_argument("--label_nc", type=int, help="number of classes; default: the segmenter's")
    parser.add_argument("--ignore_label", type=int, help="id to leave out")
    parser.add_argument("--style", metavar="FILE", help="the style picture of stylised ones")
    parser.add_argument("--source", metavar="FILE", help="the one picture that all --fake are renderings of")
    parser.add_argument("--source_label", metavar="FILE", help="layout of --source as ids, for the metric layout")
    clip = "clip_loss: CLIP's image tower, a folder or hub id; of further ones clip_loss_<size>"
    parser.add_argument("--clip_model", metavar="C", nargs="+", help=clip)
    side = "scale pairs to this short side (bicubic) before measuring; default: as they are"
    parser.add_argument("--metric_side", type=positive_int, metavar="N", help=side)
    parser.add_argument("--skip_bad", action="store_true", help="leave unusable pictures out, count and list them")
    parser.add_argument("--json", metavar="FILE", help="write values, protocol and each picture's values here")
    parser.add_argument("--report", metavar="DIR", help="write report.html here")
    parser.add_argument("--name", default=UNNAMED, help="what the table calls the pictures")
    parser.add_argument("--task", help="what the result line calls the task; default: folder, or that of --as_run")
    own = "measure --fake as this run's test was: its real pictures, masks, labels, metrics, protocol"
    parser.add_argument("--as_run", metavar="RUN", help=f"{own}; or a folder of its results, or a pack")
    against = "say how certain the differences to these results are: result.json of a run's test, or --json of folders"
    parser.add_argument("--against", metavar="FILE", nargs="+", default=[], help=against)
    parser.add_argument("--summarise", metavar="FILE", nargs="+", help="only: mean +- deviation over result lines")
    parser.add_argument("--checkpoints_dir", default="checkpoints", help="where runs are")
    parser.add_argument("--batch_size", type=int, default=16, help="pictures at a time")
    parser.add_argument("--num_workers", type=int, default=2, help="decoding processes")
    add_shared(parser, "device")
    add_metric_flags(parser, default="fid")  # those of every kind of test
    parser.set_defaults(metrics=None)  # --as_run has other metrics
    opt = parser.parse_args(argv)
    validate_metric_flags(opt)
    if not opt.summarise and not ((opt.real or opt.content or opt.as_run) and opt.fake):
        raise UserError("--real DIR and --fake DIR are needed, or --as_run RUN and --fake DIR, or --summarise FILE")
    opt.own_test = find_own_test(opt.as_run, opt.checkpoints_dir, opt.task) if opt.as_run else None
    if opt.own_test:
        opt.own_test.set_flags(opt)
    if opt.content:
        if opt.real:
            raise UserError("--content and --real both name the pictures that --fake are compared with; leave one out")
        opt.real = opt.content
    opt.metrics, opt.task = opt.metrics or "fid", opt.task or "folder"
    if opt.batch_size < 1 or opt.num_workers < 0:
        raise UserError("--batch_size must be at least 1 and --num_workers at least 0")
    if opt.json:
        if Path(opt.json).is_dir():
            raise UserError(f"--json {opt.json}: is a folder; name a file")
        require_writable(Path(opt.json).parent, "--json")
    if opt.report:
        require_writable(Path(opt.report), "--report")
    return opt


def main(argv: list[str] | None = None) -> int:
    opt = parse_options(argv)
    if opt.summarise:
        if planned_processes() > 1:
            raise UserError("--summarise only reads result lines: start evaluate.py without torchrun")
        lines = read_lines(opt.summarise)
        if not lines:
            raise UserError(
                f"--summarise {' '.join(opt.summarise)}: no result line there; test.py writes metrics.jsonl"
            )
        summary, notes = summarise(lines)
        print("\n".join([format_summary(summary), *(f"note: {note}" for note in notes)]))
        return 0
    with Distributed.start(opt.device, timeout=TIMEOUT, remedy="start all of them again") as world:
        return evaluate(opt, world)


def evaluate(opt: argparse.Namespace, world: Distributed) -> int:
    """Measure folders; of several processes the first measures, with features that all have computed."""
    names, notes = usable_metrics(opt)
    maps = {flag: getattr(opt, flag) for flag in FOLDERS if getattr(opt, flag)}
    of_sets = {name for metric in METRICS.classes() for name in metric.of_sets}
    needs_pairs = not set(names) <= of_sets or len(opt.fake) > 1 or bool(maps)
    pairing = pair_folders(opt.real, opt.fake, maps, needs_pairs=needs_pairs)
    items, problems = pairing.items, pairing.problems
    notes += pairing.notes
    evaluator = build_evaluator(names, make_setup(opt, world.device), required=opt.metrics != "all")
    refuse(problems, opt, pairing.notes)
    if not items:
        raise DataError(f"no picture is left:\n{listed(problems)}")
    if world.world_size > 1:
        share_features(evaluator, items, opt, world)
        if not world.is_main:
            return 0
    doubts = Doubts(items)
    hashes = measure(evaluator, items, opt, problems, doubts)
    values = evaluator.compute()
    erased = [share for share in evaluator.share if share == share]
    inverted = inverted_note(sum(erased) / max(1, len(erased)), f"--masks {opt.masks}")
    notes += [*doubts.notes(), *([inverted] if inverted else []), *evaluator.notes]
    paired = items[0].real is not None and bool(items[0].fake)
    if not values:
        raise UserError("; ".join(["nothing could be computed", *notes]))
    count = len(items) if opt.own_test else max(value.count for value in values.values())
    protocol = describe(opt, hashes, problems, paired=paired, label_nc=evaluator.label_nc, notes=notes)
    line = result_line(values, step=None, task=opt.task, num_images=count, protocol=protocol)
    rows: list[tuple[str, Mapping[str, Any]]] = [(opt.name, values)]
    if opt.own_test:
        rows[:0] = [(opt.own_test.run, opt.own_test.line["metrics"])] if opt.own_test.line["metrics"] else []
        notes += opt.own_test.notes(line, opt.name)
    kept = evaluator.kept() if opt.json or opt.against or opt.report else {}
    told = compare({**line, **kept}, opt.against, rows)
    print("\n".join([format_table(rows), *told]))
    if opt.per_class:
        print(class_table(values))
    for note in notes:
        print(f"note: {note}")
    if problems:
        print(f"{len(problems)} skipped:\n{listed(problems)}")
    if opt.json:
        write_text(Path(opt.json), as_json(line, kept))
    if opt.report:
        by_name = {item.name: item for item in items}
        result = Result(opt.name, {**line, **kept}, lambda name: shown(by_name[name]), notes)
        sets = {} if paired else strips(items)
        print(write_report([result], Path(opt.report), title=f"{opt.name}, {opt.task}", sets=sets))
    return 0


def usable_metrics(opt: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return the metrics that the given folders allow and notes on others; raises `UserError` for named ones."""
    names, notes = METRICS.parse(opt.metrics), []
    if not names:
        raise UserError(f"--metrics {opt.metrics}: nothing to compute; known: {', '.join(METRICS.names())}")
    for flag in (*FOLDERS, "style", "source"):
        needing = set(METRICS.needing(flag))
        if flag == "masks" and opt.content:  # whole pictures
            needing -= set(METRICS.names(STYLISING))
        lacking = [name for name in names if name in needing and getattr(opt, flag) is None]
        if lacking and opt.metrics != "all":
            raise UserError(f"--metrics {','.join(lacking)}: needs --{flag} {'DIR' if flag in FOLDERS else 'FILE'}")
        if lacking:
            names = [name for name in names if name not in lacking]
            notes.append(f"{', '.join(lacking)}: left out, no --{flag}")
    readers = {flag: METRICS.needing(flag) for flag in ("labels", "instances", "style", "source")}
    readers |= {flag: METRICS.reading("segmenter") for flag in ("label_nc", "ignore_label", "segmenter")}
    for flag, reading in readers.items():
        if getattr(opt, flag) is not None and not set(reading) & set(names):
            notes.append(f"--{flag} {getattr(opt, flag)}: no use was made of it, as none of {', '.join(reading)} is "
                         "computed")  # fmt: skip
    return names, notes


def make_setup(opt: argparse.Namespace, device: torch.device) -> Setup:
    """Return what the metrics are loaded with; raises `UserError` or `DataError` for unusable files."""

    def picture(path: str) -> Tensor:
        return torch.from_numpy(read_exact(Path(path))[0].copy()).movedim(-1, 0)

    source = None
    if opt.source:
        if not opt.source_label:
            raise UserError("--source needs --source_label FILE: its layout as ids")
        label = torch.from_numpy(read_map(opt.source_label, "layout").astype(np.int64))
        source = Source(picture(opt.source), label, int(label.max()) + 1)
    return Setup(
        opt=Opt(**vars(opt)),
        device=device,
        whole=bool(opt.content),
        label_nc=opt.label_nc,
        ignore_label=opt.ignore_label,
        style=picture(opt.style) if opt.style else None,
        clips=[Clip(name, *load_clip(name, device)) for name in opt.clip_model or []],
        source=source,
    )


def describe(
    opt: argparse.Namespace,
    hashes: dict[str, str],
    problems: dict[str, str],
    *,
    paired: bool,
    label_nc: int | None,
    notes: list[str],
) -> dict[str, Any]:
    """Return what the numbers depend on apart from the metrics."""
    reference = "the files as they are, 8 bit"
    if opt.metric_side:
        reference = f"the files scaled to {opt.metric_side} pixels short side (bicubic), 8 bit"
    own = opt.own_test.protocol(hashes["mask"]) if opt.own_test else {}
    return {
        "run": opt.name, "real": opt.real, "fake": opt.fake, "masks": opt.masks, "labels": opt.labels,
        "real_set": hashes["real"], "fake_set": hashes["fake"],
        "mask_set": hashes["mask"] if opt.masks else None, "paired": paired, "skipped": problems,
        "label_nc": label_nc, "ignore_label": opt.ignore_label, "notes": notes,
        "draw": "first of each picture", "reference": reference, **own,
    }  # fmt: skip


if __name__ == "__main__":
    run_main(main)
