"""A pack as other projects read it: names of files, polarity of masks. docs/protocols.md says where each was read.

Shapes: pictures (H,W,3) uint8, mask (H,W) bool, label and inst (H,W) ids.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util.errors import DataError
from util.files import write_text
from util.images import save_png


@dataclass(frozen=True)
class Picture:
    """A picture as it is packed: `image`, `mask`, `label` and `inst` as their names say, `text` names its classes."""

    name: str
    text: str
    image: np.ndarray
    mask: np.ndarray
    label: np.ndarray
    inst: np.ndarray


@dataclass(frozen=True)
class Entry:
    """What lists of all pictures say of one; `runs` of its mask, see `runs_of`."""

    name: str
    text: str
    runs: tuple[int, ...]


@dataclass(frozen=True)
class Form:
    """A folder in another project's layout.

    Args:
        masks: which value of its masks is generated.
        add: writes the files of a picture into the folder; also gets the ignored label id, or None.
        finish: writes what holds for all pictures.
        result: name of the file that the project makes of a picture.
    """

    masks: str
    add: Callable[[Path, Picture, int | None], None]
    finish: Callable[[Path, Sequence[Entry]], None] | None = None
    result: str = "{name}.png"


def _lama(folder: Path, picture: Picture, ignored: int | None) -> None:
    """`bin/predict.py indir=.../lama dataset.img_suffix=.png`: a mask beside each picture."""
    if "mask" in picture.name:
        raise DataError(f"{picture.name}: LaMa takes files with 'mask' in their names for masks; rename the picture")
    save_png(picture.image, folder / f"{picture.name}.png")
    save_png(white(picture.mask), folder / f"{picture.name}_mask.png")


def _mat(folder: Path, picture: Picture, ignored: int | None) -> None:
    """`generate_image.py --dpath .../images --mpath .../masks`: pairs in the order of their names; holes are black."""
    save_png(picture.image, folder / "images" / f"{picture.name}.png")
    save_png(white(~picture.mask), folder / "masks" / f"{picture.name}.png")


def _diffusers(folder: Path, picture: Picture, ignored: int | None) -> None:
    save_png(picture.image, folder / "images" / f"{picture.name}.png")
    save_png(white(picture.mask), folder / "masks" / f"{picture.name}.png")


def _diffusers_prompts(folder: Path, entries: Sequence[Entry]) -> None:
    lines = [{"file_name": f"images/{e.name}.png", "mask": f"masks/{e.name}.png", "prompt": e.text} for e in entries]
    write_text(folder / "metadata.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))


def _brushnet(folder: Path, picture: Picture, ignored: int | None) -> None:
    """BrushBench's program writes over its results if pictures do not end in .jpg; it reads PNG under that name."""
    save_png(picture.image, folder / "images" / f"{picture.name}.jpg")


def _brushnet_mapping(folder: Path, entries: Sequence[Entry]) -> None:
    mapping = {
        e.name: {"image": f"images/{e.name}.jpg", "caption": e.text, "inpainting_mask": list(e.runs)} for e in entries
    }
    write_text(folder / "mapping_file.json", json.dumps(mapping) + "\n")


def _spade(folder: Path, picture: Picture, ignored: int | None) -> None:
    """`--dataset_mode custom --label_dir ...`; 255 is "unknown" there (`--contain_dontcare_label`)."""
    label = picture.label if ignored is None else np.where(picture.label == ignored, 255, picture.label)
    save_png(picture.image, folder / "images" / f"{picture.name}.png")
    save_png(label.astype(picture.label.dtype), folder / "labels" / f"{picture.name}.png")
    save_png(picture.inst, folder / "inst" / f"{picture.name}.png")


def _spmpgan(folder: Path, picture: Picture, ignored: int | None) -> None:
    """The data folder of the release, which takes pictures named .jpg alone; OpenCV reads PNG under that name."""
    save_png(picture.image, folder / "test" / "images" / f"{picture.name}.jpg")
    save_png(picture.label, folder / "test" / "labels" / f"{picture.name}.png")
    save_png(picture.inst, folder / "test" / "inst_map" / f"{picture.name}.png")
    save_png(white(picture.mask), folder / "predefined_mask" / f"{picture.name}.png")


WHITE = "255: to be generated"
FORMS = {
    "lama": Form(WHITE, _lama, result="{name}_mask.png"),
    "mat": Form("0: to be generated, 255: given", _mat),
    "diffusers": Form(WHITE, _diffusers, _diffusers_prompts),  # PowerPaint and the pipelines
    "brushnet": Form("runs of pixels to be generated", _brushnet, _brushnet_mapping, result="{name}.jpg"),
    "spade": Form("none: whole pictures are generated, import them with --paste_known", _spade),
    "spmpgan": Form(WHITE, _spmpgan),
}


def white(where: np.ndarray) -> np.ndarray:
    """Return (H,W) uint8, 255 where `where` is true."""
    return where.astype(np.uint8) * 255


def runs_of(mask: np.ndarray) -> tuple[int, ...]:
    """Return start (from 1) and length of each run of true pixels, row after row."""
    edges = np.diff(np.concatenate([[0], mask.reshape(-1).astype(np.int8), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return tuple(np.stack([starts + 1, ends - starts], 1).reshape(-1).tolist())
