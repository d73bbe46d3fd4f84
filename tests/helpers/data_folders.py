"""A small data set on disk and options for it, for the tests of the data layer."""

import json
from types import SimpleNamespace

import numpy as np
from PIL import Image

from data import DATASETS
from scripts.pack_dataset import main as pack_dataset

TABLE = {
    "num_classes": 5,
    "ignore_id": 255,
    "classes": [{"id": i, "name": f"c{i}", "color": [i, 2 * i, 3 * i], "thing": i >= 3} for i in range(5)],
}


def maps_of(index, *, height=80, width=96):
    """Blocks of 16 pixels: image noise, labels 0..4, instances class * 1000 + k for classes 3 and 4."""
    rng = np.random.RandomState(index)
    label = rng.randint(0, 5, (height // 16, width // 16)).repeat(16, 0).repeat(16, 1).astype(np.uint8)
    label[:16, :16] = 3
    inst = label.astype(np.uint16)
    column = np.arange(width)[None] // 48
    inst = np.where(label >= 3, label.astype(int) * 1000 + column, inst).astype(np.uint16)
    image = rng.randint(0, 256, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    return image, label, inst


def make_folder(root, *, splits=("train", "test"), count=3, table=TABLE, **size):
    """Write <root>/<split>/{images,labels,inst_map}/p<i>.png and classes.json; returns root."""
    for s, split in enumerate(splits):
        for kind in ("images", "labels", "inst_map"):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            for kind, array in zip(("images", "labels", "inst_map"), maps_of(10 * s + i, **size), strict=True):
                Image.fromarray(array).save(root / split / kind / f"p{i}.png")
    if table:
        (root / "classes.json").write_text(json.dumps(table))
    return root


def options(mode="custom", **changes):
    """All options that a data set reads, completed."""
    opt = SimpleNamespace(
        dataset_mode=mode, dataroot=None, crop_size=64, load_size=None, label_nc=None, ignore_label=None,
        label_map=None, cache="none", mask_schedule="random", mask_dir=None, seed=0, inst_class_rule="majority",
        num_workers=0, streets_train_size=4, streets_test_size=3, streets_seed=0,
    )  # fmt: skip
    vars(opt).update({k: str(v) if k in ("dataroot", "mask_dir") else v for k, v in changes.items()})
    vars(opt).update(DATASETS.get(mode).complete_options(opt))
    return opt


def dataset(mode="custom", *, split="train", augment=False, task="free_form", **changes):
    return DATASETS.get(mode).from_options(options(mode, **changes), split=split, augment=augment, task=task)


def pack(source, output, *flags):
    """Pack a folder, two samples to a shard; returns `output`."""
    assert pack_dataset(["--dataroot", str(source), "--output", str(output), "--per_shard", "2", *flags]) == 0
    return output
