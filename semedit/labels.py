"""Label and instance maps of pictures that have none, made by a segmentation network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from data import DATASETS
from data.instances import dense_instances, derived_ids
from data.records import CLASSES_FILE, Maps, read_class_table
from metrics.segments.label_ids import label_ids, parse_renamed
from metrics.segments.segmenter import Segmenter, plain_name
from metrics.segments.segmenters import read_segmenter
from util.class_table import ClassTable
from util.device import resolve_device
from util.images import default_palette
from util.opt import Opt

FIRST_THING = 1000  # smaller ids are of regions in Cityscapes (`MapRules.first_instance`)


class Labeller:
    """Makes the maps of pictures: a class per pixel, and the connected components of things as instances.

    Args:
        segmenter: tells the classes.
        classes: whose ids the label maps have.
        renamed: names among `classes` of the segmenter's classes that are called otherwise there.
        instances: tell the things apart; else each class is one instance.

    Raises:
        UserError: the segmenter has a class without a counterpart.
    """

    def __init__(
        self, segmenter: Segmenter, classes: ClassTable, *, renamed: Mapping[str, str], instances: bool = True
    ) -> None:
        self.segmenter, self.classes, self.instances = segmenter, classes, instances
        self._ids = label_ids(segmenter, classes, renamed).numpy().astype(np.int32)

    def __call__(self, image: np.ndarray) -> Maps:
        """Return a picture (H, W, 3) uint8 with its maps (H, W) int32."""
        picture = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        label = self._ids[self.segmenter.predict(picture[None])[0].cpu().numpy()]
        return Maps(
            image,
            label,
            derived_ids(label, self.classes, first=FIRST_THING).astype(np.int32) if self.instances else None,
        )

    def found(self, maps: Maps) -> str:
        """Return which classes the maps show, the largest first, with the number of things."""
        inst = maps.label if maps.inst is None else maps.inst
        _, _, classes = dense_instances(inst, maps.label)
        ids, counts = np.unique(maps.label, return_counts=True)
        parts = []
        for label in ids[np.argsort(-counts, kind="stable")].tolist():
            name = self.classes.names[label] if label < len(self.classes.names) else f"id {label}"
            number = int((classes == label).sum())
            parts.append(f"{name} ({number})" if self.instances and label in self.classes.things else name)
        return f"labels by {self.segmenter.name}: {', '.join(parts)}"


def make_labeller(opt: Opt, classes: ClassTable, *, instances: bool = True) -> Labeller:
    """Return the labeller that the segmenter's flags ask for."""
    segmenter = read_segmenter(opt, resolve_device(opt.device))
    return Labeller(segmenter, classes, renamed=parse_renamed(opt.segmenter_rename), instances=instances)


def classes_of(segmenter: Segmenter, folder: Path) -> ClassTable:
    """Return a segmenter's own classes: those of the data that it was trained on, else its names alone.

    Args:
        segmenter: its names are looked for among the data sets' built-in classes.
        folder: of the run that has trained it, which may hold a classes.json.
    """
    table = read_class_table(folder / CLASSES_FILE)
    if table is not None and table.names == segmenter.class_names:  # not of a run that happens to have its name
        return table
    names = {plain_name(name) for k, name in enumerate(segmenter.class_names) if k != segmenter.void}
    tables = [DATASETS.get(mode).class_table(None) for mode in DATASETS.names() if DATASETS.get(mode).scenes]
    fitting = [table for table in tables if names <= {plain_name(name) for name in table.names}]
    if fitting:
        return min(fitting, key=lambda table: (len(table.names), -len(table.things)))
    return ClassTable(segmenter.class_names, default_palette(segmenter.num_classes), ignore=segmenter.void)
