"""Results for the page, and the command that makes the same ones."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.edit.scenes import Scene
from semedit.editor import Editor, StyleReference
from semedit.page.files import archive, inst_png, label_png, picture_png
from semedit.page.jobs import Job
from semedit.page.studio import Studio
from util.errors import UserError

MOST_RESULTS = 10
LARGEST_SEED = 1 << 31
NOT_OF_THE_RUN = frozenset(
    "name checkpoints_dir host port max_side segmenter segmenter_weights segmenter_classes segmenter_rename trust "
    "palette color_tolerance label_map seed config".split()
)  # flags of the page that its command does not pass on as they are
INSTALLED = UserError.__module__.startswith("semedit.")  # as a package, in which there is no scripts/edit.py
COMMAND = "semedit-edit" if INSTALLED else "python scripts/edit.py"


@dataclass(frozen=True)
class EditRequest:
    """What is to be made of a scene.

    Args:
        scene: with a mask.
        count: number of results, or of steps between two styles.
        seed: of the draws.
        style: "bank", "mean" or "reference".
        style_class: the class that takes its style from `reference`.
        reference: the scene that lends it.
        between: the results are steps from one draw to a second one, or to the reference.
    """

    scene: Scene
    count: int
    seed: int
    style: str = "bank"
    style_class: int | None = None
    reference: Scene | None = None
    between: bool = False

    @classmethod
    def of(cls, editor: Editor, scene: Scene, wish: Mapping[str, Any], reference: Scene | None) -> EditRequest:
        """Return the request of the page; raises `UserError` for values that it does not offer."""
        count, seed, style = wish.get("count"), wish.get("seed"), wish.get("style", "bank")
        between, chosen = wish.get("between") is True, wish.get("style_class")
        if type(count) is not int or not 1 + between <= count <= MOST_RESULTS:
            raise UserError(f"the number of results is from {1 + between} to {MOST_RESULTS}")
        if type(seed) is not int or not 0 <= seed < LARGEST_SEED:
            raise UserError(f"the seed is a whole number from 0 to {LARGEST_SEED - 1}")
        if style not in ("bank", "mean", "reference"):
            raise UserError("a style is drawn from the bank, the mean of its class, or that of a reference")
        if editor.bank is None and (style != "bank" or between):
            raise UserError(f"a run of {editor.opt.model} draws no styles")
        if between and style == "mean":
            raise UserError("the mean is a single style per class: there is nothing between two of them")
        if style != "reference":
            return cls(scene, count, seed, style, between=between)
        if reference is None or type(chosen) is not int or not 0 <= chosen < len(editor.names):
            raise UserError("a style from a reference needs a picture and a class of things in it")
        return cls(scene, count, seed, style, chosen, reference, between)


def carry_out(studio: Studio, request: EditRequest, job: Job) -> None:
    """Make the results of a request, one by one, as files of a job; then what repeats them."""
    editor, scene = studio.editor, request.scene
    style: str | StyleReference = request.style
    if request.reference is not None and request.style_class is not None:
        lent = request.reference
        style = StyleReference(request.style_class, lent.image, lent.label, lent.inst)
    frames = editor.frames(request.count, editor.source(style, "style"), interpolate=request.between)
    same: set[bytes] = set()
    for number, painted in enumerate(editor.paint(scene, frames, request.seed), start=1):
        job.add(result_name(scene, number), picture_png(painted.picture))
        same.add(painted.picture.tobytes())
        job.tell(drawn=dict(painted.drawn))
        job.step(number)
    line = command(editor, request)
    job.tell(titles=[frame.title for frame in frames], between=request.between, command=line)
    if len(same) == 1 and request.count > 1:
        job.tell(note="all results are the same: nothing that has a style is fully erased, or one style is known")
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
    line = [
        "--name",
        opt.name,
        *([] if opt.checkpoints_dir == "checkpoints" else ["--checkpoints_dir", opt.checkpoints_dir]),
    ]
    for flag, layer in sorted(vars(opt)["_set_by"].items()):
        if layer in ("command line", "config") and flag not in NOT_OF_THE_RUN:
            line += _flag(flag, getattr(opt, flag))
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
    return f"{COMMAND} {shlex.join([*line, '--output', result_name(request.scene, 1)])}"


def _flag(name: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", str(value)]
