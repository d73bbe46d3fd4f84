"""Any data set: <dataroot>/<split>/{images,labels,inst_map}/ with a classes.json (datasets/README.md)."""

from __future__ import annotations

from dataclasses import replace

from data import DATASETS
from data.folder import FolderDataset
from data.records import MapRules
from util.opt import Opt


@DATASETS.register("custom")
class CustomDataset(FolderDataset):
    """Labels 8 or 16 bit; instance maps 16 bit, or 8 bit (said once); classes from classes.json or --label_nc."""

    summary = "any folder of pictures, label and instance maps, with a classes.json"

    @classmethod
    def map_rules(cls, opt: Opt) -> MapRules:
        return replace(super().map_rules(opt), inst_8bit=True)
