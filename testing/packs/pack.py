"""A pack: the pictures, masks, label and instance maps of a task, with hashes and a manifest.

    real/ mask/ label/ inst/   a PNG per picture and folder, of one name
    <form>/                    the same once more, as another project reads it (`testing/packs/forms.py`)
    manifest.json              what it is, and the SHA-256 of every file

Masks are 255 where a pixel is to be generated, else 0. Labels are ids in one channel, instances dense ids 0, 1, ... per
picture (16 bit where 8 do not hold them). Shapes: H x W pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data.base_dataset import BaseDataset
from data.masks import MaskSetHash, has_truth
from testing.packs.forms import FORMS, Entry, Picture, runs_of
from util.batch import Batch
from util.errors import DataError, UserError
from util.files import write_text
from util.images import read_binary, read_image, read_map, save_png, to_uint8
from util.listing import is_file_name
from util.text_files import parse_json
from util.versions import current_commit, library_versions

MANIFEST = "manifest.json"
VERSION = 1
FOLDERS = REAL, MASK, LABEL, INST = ("real", "mask", "label", "inst")
IGNORED = 255  # what an id below 0 becomes in a file
NOT_HASHED = ("pack", "made_by", "notes", "forms", "files")  # of a manifest: who made it, and what others want of it
REFERENCE, DRAW = "the same cuts of the same files, 8 bit", "first of each picture"


@dataclass(frozen=True)
class Pack:
    """A pack on disk: its folder and manifest."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Twelve hex digits that name manifest and files, whoever made them."""
        return str(self.manifest["pack"])[:12]

    @cached_property
    def texts(self) -> dict[str, str]:
        """Names of the pictures, in order, each with the classes under its mask."""
        return {str(picture["name"]): str(picture["text"]) for picture in self.manifest["pictures"]}

    @property
    def palette(self) -> np.ndarray:
        """(N,3) uint8 colours to show the classes in."""
        return np.array([entry["colour"] for entry in self.manifest["classes"]], np.uint8)

    @property
    def class_colours(self) -> dict[int, np.ndarray]:
        """Mean colour (3,) of each class in the training split, of those that occur there."""
        return {int(label): np.array(colour) for label, colour in self.manifest["class_colours"].items()}

    def result_line(self) -> dict[str, Any]:
        """Return what a result line of test.py would say of the pictures, without numbers."""
        manifest = self.manifest
        labels = {"label_nc": manifest["label_nc"], "ignore_label": manifest["ignore_label"]}
        protocol = {**manifest["data"], "run": f"pack {self.id}", "mask_set": manifest["mask_set"]}
        return {"task": manifest["task"], "num_images": len(self.texts), "step": None, "metrics": {},
                "details": {"labels": labels}, "protocol": protocol}  # fmt: skip

    def item(self, name: str) -> Picture:
        """Read a picture; raises `DataError`."""
        real, mask, label, inst = (self.folder / kind / f"{name}.png" for kind in FOLDERS)
        return Picture(name, self.texts[name], read_image(real), read_binary(mask) > 0, read_map(label, "label map"),
                    read_map(inst, "instance map"))  # fmt: skip

    def verify(self) -> None:
        """Raise `DataError` if a file is missing or not as it was packed."""
        wrong = []
        for name, packed in self.manifest["files"].items():
            path = self.folder / name
            if not path.is_file():
                wrong.append(f"{name} is missing")
            elif file_hash(path) != packed:
                wrong.append(f"{name} was changed")
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise DataError(f"{self.folder}: not the pack that {MANIFEST} tells of: {'; '.join(wrong[:5])}{more}. Pack "
                            "it again, or fetch it whole")  # fmt: skip


def read_pack(folder: Path) -> Pack:
    """Return a pack whose manifest is sound; `Pack.verify` looks at the files. Raises `UserError`."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder}: no pack: it has no {MANIFEST}; scripts/pack_benchmark.py makes one")
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
        version, told = manifest["version"], manifest["pack"]
        unsafe = unsafe_names(manifest) if version == VERSION else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a manifest of scripts/pack_benchmark.py ({error!r}); pack it again") from error
    if version != VERSION:
        raise DataError(f"{path}: a pack of version {version}, this program reads {VERSION}; pack it again")
    if unsafe:
        raise DataError(f"{path}: unsafe name {unsafe[0]!r}: files would be read and written outside of their folders; "
                        "pack it again, without '/', '\\' and leading '.' in names")  # fmt: skip
    if manifest_hash(manifest) != told:
        raise DataError(f"{path}: the manifest was changed since it was written; pack it again, or fetch it whole")
    return Pack(folder, manifest)


def unsafe_names(manifest: Mapping[str, Any]) -> list[str]:
    """Return the names in a manifest that lead out of the folders where the pack's files lie and its results go."""
    pictures = (picture["name"] for picture in manifest["pictures"])
    parts = [manifest["task"], manifest["data"]["split"], *pictures]
    unsafe = [name for name in parts if not is_file_name(name)]
    return unsafe + [name for name in manifest["files"] if not all(map(is_file_name, name.split("/")))]


