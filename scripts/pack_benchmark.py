"""Export a task as a folder that any method can take: pictures, masks, label and instance maps, names of classes.

    python scripts/pack_benchmark.py --dataset_mode camvid --dataroot datasets/camvid --task free_form --output pack
    python scripts/pack_benchmark.py ... --output pack --form lama mat

The cuts and masks are those of test.py --task with the same flags, under the same mask set. --form writes them once
more as another project reads them. scripts/import_results.py measures what comes back; docs/protocols.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import numpy as np

from data import scene_dataset
from data.loader import make_loader, plain_pictures
from data.masks import FOLDER, OBJECT_TASKS, TASKS
from options.base_options import add_data_flags
from options.parser import StrictParser, script_parser
from testing.packs.forms import FORMS
from testing.packs.pack import Pack, PackWriter, mean_colours
from util.batch import on_host
from util.errors import EXIT_OK, UserError, run_main
from util.files import require_writable
from util.flags import natural, positive_int
from util.images import to_uint8
from util.listing import is_file_name
from util.opt import Opt
from util.progress import progress
from util.shared_flags import add_shared

COLOUR_PICTURES = 500  # of the training split, whose class colours a pack holds


def build_parser(mode: str) -> StrictParser:
    """Return the parser of a data set's packs."""
    parser = script_parser(__doc__)
    add_data_flags(parser)
    group = parser.add_argument_group("pack")
    group.add_argument("--output", type=Path, metavar="DIR", required=True, help="folder to make")
    group.add_argument("--task", choices=(*TASKS, FOLDER), default="free_form", help="kind of masks")
    group.add_argument("--mask_dir", metavar="DIR", help="mask PNGs (white: generate) for --task folder")
    add_shared(group, "test_cuts", "object_classes")
    group.add_argument("--split", default="test", help="split to pack")
    group.add_argument("--num_images", type=positive_int, help="only the first so many that the task can use")
    group.add_argument("--seed", type=int, default=0, help="seed of the masks")
    group.add_argument("--form", nargs="+", choices=FORMS, default=[], help="forms of other projects to add")
    group.add_argument("--batch_size", type=positive_int, default=16, help="pictures at a time")
    group.add_argument("--num_workers", type=natural, default=2, help="processes that load data; 0 for none")
    scene_dataset(mode).modify_commandline_options(parser, is_train=False)
    parser.set_defaults(dataset_mode=mode)
    return parser


def parse(argv: Sequence[str] | None) -> tuple[Opt, Path, list[str]]:
    """Return the options, completed by the data set, the folder to make and the forms to add."""
    probe = StrictParser(add_help=False)
    probe.add_argument("--dataset_mode", default="streets")
    mode = probe.parse_known_args(argv)[0].dataset_mode
    given = vars(build_parser(mode).parse_args(argv))
    output, forms = given.pop("output"), given.pop("form")
    opt = Opt(**given)
    if not is_file_name(opt.split):
        raise UserError(f"--split {opt.split}: results of a pack are named by its split; give it a name without '/'")
    if (opt.task == FOLDER) != (opt.mask_dir is not None):
        raise UserError("--task folder and --mask_dir DIR belong together")
    if opt.object_classes is not None and opt.task not in OBJECT_TASKS:
        raise UserError(f"--object_classes {opt.object_classes}: --task {opt.task} chooses no object")
    vars(opt).update(scene_dataset(mode).complete_options(opt) | {"cache": "none"})  # each picture is read once
    return opt, output, forms


def write_pack(opt: Opt, folder: Path, forms: Sequence[str]) -> Pack:
    """Write the pack of some options."""
    require_writable(folder, "--output")
    dataset = scene_dataset(opt.dataset_mode).from_options(opt, split=opt.split, augment=False, task=opt.task)
    selection = dataset.select(opt.num_images)
    writer = PackWriter(folder, dataset, forms)
    keys = [selection.indices[i : i + opt.batch_size] for i in range(0, len(selection.indices), opt.batch_size)]
    loader = make_loader(dataset, batch_size=opt.batch_size, num_workers=opt.num_workers, keys=keys)
    for batch in map(on_host, progress(loader, desc=f"packing {opt.task}", unit="batch")):
        writer.add(batch)
    data = {
        "dataset_mode": opt.dataset_mode, "split": opt.split, "split_size": len(dataset),
        "left_out": selection.left_out, "seed": opt.seed, "crop_size": opt.crop_size, "load_size": opt.load_size,
        **({"test_cuts": opt.test_cuts} if opt.test_cuts != "centre" else {}),
        **({"object_classes": opt.object_classes} if opt.object_classes else {}),
    }  # fmt: skip
    colours, notes = class_colours(opt)
    return writer.finish(data, colours, [*selection.notes, *notes])


def class_colours(opt: Opt) -> tuple[dict[int, list[float]], list[str]]:
    """Return the mean colour of each class in the training split, and a note if it cannot be read."""
    sums, pixels = np.zeros((opt.label_nc, 3)), np.zeros(opt.label_nc, np.int64)
    try:
        pictures = plain_pictures(opt, "train", COLOUR_PICTURES)
        for batch in map(on_host, progress(pictures, desc="class colours", unit="batch")):
            label, image = batch["label"].numpy(), to_uint8(batch["image"])
            known = (label >= 0) & (label < opt.label_nc)
            ids = label[known]
            pixels += np.bincount(ids, minlength=opt.label_nc)
            for channel in range(3):
                sums[:, channel] += np.bincount(ids, weights=image[..., channel][known], minlength=opt.label_nc)
    except UserError as error:
        return {}, [f"no class colours, as the training split cannot be read: {error}"]
    return mean_colours(sums, pixels), []


def main(argv: Sequence[str] | None = None) -> int:
    pack = write_pack(*parse(argv))
    for note in pack.manifest["notes"]:
        print(f"note: {note}")
    print(f"{len(pack.texts)} pictures, masks {pack.manifest['mask_set']}, pack {pack.id}: {pack.folder}")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
