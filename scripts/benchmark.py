"""Compare the speed of this code with others', each in its own process, including imports and decoding.

    python scripts/benchmark.py metrics --real DIR --fake DIR [--num_images 500] [--repeats 3] [--json FILE]
    python scripts/benchmark.py semia [--height 184 --width 280] [--repeats 3] [--json FILE]
    python scripts/benchmark.py data [--dataroot DIR] [--size 256] [--repeats 3] [--json FILE]
    python scripts/benchmark.py infer|train [--size 256] [--ngf 32] [--repeats 3] [--json FILE]

`metrics`: the FID of two folders by pytorch-fid, torch-fidelity (if installed) and scripts/evaluate.py, with the same
Inception weights. Without folders, smooth random pictures are made (--size). Times are the best of the repeats.
`semia`: its patch loss and whole iteration against a plain implementation (scripts/benchmark_semia.py), in one process.
`data`: samples of a training split, or of street scenes, against the released way (scripts/benchmark_data.py).
`infer`, `train`: SPMPGAN and DivSem against the plain forms of their layers (scripts/benchmark_cascade.py), likewise.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import numpy as np
import torch
from PIL import Image

from metrics.features.inception import find_inception, read_inception
from metrics.folders import list_pictures
from options.parser import script_parser
from util.errors import UserError, run_main
from util.files import require_writable, write_text
from util.images import save_png

CLASSES = 1008  # of the official file's classifier, which the features do not need


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("what", choices=("metrics", "semia", "infer", "train", "data", "pytorch_fid", "torch_fidelity"),
                        help="what to time; the last two are how it starts the other tools")  # fmt: skip
    parser.add_argument("--real", metavar="DIR")
    parser.add_argument("--fake", metavar="DIR")
    parser.add_argument("--num_images", type=int, default=500, help="of each folder")
    parser.add_argument(
        "--size",
        type=int,
        default=256,
        help="side of the pictures that are made without folders, and of samples; infer, train: a multiple of 64",
    )
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--inception_weights", metavar="FILE")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--dataroot", metavar="DIR", help="data: a folder with a classes.json; default: street scenes")
    parser.add_argument("--ngf", type=int, default=32, help="infer, train: base width of the generator")
    group = parser.add_argument_group("semia")
    group.add_argument("--height", type=int, default=184)
    group.add_argument("--width", type=int, default=280)
    group.add_argument("--patch_loss", choices=("semantic", "released"), default="released", help="of the iteration")
    group.add_argument("--semantic_alignment", choices=("paper", "released"), default="released", help="likewise")
    group.add_argument("--loss_only", action="store_true", help="no iterations: the plain one takes a minute")
    group.add_argument("--vgg_weights", metavar="FILE", help="VGG-19; default: random weights, at the same cost")
    opt = parser.parse_args(argv)
    if opt.json:
        if not Path(opt.json).parent.is_dir():
            raise UserError(f"--json {opt.json}: its folder does not exist")
        require_writable(Path(opt.json).parent, "--json")
    if opt.what == "semia":
        if min(opt.height, opt.width) < 32 or opt.height % 8 or opt.width % 8:
            raise UserError(f"--height {opt.height} --width {opt.width}: multiples of 8, at least 32")
        from scripts.benchmark_semia import main as semia

        semia(opt)
        return 0
    if opt.what == "data":
        if min(opt.size, opt.num_images, opt.repeats) < 1:
            raise UserError("--size, --num_images and --repeats must be at least 1")
        from scripts.benchmark_data import main as data

        data(opt)
        return 0
    if opt.what in ("infer", "train"):
        if opt.size < 64 or opt.size % 64 or opt.ngf < 2 or opt.ngf % 2:
            raise UserError(f"--size {opt.size} --ngf {opt.ngf}: a multiple of 64, and an even width")
        from scripts.benchmark_cascade import main as cascade

        cascade(opt)
        return 0
    if opt.what != "metrics":
        if not (opt.real and opt.fake and opt.json):
            raise UserError(f"{opt.what}: --real DIR, --fake DIR and --json FILE are needed")
        (pytorch_fid if opt.what == "pytorch_fid" else torch_fidelity)(opt)
        return 0
    if opt.num_images < 2 or min(opt.repeats, opt.size) < 1:
        raise UserError("--num_images must be at least 2, --repeats and --size at least 1")
    if bool(opt.real) != bool(opt.fake):
        raise UserError("--real DIR and --fake DIR belong together; without both, pictures are made")
    with tempfile.TemporaryDirectory() as scratch:
        compare(opt, Path(scratch))
    return 0


def compare(opt: argparse.Namespace, scratch: Path) -> None:
    """Run every tool, print the table and write the JSON."""
    folders = [gather(opt, which, scratch / which) for which in ("real", "fake")]
    common = ["--real", str(folders[0]), "--fake", str(folders[1]), "--batch_size", str(opt.batch_size),
              "--num_workers", str(opt.num_workers), "--device", opt.device]  # fmt: skip
    weights = ["--inception_weights", opt.inception_weights] if opt.inception_weights else []
    theirs, ours = [str(Path(__file__)), *weights], [str(ROOT / "scripts" / "evaluate.py"), *weights]
    out = scratch / "out.json"
    kept = scratch / "kept"
    cached = [*ours, *common, "--cache_dir", str(kept), "--json", str(out), "--metrics"]
    tools = {"pytorch-fid": [*theirs, "pytorch_fid", *common, "--json", str(out)]}
    if importlib.util.find_spec("torch_fidelity"):
        tools["torch-fidelity"] = [*theirs, "torch_fidelity", *common, "--json", str(out)]
    tools["ours"] = [*ours, *common, "--metrics", "fid", "--cache_dir", "none", "--json", str(out)]
    tools |= {"ours, keeping features": [*cached, "fid"], "ours, again": [*cached, "fid"]}
    tools["ours, fid, kid, prdc"] = [*cached, "fid,kid,prdc"]
    figures: dict[str, dict[str, float]] = {}
    for _ in range(opt.repeats):
        shutil.rmtree(kept, ignore_errors=True)
        for name, command in tools.items():
            measured = timed(command, out)
            if name not in figures or measured["wall_s"] < figures[name]["wall_s"]:
                figures[name] = measured
    count = 2 * len(list(folders[0].iterdir()))
    base = figures["pytorch-fid"]
    print(f"{count} pictures, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads, {opt.device}")
    print(f"{'':24}{'wall s':>9}{'CPU s':>9}{'pictures/s':>12}{'FID':>14}{'speed-up':>10}{'in CPU s':>10}")
    for name, f in figures.items():
        speed, in_cpu = (base[key] / f[key] for key in ("wall_s", "cpu_s"))
        row = f"{name:24}{f['wall_s']:9.1f}{f['cpu_s']:9.1f}{count / f['wall_s']:12.1f}{f['fid']:14.6f}"
        print(f"{row}{speed:9.2f}x{in_cpu:9.2f}x")
    for name in ("ours, again", "ours, fid, kid, prdc"):
        print(f"{name}: {figures[name]['cpu_s'] / figures['ours']['cpu_s']:.2f} of the CPU time of ours")
    if opt.json:
        write_text(Path(opt.json), json.dumps({"pictures": count, "device": opt.device, "tools": figures}, indent=1))


def gather(opt: argparse.Namespace, which: str, folder: Path) -> Path:
    """Link the first pictures of a folder, or make some."""
    folder.mkdir()
    source = getattr(opt, which)
    if source is None:
        rng = np.random.default_rng(which == "fake")
        for i in range(opt.num_images):
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            save_png(np.asarray(coarse.resize((opt.size, opt.size), Image.Resampling.BICUBIC)), folder / f"{i:05}.png")
        return folder
    for path in list(list_pictures(source, f"--{which}")[0].values())[: opt.num_images]:
        (folder / path.name).symlink_to(path.resolve())
    return folder


def timed(command: list[str], out: Path) -> dict[str, float]:
    """Run a tool; return its wall and CPU seconds and the FID that it wrote."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall, "cpu_s": cpu, "fid": float(json.loads(out.read_text(encoding="utf-8"))["metrics"]["fid"])}


