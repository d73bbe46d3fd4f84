"""Places where nothing can be written, and every command that writes, on the smallest data and runs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from small_disks import fill, small_disk

import test as test_command
import train as train_command
from models import MODELS
from models.networks.cascade.stages import CascadeGenerator
from models.networks.cascade.style_encoder import StyleEncoder
from models.released_weights.divsem import released_generator_key
from scripts import (
    build_style_bank,
    convert_weights,
    edit,
    evaluate,
    prepare_analogy,
    prepare_folder,
    prepare_objects,
    prepare_streets,
    run_experiment,
    train_segmenter,
)
from util.images import read_map, save_png

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--device", "cpu", "--num_workers", "0"]
TRAIN = [*QUICK, "--image_every", "0", "--max_steps", "1"]


@dataclass(frozen=True)
class World:
    """A folder with scenes, SemIA's picture (`analogy/`), runs (`runs/divsem`, `runs/lake`), an authors' file."""

    root: Path

    @property
    def tiny(self) -> list[str]:
        return MODELS.get("divsem").tiny(self.root)

    def scene(self, *flags: str) -> list[str]:
        """Return the flags of edit.py's files."""
        kinds = {"image": "images", "label": "labels", "inst": "inst_map"}
        files = [a for k, v in kinds.items() for a in (f"--{k}", str(self.root / f"scenes/test/{v}/test_00000.png"))]
        return [*files, "--remove", str(self.thing()), *flags]

    def thing(self) -> int:
        return int(read_map(self.root / "scenes/test/inst_map/test_00000.png", "instance map").max())

    def run(self, home: Path | None = None, name: str = "divsem") -> list[str]:
        return ["--name", name, "--checkpoints_dir", str(home or self.root / "runs")]


def make_world(root: Path) -> World:
    """Make all of it; seconds."""
    world = World(root)
    assert (
        prepare_streets.main(["--output", str(root / "scenes"), "--height", "64", "--train", "3", "--test", "2"]) == 0
    )
    assert train_command.main([*world.tiny, *world.run(), *TRAIN]) == 0
    assert train_command.main([*MODELS.get("semia").tiny(root), *world.run(name="lake"), *TRAIN]) == 0
    mask = np.zeros((40, 48), np.uint8)
    mask[10:20, 10:20] = 255
    save_png(mask, root / "mask.png")
    encoder = StyleEncoder(style_dim=4, nef=2)
    theirs = CascadeGenerator(style_encoder=encoder, label_nc=9, crop_size=256, ngf=2).state_dict()
    torch.save({"netG": {released_generator_key(key): value for key, value in theirs.items()}}, root / "best.pth")
    table = root / "table.yaml"
    flags = dict(zip((a[2:] for a in world.tiny[::2]), world.tiny[1::2], strict=True))
    train = "\n".join(f"  {key}: {value}" for key, value in {**flags, "max_steps": 0, "tensorboard": "false"}.items())
    test = "test:\n  metrics: l1\n  num_workers: 0\n  device: cpu\n"
    table.write_text(
        f"title: T\ntrain:\n{train}\n  num_workers: 0\n  device: cpu\n{test}rows:\n  tiny_row: {{label: T}}\n"
    )
    return world


Main = Callable[[list[str]], int]
# A command: what it is called with, and where it writes
COMMANDS: dict[str, tuple[Main, Callable[[World, Path], list[str]]]] = {
    "train": (train_command.main, lambda w, out: [*w.tiny, *w.run(out, "new"), *TRAIN]),
    "train on": (train_command.main, lambda w, out: [*w.run(out), *TRAIN, "--max_steps", "2", "--continue_train"]),
    "test": (
        test_command.main,
        lambda w, out: [*w.run(), *QUICK, "--metrics", "l1", "--results_dir", str(out / "results")],
    ),
    "test in its run": (test_command.main, lambda w, out: [*w.run(out), *QUICK, "--metrics", "l1"]),
    "test a run elsewhere": (
        test_command.main,
        lambda w, out: [*w.run(out), *QUICK, "--metrics", "l1", "--results_dir", str(w.root / "elsewhere")],
    ),
    "test SemIA": (
        test_command.main,
        lambda w, out: [*w.run(name="lake"), *QUICK, "--metrics", "l1", "--results_dir", str(out / "lake")],
    ),
    "edit": (
        edit.main,
        lambda w, out: [*w.run(), *QUICK, *w.scene("--output", str(out / "o.png"), "--num_samples", "2")],
    ),
    "edit a run": (edit.main, lambda w, out: [*w.run(out), *QUICK, *w.scene("--output", str(out / "o.png"))]),
    "edit SemIA": (
        edit.main,
        lambda w, out: [
            *w.run(name="lake"), *QUICK, "--image", str(w.root / "analogy/img.png"), "--output", str(out / "o.png"),
            "--label", str(w.root / "analogy/cond/disc.png"), "--mask", str(w.root / "mask.png"),
        ],
    ),
    "evaluate --json": (
        evaluate.main,
        lambda w, out: [*pairs(w), "--json", str(out / "numbers.json")],
    ),
    "evaluate --report": (evaluate.main, lambda w, out: [*pairs(w), "--report", str(out / "page")]),
    "run_experiment": (
        run_experiment.main,
        lambda w, out: [str(w.root / "table.yaml"), "--checkpoints_dir", str(out)],
    ),
    "build_style_bank": (
        build_style_bank.main,
        lambda w, out: [*w.run(out), *QUICK, "--style_bank_size", "7"],
    ),
    "train_segmenter": (
        train_segmenter.main,
        lambda w, out: [
            *w.run(out, "unet"), *QUICK, "--max_steps", "1", "--crop_size", "32", "--width", "4",
            "--streets_train_size", "4", "--streets_test_size", "2", "--batch_size", "2",
        ],
    ),
    "convert_weights": (
        convert_weights.main,
        lambda w, out: ["--model", "divsem", "--source", str(w.root / "best.pth"), *w.run(out, "converted")],
    ),
    "prepare_streets": (
        prepare_streets.main,
        lambda w, out: ["--output", str(out / "s"), "--train", "2", "--test", "2"],
    ),
    "prepare_analogy": (prepare_analogy.main, lambda w, out: ["--output", str(out / "a")]),
    "prepare_folder": (
        prepare_folder.main,
        lambda w, out: [
            "--images", str(w.root / "scenes/train/images"), "--labels", str(w.root / "scenes/train/labels"),
            "--output", str(out / "f"), "--ratios", "train=0.67,test=0.33", "--num_workers", "0", "--short_side", "0",
        ],
    ),
    "prepare_objects": (
        prepare_objects.main,
        lambda w, out: [
            "--dataset_mode", "streets", "--streets_train_size", "6", "--streets_test_size", "2", "--load_size", "64",
            "--min_crops", "1", "--num_workers", "0", "--output", str(out / "o"),
        ],
    ),
}  # fmt: skip


