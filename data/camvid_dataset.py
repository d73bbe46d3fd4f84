"""CamVid, 12 classes of the SegNet split, as written by scripts/prepare_camvid.py."""

from __future__ import annotations

from data import DATASETS
from data.folder import FolderDataset


@DATASETS.register("camvid")
class CamvidDataset(FolderDataset):
    """341x256 street frames; things (car, pedestrian, bicyclist) have 16-bit ids class * 1000 + k."""

    summary = "CamVid street frames, 12 classes, made by scripts/prepare_camvid.py"
