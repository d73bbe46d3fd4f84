"""Fill the masks of a pack without training, and measure that: rows to beat.

    python scripts/baselines.py pack --fill telea navier_stokes mean nearest class_mean patches --segmenter streets
    python scripts/baselines.py pack --fill diffusers:FOLDER_OR_ID --name sd --steps 30
    python scripts/baselines.py pack --fill onnx:lama.onnx --name lama

telea, navier_stokes: OpenCV's, by rims of 3 pixels. mean: the picture's mean given colour. nearest: the nearest given
pixel. class_mean: the class's mean colour in the training split. patches: patches of the class in the same picture.
diffusers:, onnx: inpainting networks given by file. Each is kept like the test of a run, in <checkpoints_dir>/<fill>.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import numpy as np

from data import scene_dataset
from options.experiment import Row, to_args
from options.parser import StrictParser
from options.run_options import NOT_CARRIED
from scripts import pack_benchmark
from scripts.import_results import build_parser as measuring_parser
from scripts.import_results import measure
from testing.editing_flow import EditingFlow
from testing.fills.networks import KNOWN, make_fill
from testing.fills.plain import Fill
from testing.packs.pack import MANIFEST, Pack, read_pack
from testing.rows import Step, finished_test
from testing.ways import WAYS, folder_of_test
from util.device import resolve_device
from util.errors import EXIT_OK, UserError, run_main
from util.flags import positive_int
from util.images import save_png
from util.opt import Opt
from util.progress import progress

PACKS = "packs"  # in --checkpoints_dir: what rows of experiments share


def build_parser() -> StrictParser:
    parser = measuring_parser(__doc__)
    parser.add_argument("--fill", nargs="+", required=True, metavar="FILL", help=f"which: {KNOWN}")
    parser.add_argument("--steps", type=positive_int, default=50, help="steps of denoising, for diffusers")
    return parser


def write_fills(pack: Pack, fill: Fill, folder: Path, title: str) -> float:
    """Save the filled pictures of a pack, given pixels as they are; return the CPU seconds of a picture."""
    spent = 0.0
    for name in progress(pack.texts, desc=title, unit="picture"):
        item = pack.item(name)
        mask = item.mask[..., None]
        blind = replace(item, image=np.where(mask, 0, item.image).astype(np.uint8))
        began = time.process_time()
        made = fill(blind)
        spent += time.process_time() - began
        save_png(np.where(mask, made, item.image).astype(np.uint8), folder / f"{name}.png")
    return spent / len(pack.texts)


def run(pack: Pack, name: str, args: argparse.Namespace) -> Path:
    """Fill and measure; return the folder of the test."""
    fill = make_fill(name, pack.class_colours, steps=args.steps, device=str(resolve_device(args.device)))
    with tempfile.TemporaryDirectory() as new:
        seconds = write_fills(pack, fill, Path(new), args.name)
        files = {each: Path(new) / f"{each}.png" for each in pack.texts}
        more = {"baseline": name, "cpu_seconds_per_picture": round(seconds, 4)}
        return measure(pack, files, argparse.Namespace(**vars(args), paste_known=False), more)


# --- rows of experiments ---------------------------------------------------------------------------------------------
def commands(row: Row, task: str, checkpoints_dir: str) -> tuple[list[str], list[str], Path]:
    """Return the arguments of pack_benchmark.py and of this script for a row, and the pack's folder.

    Of the flags for train.py and test.py those count that say which pictures are tested and how they are measured.
    """
    train, test = [*to_args(row.train), *row.more_train], [*to_args(row.test), *row.more_test]
    probe = StrictParser(add_help=False)
    probe.add_argument("--dataset_mode", default="streets")
    mode = probe.parse_known_args(train)[0].dataset_mode
    data = pack_benchmark.build_parser(mode).actions_by_name().keys() - {"output", "form"}
    packing = kept(train, data - NOT_CARRIED) + kept(test, data) + ["--task", task]
    name = f"{mode}_{task}_{hashlib.sha256(' '.join(packing).encode()).hexdigest()[:8]}"
    folder = Path(checkpoints_dir) / PACKS / name
    measuring = kept(test, measuring_parser().actions_by_name().keys())
    own = ["--fill", row.baseline, "--name", row.run, "--checkpoints_dir", checkpoints_dir]
    return [*packing, "--output", str(folder)], [str(folder), *own, *measuring], folder


def kept(args: Sequence[str], names: Collection[str]) -> list[str]:
    """Return those flags of a command line, with their values, whose names are wanted."""
    found, keep = [], False
    for arg in args:
        if arg.startswith("--"):
            name = arg.removeprefix("--").split("=")[0]
            keep = name in names or name.removeprefix("no-") in names
        found += [arg] if keep else []
    return found


def plan(row: Row, task: str, checkpoints_dir: str) -> tuple[Step, str]:
    """Inspect what exists of a row's test; also return the text that marks it as finished."""
    packing, measuring, _ = commands(row, task, checkpoints_dir)
    opt, key = pack_benchmark.parse(packing)[0], json.dumps([packing, measuring])
    ways = {name: getattr(opt, name, None) for name in WAYS}
    folder = folder_of_test(Path(checkpoints_dir) / row.run / "results", opt.split, task, ways)
    found = finished_test(folder, key)
    return Step(measuring, found or folder, found is not None), key