# A command and what it is given beside its own line above: values that no command can use.
WRONG: list[tuple[str, list[str]]] = [
    *(("test", line.split()) for line in (
        "--load_size -1", "--label_map 1:99999", "--crop_size 0", "--batch_size 0", "--num_workers -1",
        "--num_images 0", "--num_samples 0", "--step 99", "--split nope", "--dataset_mode custom",
        "--task folder --mask_dir {empty}",
        "--config {bytes}", "--config {folder}", "--results_dir {empty}", "--metrics ,l", "--bootstrap -1",
        "--metrics miou --segmenter {empty}", "--metrics fid --inception_weights {empty}", "--streets_seed -1",
        "--metrics lpips --lpips_weights {folder}",
    )),
    *(("edit", line.split()) for line in (
        "--add_object \u00b2 --box 0,0,9,9", "--outpaint left \u00b2", "--remove 123456", "--dilate -1",
        "--num_samples 0", "--image {empty}", "--image {folder}", "--label {bytes}", "--inst {empty}", "--mask {bytes}",
        "--panorama -1",
        "--output {empty}/o.png", "--output {folder}", "--add_object car --box 0,0,9,9 --add_from {empty}:1",
    )),
    *(("evaluate --json", line.split()) for line in (
        "--real {empty}", "--fake {folder}", "--batch_size 0", "--summarise {bytes}", "--summarise {empty}",
        "--report {empty}",
        "--cache_dir {empty} --metrics fid",
    )),
    *(("convert_weights", ["--source", what]) for what in ("{empty}", "{bytes}", "{folder}")),
    *(("prepare_folder", line.split()) for line in (
        "--short_side -1", "--classes {bytes}", "--classes {folder}", "--things x", "--images {empty}",
        "--ratios train=nan", "--output {empty}", "--num_workers -1",
    )),
    *(("train_segmenter", line.split()) for line in (
        "--lr -1", "--lr nan", "--num_workers -1", "--width 0", "--crop_size 17", "--streets_test_size 0",
    )),
    ("prepare_streets", ["--streets_seed", "-1"]), ("prepare_streets", ["--train", "-1"]),
    ("prepare_analogy", ["--seed", "-1"]), ("prepare_analogy", ["--height", "0"]),
    ("prepare_objects", ["--size", "0"]), ("prepare_objects", ["--foreground", "car:9"]),
    ("build_style_bank", ["--style_bank_size", "0"]), ("run_experiment", ["{bytes}"]), ("run_experiment", ["{folder}"]),
]  # fmt: skip


def pairs(world: World) -> list[str]:
    folder = str(world.root / "scenes/test/images")
    return [
        "--real",
        folder,
        "--fake",
        folder,
        "--metrics",
        "l1_whole,psnr_whole",
        "--num_workers",
        "0",
        "--device",
        "cpu",
    ]


@contextmanager
def ground(place: Path, kind: str, world: World) -> Iterator[Path]:
    """Mount a small file system with a copy of the runs, then make it "read-only", or leave so many free KiB ("8")."""
    with small_disk(place):
        subprocess.run(["cp", "-a", f"{world.root}/runs/.", str(place)], check=True)  # links between checkpoints too
        if kind == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        else:
            fill(place, free=int(kind) << 10)
        yield place
