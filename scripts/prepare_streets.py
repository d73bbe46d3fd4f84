"""Write procedural street scenes as a folder: `python scripts/prepare_streets.py --output datasets/streets_64`.

The same scenes as `--dataset_mode streets` draws at this size, as files: to edit them (docs/editing.md), to look at, or
for other programs. `--dataset_mode custom --dataroot datasets/streets_64` trains on them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import numpy as np

from data.prepare.writing import claim_output, save_picture, target_files, write_class_table
from data.streets.scene import CLASSES, render_street
from data.streets_dataset import scene_rng
from options.parser import StrictParser
from util.errors import EXIT_OK, UserError, run_main
from util.flags import numpy_seed
from util.progress import progress

SPLITS = ("train", "test")
KINDS = ("images", "labels", "inst_map")
SMALLEST = 32  # pixels: a scene's smallest parts vanish below


def scene_name(split: str, index: int) -> str:
    return f"{split}_{index:05d}"


def refuse_leftovers(folder: Path, split: str, count: int) -> None:
    """Raise `UserError` if a split holds other files than those of its first `count` scenes."""
    ours = {scene_name(split, index) for index in range(count)}
    others = sorted(path for kind in KINDS for path in (folder / kind).glob("[!.]*") if path.stem not in ours)
    if others:
        raise UserError(
            f"--{split} {count}: {folder} holds {len(others)} files of other scenes, the first {others[0]}; ask for as "
            "many scenes as before or more, give another --output, or remove the folder"
        )


def write_scene(output: Path, split: str, index: int, opt: argparse.Namespace) -> None:
    """Write picture (PNG), labels and 16-bit instances of one scene, unless they are there."""
    files = target_files(output / split, scene_name(split, index), KINDS, picture=".png")
    if all(path.exists() for path in files.values()):
        return
    rng = scene_rng(opt.streets_seed, split, index)
    maps = render_street(rng, height=opt.height, width=round(opt.height * 4 / 3))
    save_picture(files["images"], maps.image)
    save_picture(files["labels"], maps.label.astype(np.uint8))
    assert maps.inst is not None
    save_picture(files["inst_map"], maps.inst.astype(np.uint16))


def main(argv: list[str] | None = None) -> int:
    parser = StrictParser(description="Write procedural street scenes as files.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--height", type=int, default=64, help="pixels; the width is 4/3 of it")
    parser.add_argument("--train", type=int, default=240, help="scenes in the training split")
    parser.add_argument("--test", type=int, default=64, help="scenes in the test split")
    parser.add_argument("--streets_seed", type=numpy_seed, default=0, help="seed of the scenes")
    opt = parser.parse_args(argv)
    for name, least in (("height", SMALLEST), ("train", 0), ("test", 0)):
        if getattr(opt, name) < least:
            raise UserError(f"--{name} {getattr(opt, name)} is less than {least}")
    claim_output(opt.output, "prepare_streets.py", {"height": opt.height, "streets_seed": opt.streets_seed})
    for split in SPLITS:
        refuse_leftovers(opt.output / split, split, getattr(opt, split))
    write_class_table(opt.output, CLASSES)
    scenes = [(split, i) for split in SPLITS for i in range(getattr(opt, split))]
    for split, index in progress(scenes, desc=str(opt.output), unit="scene"):
        write_scene(opt.output, split, index, opt)
    print(f"{opt.output}: {opt.train} training and {opt.test} test scenes")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