def manifest_hash(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a pack is: not of who made it, nor of forms, which hold the same once more."""
    files = {name: digest for name, digest in manifest["files"].items() if name.split("/")[0] in FOLDERS}
    other = {name: value for name, value in manifest.items() if name not in NOT_HASHED}
    return hashlib.sha256(json.dumps({**other, "files": files}, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class PackWriter:
    """Writes a pack picture by picture.

    Args:
        folder: new or empty.
        dataset: what the pictures are of; its classes and task go into the manifest.
        forms: names of `FORMS`.
    """

    def __init__(self, folder: Path, dataset: BaseDataset, forms: Sequence[str]) -> None:
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"--output {folder}: holds files already; name a new folder, or remove it")
        self.folder, self.dataset, self.forms = folder, dataset, list(forms)
        self._masks = MaskSetHash()
        self._entries: list[Entry] = []
        self._pictures: list[dict[str, Any]] = []

    def add(self, batch: Batch) -> None:
        """Take a batch (on the CPU), in the order of the data set."""
        for i, name in enumerate(batch["name"]):
            mask = batch["mask"][i, 0].numpy() > 0
            label = batch["label"][i].numpy()
            self._masks.update(name, mask)
            maps = {
                REAL: to_uint8(batch["image"][i]),
                MASK: mask.astype(np.uint8) * 255,
                LABEL: smallest(np.where(label < 0, IGNORED, label)),
                INST: smallest(batch["inst"][i].numpy()),
            }
            files = {kind: self.folder / kind / f"{name}.png" for kind in FOLDERS}
            for kind, array in maps.items():
                save_png(array, files[kind])
            text = class_text(label[mask], self.dataset.class_names, self.dataset.ignore_label)
            self._pictures.append({"name": name, "text": text, "erased": round(float(mask.mean()), 6)})
            self._entries.append(Entry(name, text, runs_of(mask)))
            picture = Picture(name, text, maps[REAL], mask, maps[LABEL], maps[INST])
            for form in self.forms:
                FORMS[form].add(self.folder / form, picture, self.dataset.ignore_label)

    def finish(
        self, data: Mapping[str, Any], class_colours: Mapping[int, Sequence[float]], notes: Sequence[str]
    ) -> Pack:
        """Write the lists of the forms and the manifest; `data` is the protocol of what was cut and how."""
        for form in self.forms:
            if finish := FORMS[form].finish:
                finish(self.folder / form, self._entries)
        dataset = self.dataset
        colours = dataset.palette.tolist()
        manifest = {
            "version": VERSION,
            "task": dataset.task,
            "has_truth": has_truth(dataset.task),
            "data": {**data, "reference": REFERENCE, "draw": DRAW},
            "mask_set": self._masks.hexdigest(),
            "masks": "255: to be generated, 0: given",
            "size": [dataset.crop_size, dataset.crop_size],
            "label_nc": dataset.label_nc,
            "ignore_label": dataset.ignore_label,
            "classes": [
                {"id": i, "name": name, "colour": colour}
                for i, (name, colour) in enumerate(zip(dataset.class_names, colours, strict=True))
            ],
            "class_colours": {str(label): [round(c, 3) for c in colour] for label, colour in class_colours.items()},
            "notes": list(notes),
            "pictures": self._pictures,
            "forms": {form: {"masks": FORMS[form].masks, "results": FORMS[form].result} for form in self.forms},
            "files": {
                path.relative_to(self.folder).as_posix(): file_hash(path)
                for kind in (*FOLDERS, *self.forms)
                for path in sorted((self.folder / kind).rglob("*"))
                if path.is_file()
            },
            "made_by": {"commit": current_commit(), "versions": library_versions()},
        }
        manifest["pack"] = manifest_hash(manifest)
        write_text(self.folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        return Pack(self.folder, manifest)


def smallest(ids: np.ndarray) -> np.ndarray:
    """Return ids (H,W) in one byte where they fit, else in two."""
    return ids.astype(np.uint8 if ids.max(initial=0) < 256 else np.uint16)


def class_text(labels: np.ndarray, names: Sequence[str], ignored: int | None) -> str:
    """Return the names of the classes among some pixels, the largest first: a prompt for methods that take text."""
    counts = Counter({int(i): int(n) for i, n in zip(*np.unique(labels, return_counts=True), strict=True)})
    found = [i for i, _ in sorted(counts.items(), key=lambda each: (-each[1], each[0]))]
    return ", ".join(names[i] for i in found if 0 <= i < len(names) and i != ignored)


def mean_colours(sums: np.ndarray, pixels: np.ndarray) -> dict[int, list[float]]:
    """Return the mean colour of each class by sums (N,3) and numbers (N,) of its pixels, of those that occur."""
    return {int(i): (sums[i] / pixels[i]).tolist() for i in np.flatnonzero(pixels)}
