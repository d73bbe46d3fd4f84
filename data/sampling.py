"""How samples are made from a data set's pictures, whatever the data set."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

from util.opt import Opt


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Size, cut, masks and draws of the samples.

    Args:
        crop_size: side of a sample in pixels.
        load_size: the short side is scaled to this; 0 keeps pictures as stored.
        augment: random crops and flips, drawn anew in each epoch; otherwise the centre is cut and nothing flipped.
        task: one of `data.masks.TASKS`, "folder" (PNGs of `mask_dir`), "none" (nothing erased) or "train"
            (`mask_types`, by `mask_schedule`).
        mask_schedule: "index" ties the type to the index, as released; "random" draws it.
        mask_types: comma list of types for training; None takes those of the data set.
        mask_boxes: probability that a training mask also erases the boxes of the larger things.
        mask_dir: for "folder".
        object_classes: comma list of names or ids of the things that the object tasks erase; None: all.
        removal: ids in object_removal: "thing": the erased thing's alone are replaced; "released": there are none.
        test_cuts: "centre", or "halves": a test cuts the left and the right half of each picture, NAME_l and NAME_r.
        seed: first part of every key.
        cache: "ram" keeps all decoded pictures; "none" decodes at each access.
        inst_class_rule: "majority", or "mod120" for converted DivSem runs (class = id % 120).
    """

    crop_size: int
    load_size: int
    augment: bool
    task: str
    mask_schedule: str = "random"
    mask_types: str | None = None
    mask_boxes: float = 0.0
    mask_dir: str | None = None
    object_classes: str | None = None
    removal: str = "thing"
    test_cuts: str = "centre"
    seed: int = 0
    cache: str = "none"
    inst_class_rule: str = "majority"

    @classmethod
    def from_options(cls, opt: Opt, *, augment: bool, task: str) -> Self:
        """Read the flags of these names; not every command has all of them."""
        given = {field.name: getattr(opt, field.name) for field in fields(cls) if hasattr(opt, field.name)}
        return cls(**given | {"augment": augment, "task": task})