def lines(row: Row, task: str, checkpoints_dir: str) -> list[str]:
    """Return the command lines of a row's test; as comments what is finished."""
    packing, measuring, folder = commands(row, task, checkpoints_dir)
    packed = "# finished: " if (folder / MANIFEST).is_file() else ""
    tested = "# finished: " if plan(row, task, checkpoints_dir)[0].finished else ""
    return [f"{packed}python scripts/pack_benchmark.py {shlex.join(packing)}",
            f"{tested}python scripts/baselines.py {shlex.join(measuring)}"]  # fmt: skip


def run_step(row: Row, task: str, checkpoints_dir: str) -> None:
    """Make the pack of a row's pictures unless it is there, and measure the row's fill of it."""
    packing, measuring, folder = commands(row, task, checkpoints_dir)
    if not (folder / MANIFEST).is_file():
        print(f"$ python scripts/pack_benchmark.py {shlex.join(packing)}", flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as new:  # rows in other processes may want it too
            made = Path(new) / folder.name
            pack_benchmark.main([*packing, "--output", str(made)])
            with suppress(OSError):  # another was first
                made.rename(folder)
    print(f"$ python scripts/baselines.py {shlex.join(measuring)}", flush=True)
    main(measuring)


def check(rows: Sequence[Row], checkpoints_dir: str) -> None:
    """Raise `UserError` for flags, data or metrics with which a row would fail."""
    for row in rows:
        for task in row.tasks:
            packing, measuring, _ = commands(row, task, checkpoints_dir)
            if plan(row, task, checkpoints_dir)[0].finished:
                continue
            try:
                opt = pack_benchmark.parse(packing)[0]
                args = build_parser().parse_args(measuring)
                EditingFlow.require_inputs(Opt(**vars(args)))
                scene_dataset(opt.dataset_mode).from_options(opt, split=opt.split, augment=False, task=task).select(1)
                make_fill(row.baseline, {}, steps=args.steps, device="cpu")
            except UserError as error:
                raise type(error)(f"row {row.name}, baselines.py --task {task}: {error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.name and len(args.fill) > 1:
        raise UserError(f"--name {args.name}: names one fill, --fill has {len(args.fill)}; without it each has its own")
    pack = read_pack(args.pack)
    pack.verify()
    for name in args.fill:
        if not args.name and ":" in name:
            raise UserError(f"--fill {name}: give the row a name, e.g. --name my_network")
        print(run(pack, name, argparse.Namespace(**vars(args) | {"name": args.name or name})))
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
