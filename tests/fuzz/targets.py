"""What is fuzzed: functions of bytes, each a way from a file or a command line of anybody into the programs.

Each may raise `UserError` and nothing else; `SEEDS` are honest inputs to begin from.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save as safetensors_bytes
from torch import nn

from data.packed import FORMAT, MANIFEST, PackedRecords, Row, content_digest, shard_name
from data.prepare.archives import content, list_files, opened
from data.records import read_class_table
from data.single_image import read_opaque
from metrics.folders import read_exact
from metrics.registry import METRICS
from metrics.reporting.summary import read_lines, summarise
from metrics.segments.external import read_card
from metrics.segments.segmenters import CARD_FILE, load_segmenter
from models.released_weights.s2prest import read_embeddings
from models.style_bank import StyleBank
from options.base_options import OPTIONS_FILE
from options.edit_options import EditOptions
from options.experiment import read_experiment
from options.test_options import TestOptions
from options.train_options import TrainOptions
from scripts.make_table import last_line
from scripts.prepare_folder import listed_splits, read_names
from trainers.checkpoint import load_checkpoint, save_checkpoint
from trainers.restore import load_run
from trainers.weights import load_weights
from util.errors import UserError
from util.images import read_binary, read_id_map, read_image

Target = Callable[[bytes, Path], None]
RUN = {"model": "divsem", "dataset_mode": "streets", "ngf": 4, "crop_size": 64}


def of_file(name: str, *reads: Callable[[Path], Any]) -> Target:
    """Return a target that writes the bytes to a file of this name and gives it to readers."""

    def target(data: bytes, folder: Path) -> None:
        path = folder / name
        path.write_bytes(data)
        for read in reads:
            with contextlib.suppress(UserError):
                read(path)

    return target


def parse_options(data: bytes, folder: Path) -> None:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    (run / OPTIONS_FILE).write_text(yaml.safe_dump(RUN))
    given = data.decode("utf-8", "surrogateescape").split("\n")[:20]
    where = ["--name", "run", "--checkpoints_dir", str(folder)]
    for options in (TrainOptions, TestOptions, EditOptions):
        with contextlib.suppress(UserError, SystemExit), contextlib.redirect_stdout(io.StringIO()):  # --help leaves
            options().parse([*where, *given])


def parse_run(path: Path) -> None:
    """A run's opt.yaml, read by every command."""
    where = ["--name", path.parent.name, "--checkpoints_dir", str(path.parent.parent)]
    edit = ["--image", "i.png", "--label", "l.png", "--mask", "m.png", "--output", "o.png"]
    for command in (
        lambda: TestOptions().parse(where),
        lambda: EditOptions().parse([*where, *edit]),
        lambda: TrainOptions().parse([*where, "--continue_train"]),
    ):
        with contextlib.suppress(UserError), contextlib.redirect_stdout(io.StringIO()):
            command()


def read_archive(path: Path) -> None:
    for source in list_files(path).values():
        with contextlib.suppress(UserError):
            content(source)
            read_image(opened(source))


class Toy:
    """The least of a model: a network that takes a state."""

    def __init__(self) -> None:
        self.netG = nn.Linear(2, 2)

    def load_state(self, state: dict[str, Any]) -> None:
        self.netG.load_state_dict(state["netG"])


def value_of(data: bytes) -> Any:
    """Build nested plain values and tensors from bytes, so that a fuzzer can vary them."""
    stream = iter(data)

    def build(depth: int) -> Any:
        kind = next(stream, 0) % (9 if depth < 4 else 7)
        number = next(stream, 0)
        if kind == 7:
            return [build(depth + 1) for _ in range(number % 4)]
        if kind == 8:
            names = ("model", "ema", "step", "netG", "weight", "bias", "x")
            return {names[next(stream, 0) % 7]: build(depth + 1) for _ in range(number % 5)}
        shapes = ((), (0,), (2,), (2, 2), (3, 1, 2))
        return (None, number, -number / 3, bool(number % 2), "step"[: number % 5], torch.zeros(shapes[number % 5]),
                torch.zeros(2, dtype=torch.int64))[kind]  # fmt: skip

    return build(0)


