"""From a segmenter's classes to a data set's label ids, for label maps made of pictures: `label_table` turned round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from metrics.segments.segmenter import IGNORED, Segmenter, label_table, plain_name
from util.class_table import ClassTable
from util.errors import UserError
from util.registry import did_you_mean

VOID_NAMES = ("unlabelled", "unlabeled", "void", "other")
SHOWN = 12  # classes in a message


def parse_renamed(text: str | None) -> dict[str, str]:
    """Return {"wall": "building"} of "wall:building"; raises `UserError` naming the flag."""
    renamed = {}
    for part in filter(None, (text or "").split(",")):
        theirs, _, ours = part.rpartition(":")
        if not (theirs.strip() and ours.strip()):
            raise UserError(f"--segmenter_rename: '{part}' is not THEIRS:OURS, as in wall:building,rider:person")
        renamed[theirs.strip()] = ours.strip()
    return renamed


def label_ids(segmenter: Segmenter, classes: ClassTable, renamed: Mapping[str, str]) -> Tensor:
    """Return (C,) int64: the label id that each of the segmenter's classes has among `classes`.

    What `renamed` says comes first, then what `label_table` knows (equal classes, class maps, Cityscapes' ids), then
    equal names. What is no class to the segmenter becomes what is none in `classes`.

    Raises:
        UserError: a class of the segmenter has no counterpart, or `renamed` names an unknown class.
    """
    theirs, ours = [plain_name(name) for name in segmenter.class_names], [plain_name(name) for name in classes.names]
    ids = _by_table(segmenter, classes)
    for k, name in enumerate(theirs):
        if ids[k] == IGNORED and name in ours:
            ids[k] = ours.index(name)
    if segmenter.void is not None and ids[segmenter.void] == IGNORED:
        void = next((ours.index(name) for name in VOID_NAMES if name in ours), IGNORED)
        ids[segmenter.void] = void if classes.ignore is None else classes.ignore
    for old, new in renamed.items():
        for name, known in ((old, theirs), (new, ours)):
            if plain_name(name) not in known:
                raise UserError(
                    f"--segmenter_rename {old}:{new}: no class '{name}'.{did_you_mean(plain_name(name), known)} "
                    f"Known: {_listed(known)}"
                )
        ids[theirs.index(plain_name(old))] = ours.index(plain_name(new))
    lacking = [name for name, label in zip(theirs, ids, strict=True) if label == IGNORED]
    if lacking:
        example = f"{lacking[0]}:{ours[0]}"
        raise UserError(
            f"--segmenter {segmenter.name} tells classes that the labels do not have: {_listed(lacking)}. Say which "
            f"class takes the place of each, as in --segmenter_rename {example}. The labels have: {_listed(ours)}"
        )
    return torch.tensor(ids)


def _by_table(segmenter: Segmenter, classes: ClassTable) -> list[int]:
    """Return the lowest label of each of the segmenter's classes by `label_table`, -1 where it knows none."""
    ids = [IGNORED] * segmenter.num_classes
    try:
        table = label_table(
            segmenter, label_nc=len(classes.names), ignore_label=None, class_names=list(classes.names)
        ).tolist()
    except UserError:
        if segmenter.label_map is not None:  # of this very network, and wrong
            raise
        return ids
    for label in reversed(range(len(table))):
        if table[label] != IGNORED:
            ids[table[label]] = label
    return ids


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
