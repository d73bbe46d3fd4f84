"""What the styles of the bank look like: a thing of the picture, made anew with one code after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.edit.changes import dilate, require_instance
from data.edit.scenes import Scene
from data.samples import make_sample
from semedit.editor import Editor
from semedit.page.files import fitted, picture_png
from semedit.page.jobs import Job
from util.errors import UserError
from util.regions import Box, bounding_box, window_around

SIDE = 112  # pixels of a thumbnail's longer side, at most
MOST = 8  # thumbnails of a request
MARGIN = 0.15  # of the thing's longer side, shown around it


@dataclass(frozen=True)
class StylesRequest:
    """Thumbnails of some codes.

    Args:
        scene: one window of the picture, in which all of the thing is erased.
        box: of the thing in it.
        label: the class whose codes they are.
        numbers: of the codes, of all of them those first that differ most.
        total: codes that the bank has of the class.
    """

    scene: Scene
    box: Box
    label: int
    numbers: list[int]
    total: int

    @classmethod
    def of(cls, editor: Editor, scene: Scene, wish: Mapping[str, Any]) -> StylesRequest:
        """Return the request of the page, for the thing "id" and codes from "first" on; raises `UserError`."""
        if editor.bank is None:
            raise UserError(f"a run of {editor.opt.model} draws no styles")
        number, first = wish.get("id"), wish.get("first")
        if type(number) is not int or type(first) is not int or first < 0:
            raise UserError("the request is malformed (a thing and the first of its styles are whole numbers)")
        where = require_instance(scene.inst, number, scene.name)
        window = window_around(bounding_box(where), where.shape, editor.opt.crop_size)
        cut, inside = window.slices, where[window.slices]
        erased = scene.mask[cut] | dilate(inside, editor.map_editor().radius)
        small = Scene(scene.name, scene.image[cut], scene.label[cut], scene.inst[cut], erased)
        label = _class_of(editor, small, number)
        if label is None or not editor.model.has_style(label) or label not in editor.bank.codes:
            name = "this region" if label is None else f"'{editor.names[label]}'"
            raise UserError(f"the run's style bank has no styles of {name}")
        codes = editor.bank.codes[label]
        return cls(small, bounding_box(inside), label, varied(codes)[first : first + MOST], len(codes))

    def shown(self) -> tuple[slice, slice]:
        """Return which part of the window a thumbnail shows."""
        margin = round(MARGIN * self.box.length) + 2
        rows, columns = (self.box.top, self.box.bottom), (self.box.left, self.box.right)
        (top, bottom), (left, right) = ((max(0, low - margin), high + margin) for low, high in (rows, columns))
        return slice(top, bottom), slice(left, right)


def varied(codes: Tensor) -> list[int]:
    """Return the numbers of codes (n, D) in an order in which each is the farthest from those before it."""
    order, nearest = [0], (codes - codes[0]).norm(dim=1)
    while len(order) < len(codes):
        nearest[order[-1]] = -1
        order.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (codes - codes[order[-1]]).norm(dim=1))
    return order


def _class_of(editor: Editor, scene: Scene, number: int) -> int | None:
    """Return the class under which the model knows an instance; None for one without a class."""
    rule = editor.opt.inst_class_rule
    sample = make_sample(scene.maps, scene.mask, name=scene.name, rules=editor.rules, inst_class_rule=rule)
    found = sample["inst_class"][sample["inst_id"] == number].tolist()
    return found[0] if found and 0 <= found[0] < len(editor.names) else None


def show_styles(editor: Editor, request: StylesRequest, job: Job) -> None:
    """Make the thumbnails, each a file of the job as soon as it is there."""
    job.tell(label=request.label, total=request.total)
    for done, number in enumerate(request.numbers):
        job.step(done)
        frames = editor.frames(1, editor.source({request.label: number}))
        picture: np.ndarray = next(editor.paint(request.scene, frames, 0)).picture
        job.add(f"style_{number}.png", picture_png(fitted(picture[request.shown()], SIDE)))
