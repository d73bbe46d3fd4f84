"""Results for the page, and the command that makes the same ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from data.edit.scenes import Scene
from semedit.editor import Editor
from semedit.page.commands import command_line, run_flags
from semedit.page.files import archive, inst_png, label_png, picture_png
from semedit.page.jobs import Job
from semedit.page.studio import Studio
from semedit.styles import Style, StyleReference
from util.errors import UserError

MOST_RESULTS = 10
LARGEST_SEED = 1 << 31
CLASS_ID = re.compile(r"0|[1-9][0-9]{0,4}")  # one way to write each, so that none is there twice


@dataclass(frozen=True)
class EditRequest:
    """What is to be made of a scene.

    Args:
        scene: with a mask.
        count: number of results, or of steps between two styles.
        seed: of the draws.
        style: "bank", "mean", "codes" or "reference".
        style_class: the class that takes its style from `reference`.
        reference: the scene that lends it.
        between: the results are steps from one draw to a second one, or to the codes, or to the reference.
        codes: numbers of codes in the bank by class, of "codes".
    """

    scene: Scene
    count: int
    seed: int
    style: str = "bank"
    style_class: int | None = None
    reference: Scene | None = None
    between: bool = False
    codes: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, editor: Editor, scene: Scene, wish: Mapping[str, Any], reference: Scene | None) -> EditRequest:
        """Return the request of the page; raises `UserError` for values that it does not offer."""
        count, seed, style = wish.get("count"), wish.get("seed"), wish.get("style", "bank")
        between, chosen = wish.get("between") is True, wish.get("style_class")
        if type(count) is not int or not 1 + between <= count <= MOST_RESULTS:
            raise UserError(f"the number of results is from {1 + between} to {MOST_RESULTS}")
        if type(seed) is not int or not 0 <= seed < LARGEST_SEED:
            raise UserError(f"the seed is a whole number from 0 to {LARGEST_SEED - 1}")
        if style not in ("bank", "mean", "codes", "reference"):
            raise UserError(
                "a style is drawn from the bank, chosen there, the mean of its class, or that of a reference"
            )
        if editor.bank is None and (style != "bank" or between):
            raise UserError(f"a run of {editor.opt.model} draws no styles")
        if between and style == "mean":
            raise UserError("the mean is a single style per class: there is nothing between two of them")
        if style == "codes":
            codes = _codes(wish.get("codes"))
            editor.source(codes, "style")  # which refuses those that the bank does not have
            return cls(scene, count, seed, style, between=between, codes=codes)
        if style != "reference":
            return cls(scene, count, seed, style, between=between)
        if reference is None or type(chosen) is not int or not 0 <= chosen < len(editor.names):
            raise UserError("a style from a reference needs a picture and a class of things in it")
        return cls(scene, count, seed, style, chosen, reference, between)

    def asked(self) -> Style:
        """Return the style as `Editor.source` takes it."""
        if self.reference is not None and self.style_class is not None:
            lent = self.reference
            return StyleReference(self.style_class, lent.image, lent.label, lent.inst)
        return dict(self.codes) or ("mean" if self.style == "mean" else "bank")

    def repeats(self, drawn: Mapping[str, int], names: list[str]) -> bool:
        """Return whether further results would equal one whose draws these are, by class name."""
        known = set(drawn) if self.style == "mean" else {names[label] for label in self.codes}
        return not self.between and set(drawn) <= known


def _codes(given: Any) -> dict[int, int]:
    """Return the numbers of codes by class that the page has sent; raises `UserError`."""
    if not isinstance(given, dict) or not all(CLASS_ID.fullmatch(k) and type(v) is int for k, v in given.items()):
        raise UserError("the request is malformed (codes are not whole numbers by class)")
    return {int(key): number for key, number in given.items()}


def carry_out(studio: Studio, request: EditRequest, job: Job) -> None:
    """Make the results of a request, one by one, as files of a job; then what repeats them."""
    editor, scene = studio.editor, request.scene
    frames = editor.frames(request.count, editor.source(request.asked(), "style"), interpolate=request.between)
    same: set[bytes] = set()
    for number, painted in enumerate(editor.paint(scene, frames, request.seed), start=1):
        job.add(result_name(scene, number), picture_png(painted.picture))
        same.add(painted.picture.tobytes())
        job.tell(drawn=dict(painted.drawn))
        if request.repeats(painted.drawn, editor.names) and number < request.count:
            job.tell(note=f"one result instead of {request.count}: no style was drawn at random, so others equal it")
            request, frames = replace(request, count=number), frames[:number]
            break
        job.step(number)
    line = command(editor, request)
    job.tell(titles=[frame.title for frame in frames], between=request.between, command=line)
    if len(same) == 1 and request.count > 1:
        job.tell(note="all results are the same: one style alone is known")
    files = {**job.files, **inputs(studio, request), "command.txt": f"{line}\n".encode()}
    job.add(f"{scene.name}.zip", archive(files))


def result_name(scene: Scene, number: int) -> str:
    """Return the file of a result, as scripts/edit.py names it."""
    return f"{scene.name}_edit.png" if number == 1 else f"{scene.name}_edit_{number}.png"


def inputs(studio: Studio, request: EditRequest) -> dict[str, bytes]:
    """Return the files that `command` names."""
    editor, name = studio.editor, request.scene.name
    files = {**_maps(editor, request.scene, name), f"{name}_mask.png": _mask_png(request.scene.mask)}
    return files if request.reference is None else files | _maps(editor, request.reference, f"{name}_style")


def _mask_png(mask: np.ndarray) -> bytes:
    return picture_png(255 * mask.astype(np.uint8))


def _maps(editor: Editor, scene: Scene, name: str) -> dict[str, bytes]:
    return {
        f"{name}.png": picture_png(scene.image),
        f"{name}_label.png": label_png(scene.label, editor.classes.palette),
        f"{name}_inst.png": inst_png(scene.inst, rgb=editor.rules.inst_rgb),
    }


def command(editor: Editor, request: EditRequest) -> str:
    """Return the command that makes the results of a request from `inputs`, byte for byte."""
    opt, name = editor.opt, request.scene.name
    line = run_flags(opt)
    if opt.label_map:
        line += ["--label_map", ""]  # the maps have been renamed already
    line += ["--image", f"{name}.png", "--label", f"{name}_label.png", "--inst", f"{name}_inst.png"]
    line += ["--mask", f"{name}_mask.png", "--seed", str(request.seed)]
    line += ["--interpolate" if request.between else "--num_samples", str(request.count)]
    if request.style == "mean":
        line += ["--style_source", "mean"]
    if request.style_class is not None:
        line += ["--style_image", f"{name}_style.png", "--style_label", f"{name}_style_label.png"]
        line += ["--style_inst", f"{name}_style_inst.png", "--style_class", str(request.style_class)]
    if request.codes:
        line += ["--style_code", ",".join(f"{label}:{number}" for label, number in request.codes.items())]
    return command_line("edit", [*line, "--output", result_name(request.scene, 1)])
