"""Where the styles of what is fully erased come from, as a caller names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from data.edit.scenes import Scene
from data.samples import make_sample
from models.style_bank import StyleBank
from models.style_sources import MeanSource, ReferenceSource, StyleSource
from semedit.sources import Source
from util.batch import to_device
from util.errors import UserError
from util.regions import bounding_box, window_around

if TYPE_CHECKING:
    from semedit.editor import Editor


@dataclass(frozen=True)
class StyleReference:
    """A picture whose instances of one class lend their style to what is fully erased.

    Args:
        object_class: name or id of the class; other classes keep the style bank's codes.
        image, label, inst: as in `Editor.fill`.
    """

    object_class: str | int
    image: Source
    label: Source | None = None
    inst: Source | None = None


#: "bank", "mean", a picture that lends its style, or the numbers of codes in the bank by class, as in {"car": 3}.
Style: TypeAlias = str | StyleReference | Mapping[str, int] | Mapping[int, int]


def style_source(editor: Editor, bank: StyleBank, style: Style, flag: str) -> StyleSource:
    """Return where codes come from; `flag`, `UserError`: see `Editor.source`."""
    if isinstance(style, StyleReference):
        chosen = _styled_class(editor, style.object_class, flag)
        scene = editor.scene(style.image, style.label, style.inst)
        return ReferenceSource(chosen, instance_codes(editor, scene, chosen), bank)
    if isinstance(style, Mapping):
        source: StyleSource = bank
        known: set[int] = set()
        for name, number in style.items():
            chosen = _styled_class(editor, name, flag)
            if chosen in known:
                raise UserError(f"{flag}: a code of '{editor.names[chosen]}' is given twice; give one")
            known.add(chosen)
            source = _chosen_code(editor, bank, chosen, number, flag, source)
        return source
    if style not in ("bank", "mean"):
        raise UserError(f"style {style!r}: 'bank', 'mean', numbers of codes by class, or a StyleReference")
    return MeanSource(bank) if style == "mean" else bank


def _styled_class(editor: Editor, name: str | int, flag: str) -> int:
    chosen = editor.class_id(name, flag)
    if not editor.model.has_style(chosen):
        raise UserError(f"{flag} {editor.names[chosen]}: a run of {editor.opt.model} has no styles of it")
    return chosen


def _chosen_code(
    editor: Editor, bank: StyleBank, chosen: int, number: int, flag: str, rest: StyleSource
) -> StyleSource:
    rows, name = bank.codes.get(chosen), editor.names[chosen]
    if rows is None:
        raise UserError(f"{flag} {name}:{number}: the run's style bank has no code of '{name}'")
    if not 0 <= number < len(rows):
        raise UserError(f"{flag} {name}:{number}: the run's style bank has codes 0 to {len(rows) - 1} of '{name}'")
    return ReferenceSource(chosen, rows[number : number + 1], rest)


@torch.no_grad()
def instance_codes(editor: Editor, scene: Scene, chosen: int) -> Tensor:
    """Return the raw codes (n, D) of a class's instances in a scene, each read in a window around it.

    Raises:
        UserError: the scene has no instance of the class that has a code.
    """
    rules, names, opt = editor.rules, editor.names, editor.opt
    whole = make_sample(scene.maps, scene.mask, name=scene.name, rules=rules, inst_class_rule=opt.inst_class_rule)
    numbers, of_class = whole["inst_id"], whole["inst_class"] == chosen
    codes = []
    for number in dict.fromkeys(numbers[of_class].tolist()):  # of regions that a --label_map joined several have one
        where = (of_class & (numbers == number))[whole["inst"].long()]
        window = window_around(bounding_box(where.numpy()), scene.label.shape, opt.crop_size)
        batch = to_device(editor.painter.batch(scene.maps, scene.mask, window, scene.name), editor.device)
        place = (batch["inst_id"][0] == number).nonzero().flatten()  # none: too small to survive the scaling
        of_instance = editor.model.instance_codes(batch)[0, place]
        codes.append(of_instance[of_instance.any(1)])  # a model may have no code for an instance that is no object
    if not sum(len(rows) for rows in codes):
        present = ", ".join(names[i] for i in sorted(set(whole["inst_class"].tolist())))
        which = "no instance" if not codes else "no single instance with a style (an instance map tells them apart)"
        raise UserError(f"style picture {scene.name}: {which} of '{names[chosen]}'. It has: {present}")
    return torch.cat(codes).cpu()