def official_tensors(weights: str | None) -> dict[str, Any]:
    """Return the weights under pytorch-fid's names, with a classifier of zeros: both tools load strictly."""
    state = read_inception(find_inception(weights))
    return {**state, "fc.weight": torch.zeros(CLASSES, 2048), "fc.bias": torch.zeros(CLASSES)}


def pytorch_fid(opt: argparse.Namespace) -> None:
    """pytorch-fid, unchanged but for the source of the weights."""
    from pytorch_fid import inception
    from pytorch_fid.fid_score import calculate_fid_given_paths

    inception.load_state_dict_from_url = lambda *args, **kwargs: official_tensors(opt.inception_weights)
    value = calculate_fid_given_paths([opt.real, opt.fake], opt.batch_size, opt.device, 2048, opt.num_workers)
    write(opt.json, float(value))


def torch_fidelity(opt: argparse.Namespace) -> None:
    """torch-fidelity, unchanged, with the same weights."""
    import torch_fidelity as package

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "weights.pth"
        torch.save(official_tensors(opt.inception_weights), file)
        found = package.calculate_metrics(
            input1=opt.fake, input2=opt.real, fid=True, cuda=opt.device == "cuda", batch_size=opt.batch_size,
            feature_extractor_weights_path=str(file), cache=False, verbose=False, samples_find_deep=False,
        )  # fmt: skip
    write(opt.json, found["frechet_inception_distance"])


def write(path: str, value: float) -> None:
    """Write the value where `timed` reads it."""
    Path(path).write_text(json.dumps({"metrics": {"fid": value}}), encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
