"""`benchmark.py metrics`: the FID of two folders by pytorch-fid, torch-fidelity and scripts/evaluate.py.

Each tool runs in a process of its own, with the same Inception weights; imports and decoding are included. Without
folders, smooth random pictures are made. Times are the least of the repeats.
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

import numpy as np
import torch
from PIL import Image

from metrics.features.inception import find_inception, read_inception
from metrics.folders import list_pictures
from scripts.benchmarks.measure import PLAIN, save
from util.errors import UserError
from util.images import save_png

SCRIPTS = Path(__file__).resolve().parents[1]
CLASSES = 1008  # of the official file's classifier, which the features do not need


def main(opt: argparse.Namespace) -> None:
    """Print the table and write the JSON; or be one of the other tools."""
    if opt.what != "metrics":
        if not (opt.real and opt.fake and opt.json):
            raise UserError(f"{opt.what}: --real DIR, --fake DIR and --json FILE are needed")
        (pytorch_fid if opt.what == "pytorch_fid" else torch_fidelity)(opt)
        return
    if opt.num_images < 2:
        raise UserError("--num_images must be at least 2")
    if bool(opt.real) != bool(opt.fake):
        raise UserError("--real DIR and --fake DIR belong together; without both, pictures are made")
    with tempfile.TemporaryDirectory() as scratch:
        compare(opt, Path(scratch))


def compare(opt: argparse.Namespace, scratch: Path) -> None:
    """Run every tool, print the table and write the JSON."""
    folders = [gather(opt, which, scratch / which) for which in ("real", "fake")]
    common = ["--real", str(folders[0]), "--fake", str(folders[1]), "--batch_size", str(opt.batch_size),
              "--num_workers", str(opt.num_workers), "--device", opt.device]  # fmt: skip
    weights = ["--inception_weights", opt.inception_weights] if opt.inception_weights else []
    theirs, ours = ([str(SCRIPTS / name), *weights] for name in ("benchmark.py", "evaluate.py"))
    out = scratch / "out.json"
    kept = scratch / "kept"
    cached = [*ours, *common, "--cache_dir", str(kept), "--json", str(out), "--metrics"]
    tools = {}
    if opt.against == PLAIN:
        tools["pytorch-fid"] = [*theirs, "pytorch_fid", *common, "--json", str(out)]
    if opt.against == PLAIN and importlib.util.find_spec("torch_fidelity"):
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
    base = figures.get("pytorch-fid")
    print(f"{count} pictures, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads, {opt.device}")
    print(f"{'':24}{'wall s':>9}{'CPU s':>9}{'pictures/s':>12}{'FID':>14}{'speed-up':>10}{'in CPU s':>10}")
    for name, f in figures.items():
        row = f"{name:24}{f['wall_s']:9.1f}{f['cpu_s']:9.1f}{count / f['wall_s']:12.1f}{f['fid']:14.6f}"
        if base:
            f["ratio"], f["cpu_ratio"] = (base[key] / f[key] for key in ("wall_s", "cpu_s"))
            row += f"{f['ratio']:9.2f}x{f['cpu_ratio']:9.2f}x"
        print(row)
    for name in ("ours, again", "ours, fid, kid, prdc"):
        print(f"{name}: {figures[name]['cpu_s'] / figures['ours']['cpu_s']:.2f} of the CPU time of ours")
    save(opt, {"pictures": count, "device": opt.device, "rows": figures})


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