def read_packed_index(path: Path) -> None:
    """An index beside a shard of zeros, whatever its rows say."""
    rows, size = path.read_bytes(), Row.layout(2).size
    path.write_bytes(rows[: len(rows) // size * size])
    (path.parent / shard_name("train", 0)).write_bytes(bytes(4096))
    split = {"count": max(1, len(rows) // size), "name_bytes": 2, "shards": [4096]}
    (path.parent / MANIFEST).write_text(json.dumps({"format": FORMAT, "splits": {"train": split}}))
    records = PackedRecords(str(path.parent), "train")
    for index in range(len(records)):
        with contextlib.suppress(UserError):
            read_image(records[index].image)


def load_state(data: bytes, folder: Path) -> None:
    """A whole file with content of another form, as a checkpoint."""
    whole = {"model": {"netG": nn.Linear(2, 2).state_dict()}, "ema": None, "step": 3}
    names = ("model", "ema", "step")
    changed = {**whole, names[data[0] % 3]: value_of(data[1:])} if data and data[0] < 192 else value_of(data[1:])
    save_checkpoint(changed, folder / "step_3.pt")
    with contextlib.suppress(UserError), contextlib.redirect_stdout(io.StringIO()):
        load_run(Toy(), folder)  # type: ignore[arg-type]


def load_bank(data: bytes, folder: Path) -> None:
    """A safetensors file of any tensors, as style bank and as weights."""
    shapes = ((0,), (4,), (1, 4), (2, 4), (2, 3), (0, 4), (), (1, 2, 4))
    kinds = (torch.float32, torch.float16, torch.int64, torch.bool)
    names = ("class_1", "class_2", "class_-3", "class_x", "x", "netG.weight", "class_99999999999999999999", "")
    tensors = {
        names[name % 8]: torch.zeros(shapes[shape % 8], dtype=kinds[kind % 4])
        for name, shape, kind in zip(data[::3], data[1::3], data[2::3], strict=False)
    }
    extra = {"weights": data[:4].decode("latin-1"), "step": data[4:8].decode("latin-1")}
    path = folder / "style_bank.safetensors"
    path.write_bytes(safetensors_bytes(tensors, metadata=extra if len(data) % 2 else None))
    for read in (lambda: StyleBank.load(path, style_dim=4), lambda: load_weights(path)):
        with contextlib.suppress(UserError):
            read()


def picture(form: str, mode: str = "RGB", **more: Any) -> bytes:
    array = np.random.default_rng(0).integers(0, 2, (9, 7, 3), np.uint8) * 255
    file = io.BytesIO()
    Image.fromarray(array).convert(mode).save(file, form, **more)
    return file.getvalue()


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def archive(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("a/b.png", picture("PNG"))
    else:
        with tarfile.open(fileobj=file, mode=kind) as made:
            info = tarfile.TarInfo("a/b.png")
            info.size = len(picture("PNG"))
            made.addfile(info, io.BytesIO(picture("PNG")))
    return file.getvalue()


TABLE = {"num_classes": 2, "ignore_id": 255, "objects": [1], "classes": [
    {"id": 0, "name": "a", "color": [1, 2, 3]},
    {"id": 1, "name": "b", "thing": True, "object": {"fill": 0.5, "aspect": [0.5, 2]}, "scene_id": 3}]}  # fmt: skip
LINE = {"metrics": {"l1": 1.0}, "details": {"l1": {"unit": "", "protocol": "p", "count": 3}}, "step": 3,
        "task": "free_form", "num_images": 3, "protocol": {"run": "a", "seed": 0, "mask_set": "x"}}  # fmt: skip
EXPERIMENT = ("title: t\ngroups: {g: {label: l}}\ntrain: &t {ngf: 4}\nrows:\n  a:\n    group: g\n    train: *t\n"
              "    published: {free_form: {fid: 3.5}}\n    provenance: here\n")  # fmt: skip
CARD = "class_names: [a, b]\nshort_side: 64\nmean: [1, 2, 3]\nstd: [1, 2, 3]\nlabel_map: {7: 0}\nvoid: 1\n"
SEGMENTER = "class_names: [a, b]\narch: unet\nwidth: 4\nshort_side: 64\nreal_test: {miou: 3.5}\n"
NAMELESS = base64.b64decode(  # a zip whose member has no name, of which zipfile itself fails
    "UEsDazo/8XJ5X9LdIH8+x+LZ+XuNdUDzGDxd/QCHOSU0AQBQSwECFAMUAAAACACXgHVdU8y7cXwAAAB9AAAABwAAAAAAAAAAAAAAfQEAAHBuAC9h"
    "AGIuZ1BLBQYAAAAAAQABADUAAAChAAAAAAA="
)
FORMS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")
PACKED = {"format": FORMAT, "splits": {"train": {"count": 1, "name_bytes": 2, "shards": [4096]}}}
ROW = Row(0, 0, ((512, 9), (1536, 9), (0, 0)), content_digest("p0", bytes(1545)), "p0").pack(Row.layout(2))
NETWORK = {"netG.weight": torch.zeros(2, 2), "class_1": torch.ones(3, 4)}

TARGETS: dict[str, tuple[Target, list[bytes]]] = {
    "command lines": (parse_options, [
        b"--ngf\n4\n--lr_G\n1e-4\n--mask_types\nfree_form,class", b"--task\nclass\n--metrics\nfid,l1\n--num_samples\n2",
        b"--image\ni\n--label\nl\n--output\no.png\n--add_object\ncar\n--box\n1,2,3,4\n--dilate\n3",
        b"--label_map\n255:0,3:1\n--streets_train_size\n8", b"--model\nsemia\n--dataroot\nx", b"--outpaint\nleft\n3"]),
    "--config": (of_file("c.yaml", lambda path: TrainOptions().parse(["--name", "x", "--config", str(path)])), [
        b"ngf: 4\nlr_G: 1e-4\ntensorboard: false\n", b"model: spmpgan\nmask_types: class\nlabel_map: '255:0'\n"]),
    "opt.yaml": (of_file(OPTIONS_FILE, parse_run), [yaml.safe_dump(RUN).encode(), b"model: spmpgan\nlabel_nc: 9\n"]),
    "experiments": (of_file("e.yaml", lambda path: read_experiment(path, metrics=METRICS.names())),
                    [EXPERIMENT.encode()]),
    "class maps": (of_file("c.yaml", read_card), [CARD.encode()]),
    "segmenter cards": (of_file(CARD_FILE, lambda path: load_segmenter(
        path.parent.name, weights=None, checkpoints_dir=str(path.parent.parent), device=torch.device("cpu"))),
        [SEGMENTER.encode()]),
    "classes.json": (of_file("classes.json", read_class_table), [json.dumps(TABLE).encode()]),
    "packed.json": (of_file(MANIFEST, lambda path: PackedRecords(str(path.parent), "train")),
                    [json.dumps(PACKED).encode()]),
    "indices of packed data": (of_file("train.index", read_packed_index), [ROW, ROW * 2]),
    "result lines": (of_file("metrics.jsonl", lambda path: last_line(path, "free_form", {}),
                             lambda path: summarise(read_lines([str(path)]))),
                     [(json.dumps(LINE) + "\n").encode() * 2]),
    "lists of names": (of_file("names.txt", read_names, lambda path: listed_splits(["a", "b"], [f"train={path}"])),
                       [b"a\nb\n"]),
    "pictures": (of_file("a.png", read_image, read_exact, read_opaque), [
        *(picture(form) for form in FORMS), picture("PNG", "P"), picture("PNG", "RGBA"),
        picture("TIFF", compression="jpeg"), picture("TIFF", compression="tiff_lzw"), picture("PNG", "LA"),
        picture("JPEG", "CMYK")]),
    "maps and masks": (of_file("a.png", read_binary, lambda path: read_id_map(path, "map", rgb_ids=True)), [
        *(picture(form, "L") for form in FORMS), picture("PNG", "I;16"), picture("TIFF", "I"), picture("TIFF", "F"),
        picture("PNG", "1"), picture("PNG", "P")]),
    "archives": (of_file("a.archive", read_archive), [*map(archive, ("zip", "w", "w:gz", "w:bz2", "w:xz")), NAMELESS]),
    "checkpoints": (of_file("step_1.pt", load_checkpoint),
                    [saved({"model": {"netG": NETWORK}, "ema": None, "step": 3})]),
    "states of checkpoints": (load_state, [bytes(range(32)), b"\x02\x01\x07", b"\x00\x08\x04\x03\x08\x02\x04\x05\x03"]),
    "weights and style banks": (of_file("style_bank.safetensors", load_weights,
                                        lambda path: StyleBank.load(path, style_dim=4)),
                                [safetensors_bytes(NETWORK), safetensors_bytes(NETWORK, metadata={"step": "3"})]),
    "tensors of style banks": (load_bank, [b"\x00\x03\x00", b"\x00\x02\x00\x01\x04\x00", b"\x05\x03\x00\x00"]),
    "embeddings.pt": (of_file("embeddings.pt", read_embeddings),
                      [saved({"attention": NETWORK, "string_to_token": {"*": 3}})]),
}  # fmt: skip
