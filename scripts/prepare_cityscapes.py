"""Make datasets/cityscapes from the two official archives, or from the folders that they unpack to.

    python scripts/prepare_cityscapes.py --source leftImg8bit_trainvaltest.zip gtFine_trainvaltest.zip [--hires]

Frames (2048x1024) become 512x256 (WuyangLuo/SPMPGAN#1): pictures LANCZOS and JPEG quality 92, `labelIds` and
`instanceIds` nearest from the same pixels. The archives' val split becomes `test`; their test split has no
annotations and is left out. `--hires` also writes the frames at full size to <split>/images2048/, from which SIEDOB
cuts its objects. Run again to continue after an interruption.
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

from data.cityscapes_dataset import CityscapesDataset
from data.prepare.archives import SourceSet
from data.prepare.data_set import write_data_set
from data.prepare.writing import Job, add_common_flags, target_files
from data.transforms import scale_short_side
from options.parser import script_parser
from util.errors import EXIT_OK, DataError, run_main

PICTURES, MAPS = "leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"
OUR_SPLIT = {"train": "train", "val": "test"}
OFFICIAL = {"train": 2975, "test": 500}
SHORT_SIDE, FULL_WIDTH = 256, 2048


def find_jobs(sources: SourceSet, output: Path, *, hires: bool) -> list[Job]:
    """Pair frames and annotations of train and val; raises `UserError` naming the archive and what is missing."""
    split = "(?P<split>train|val)"
    images = sources.find(rf"leftImg8bit/{split}/[^/]+/(?P<name>[^/]+)_leftImg8bit\.png", archive=PICTURES)
    ends = ("labelIds", "instanceIds")
    labels, insts = (
        sources.find(rf"gtFine/{split}/[^/]+/(?P<name>[^/]+)_gtFine_{end}\.png", archive=MAPS) for end in ends
    )
    for files, end in ((labels, ends[0]), (insts, ends[1])):
        files.check_complete(sorted(images.files), f"gtFine/{{split}}/{{group}}/{{name}}_gtFine_{end}.png")
    annotated = sorted({*labels.files, *insts.files})
    images.check_complete(annotated, "leftImg8bit/{split}/{group}/{name}_leftImg8bit.png")
    kinds = ("images", "labels", "inst_map", *(["images2048"] if hires else []))
    return [
        Job(key[1], image, labels.files[key], insts.files[key],
            target_files(output / OUR_SPLIT[key[0]], key[1], kinds))
        for key, image in sorted(images.files.items())
    ]  # fmt: skip


def convert(job: Job) -> Mapping[str, np.ndarray]:
    """Return the scaled parts of one frame; raises `DataError` for other annotations than the official ones."""
    maps = job.load_known(len(CityscapesDataset.built_in.names), "labelIds 0 to 33 (not trainIds)")
    height, width = maps.label.shape
    if width != 2 * height:
        raise DataError(f"{job.image}: {width}x{height}; Cityscapes frames are twice as wide as high")
    if "images2048" in job.targets and width != FULL_WIDTH:
        raise DataError(f"{job.image}: {width}x{height}; --hires needs the official frames of 2048x1024")
    small = scale_short_side(maps, SHORT_SIDE)
    assert small.inst is not None, "every job has instanceIds"
    return {
        "images": small.image,
        "labels": small.label.astype(np.uint8),
        "inst_map": small.inst.astype(np.uint16),
        "images2048": maps.image,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument(
        "--source", type=Path, nargs="+", required=True, metavar="PATH", help=f"{PICTURES} and {MAPS}, or their folders"
    )
    parser.add_argument("--hires", action="store_true", help="also write images2048/, about 1.5 GB of JPEG")
    add_common_flags(parser, output="datasets/cityscapes")
    opt = parser.parse_args(arguments)
    jobs = find_jobs(SourceSet(opt.source), opt.output, hires=opt.hires)
    write_data_set(
        opt, jobs, convert,
        mode="cityscapes", classes=CityscapesDataset.built_in, script="prepare_cityscapes.py",
        settings={"short_side": SHORT_SIDE}, official=OFFICIAL,
    )  # fmt: skip
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
