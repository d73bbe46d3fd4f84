"""Make datasets/ade20k_room or datasets/ade20k_landscape from the ADE20K scene-parsing archives or their folders.

    python scripts/prepare_ade20k.py --subset room --source ADEChallengeData2016.zip annotations_instance.tar
    python scripts/prepare_ade20k.py --subset landscape --source ADEChallengeData2016.zip

`annotations_instance.tar` (Places Challenge 2017) holds the instances, which only `room` needs. Scenes are chosen by
`sceneCategories.txt`: room = bedroom, hotel_room, living_room (2246 training pictures, as published). The authors'
list for landscape is not released: the default, SCENES below, is a choice of natural outdoor scenes, so its counts
and numbers cannot equal theirs; `--scenes` takes another.

The short side becomes 256, and a longer side than 384 is cut to it, half at each end (the authors: short
side at least 256, long side at most 384; WuyangLuo/SPMPGAN#1). Pictures LANCZOS and JPEG quality 92, maps nearest.
Labels keep the ids of the scene parsing, 0 = other, 1 to 150. The archives' validation split becomes `test`. Run again
to continue after an interruption.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import numpy as np

from data.ade20k_classes import NAMES, THINGS
from data.prepare.archives import Found, SourceSet, content
from data.prepare.data_set import write_data_set
from data.prepare.writing import Job, add_common_flags, target_files
from data.records import Maps
from data.transforms import scale_short_side
from options.parser import script_parser
from util.class_table import ClassTable
from util.errors import EXIT_OK, DataError, UserError, run_main
from util.images import default_palette
from util.registry import did_you_mean

ARCHIVE, INSTANCES = "ADEChallengeData2016.zip", "annotations_instance.tar"
OUR_SPLIT = {"training": "train", "validation": "test"}
PUBLISHED = {"room": {"train": 2246, "test": 255}, "landscape": {"train": 1689, "test": 155}}
SHORT_SIDE, LONG_SIDE = 256, 384
SCENES = {
    "room": ("bedroom", "hotel_room", "living_room"),
    # nature, as Flickr landscapes show it; ours, see above. The file names some scenes by their last word alone
    "landscape": tuple(
        "badlands bamboo_forest bayou beach bog butte canal_natural canyon cliff coast cove creek crevasse "
        "desert_sand desert_vegetation dune estuary field_cultivated field_wild fjord flood_plain foothill "
        "foreshore forest_broadleaf forest_needleleaf forest_path glacier glen gorge grassland grove gulch "
        "hayfield heath hill hillock hoodoo hot_spring ice_floe ice_shelf iceberg inlet islet jungle lagoon "
        "lake_artificial lake_natural marsh meadow moor mountain mountain_path mountain_snowy natural_spring "
        "ocean pasture plain pond prairie promontory rainforest rapids ravine rice_paddy rift_valley river "
        "rock_arch savanna scrubland sea_cliff seaside semidesert shore snowbank snowfield steppe stream swamp "
        "tidal_basin tidal_river tundra valley volcano waterfall_block waterfall_cascade waterfall_fan "
        "waterfall_plunge watering_hole waterscape waterway wave wetland wheat_field woodland "
        "block broadleaf cascade cultivated fan natural needleleaf plunge sand vegetation wild".split()
    ),
}


def read_scenes(sources: SourceSet) -> dict[str, str]:
    """Return the scene of every picture; raises `DataError` for a file of another form."""
    source = sources.one("sceneCategories.txt", archive=ARCHIVE)
    text = content(source).decode("utf-8", "replace")
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if bad := [row for row in rows if len(row) != 2]:
        raise DataError(f"{source}: '{' '.join(bad[0])}' is not a line of a picture's name and its scene")
    return {name: scene for name, scene in rows}


def choose(scenes: Mapping[str, str], wanted: Sequence[str], *, default: bool) -> set[str]:
    """Return the names of all pictures of the wanted scenes; those of `--scenes` must exist."""
    known = set(scenes.values())
    for scene in () if default else wanted:
        if scene not in known:
            raise UserError(f"--scenes: '{scene}' is not a scene of sceneCategories.txt.{did_you_mean(scene, known)}")
    return {name for name, scene in scenes.items() if scene in set(wanted)}


def find_jobs(sources: SourceSet, chosen: set[str], output: Path, *, with_instances: bool) -> list[Job]:
    """Pair pictures, labels and instances of the chosen names; raises `UserError` for an incomplete archive."""

    def find(folder: str, ending: str, archive: str) -> Found:
        return sources.find(rf"{folder}/(?P<split>training|validation)/(?P<name>[^/]+){ending}", archive=archive)

    images, labels = find("images", r"\.jpg", ARCHIVE), find("annotations", r"\.png", ARCHIVE)
    insts = find("annotations_instance", r"\.png", INSTANCES) if with_instances else None
    splits = {name: split for split, name in images.files}
    if absent := sorted(chosen - set(splits)):
        raise DataError(
            f"{images.where} lacks {len(absent)} pictures that sceneCategories.txt lists, the first: {absent[0]}.jpg. "
            "The archive is partial, or only partly unpacked: fetch it again"
        )
    keys = sorted((splits[name], name) for name in chosen)
    labels.check_complete(keys, "annotations/{split}/{name}.png")
    if insts:
        insts.check_complete(keys, "annotations_instance/{split}/{name}.png")
    kinds = ("images", "labels", *(["inst_map"] if insts else []))
    return [
        Job(key[1], images.files[key], labels.files[key], insts.files[key] if insts else None,
            target_files(output / OUR_SPLIT[key[0]], key[1], kinds))
        for key in keys
    ]  # fmt: skip


def cut_long_side(maps: Maps, limit: int) -> Maps:
    """Cut the middle out of a picture that is longer than `limit` pixels in a side."""
    height, width = maps.label.shape
    top, left = max(0, height - limit) // 2, max(0, width - limit) // 2
    part = (slice(top, top + limit), slice(left, left + limit))
    return Maps(maps.image[part], maps.label[part], None if maps.inst is None else maps.inst[part])


def convert(job: Job) -> Mapping[str, np.ndarray]:
    """Return the scaled parts of one picture; an instance is a colour: red its category, green its number."""
    maps = job.load_known(len(NAMES), "scene-parsing labels 0 to 150", inst_rgb=True)
    maps = cut_long_side(scale_short_side(maps, SHORT_SIDE), LONG_SIDE)
    parts = {"images": maps.image, "labels": maps.label.astype(np.uint8)}
    if maps.inst is not None:
        parts["inst_map"] = np.stack([maps.inst >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
    return parts


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--subset", choices=sorted(SCENES), required=True, help="kind of scenes to take")
    parser.add_argument(
        "--source", type=Path, nargs="+", required=True, metavar="PATH",
        help=f"{ARCHIVE} and, for room, {INSTANCES}, or their folders",
    )  # fmt: skip
    parser.add_argument("--scenes", help="comma list of scenes instead of the subset's own")
    add_common_flags(parser, output="datasets/ade20k_<subset>")
    opt = parser.parse_args(arguments)
    mode = f"ade20k_{opt.subset}"
    if opt.output == parser.get_default("output"):
        opt.output = Path("datasets") / mode
    wanted = sorted(filter(None, map(str.strip, opt.scenes.split(",")))) if opt.scenes else SCENES[opt.subset]
    sources = SourceSet(opt.source)
    scenes = read_scenes(sources)
    chosen = choose(scenes, wanted, default=not opt.scenes)
    if not chosen:
        raise UserError(f"sceneCategories.txt has no picture of {', '.join(wanted)}")
    room = opt.subset == "room"
    jobs = find_jobs(sources, chosen, opt.output, with_instances=room)
    settings = {"subset": opt.subset, "scenes": list(wanted), "short_side": SHORT_SIDE, "long_side": LONG_SIDE}
    print("scenes: " + ", ".join(f"{scene} {n}" for scene, n in Counter(scenes[j.name] for j in jobs).most_common()))
    # without instance maps a class is one region, not several things
    classes = ClassTable(NAMES, default_palette(len(NAMES)), THINGS if room else frozenset())
    write_data_set(
        opt, jobs, convert,
        mode=mode, classes=classes, script="prepare_ade20k.py", settings=settings, official=PUBLISHED[opt.subset],
    )  # fmt: skip
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
