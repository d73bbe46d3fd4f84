"""Segmentation networks whose authors released weights: classes, scale, normalisation and where to get the files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_CAMVID = "sky,building,pole,road,pavement,tree,sign_symbol,fence,car,pedestrian,bicyclist,unlabelled"
_CITYSCAPES = (
    "road,sidewalk,building,wall,fence,pole,traffic light,traffic sign,vegetation,terrain,sky,person,rider,"
    "car,truck,bus,train,motorcycle,bicycle,background"
)
CAMVID_CLASSES, CITYSCAPES_CLASSES = tuple(_CAMVID.split(",")), tuple(_CITYSCAPES.split(","))
_ESPNET = "https://github.com/sacmehta/ESPNet/raw/afe71c38edaee3514ca44e0adcafdf36109bf437/pretrained/decoder"
# Cityscapes' official labelId of each of the 19 evaluated classes, in the order of their trainIds.
CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


@dataclass(frozen=True)
class ReleasedSegmenter:
    """A segmentation network with released weights; `sha256` is that of the released file, `url` where it is."""

    classes: tuple[str, ...]
    short_side: int
    sha256: str
    url: str
    net: dict[str, Any]


ESPNETS = {
    "espnet_camvid": ReleasedSegmenter(
        classes=CAMVID_CLASSES,
        short_side=360,
        sha256="7d354a257170322086dcd4c1e89a482454cf2c9d30b085e70883878dd59301af",
        url=f"{_ESPNET}/espnet_p_2_q_8_camvid.pth",
        net={
            "num_classes": 12,
            "mean": (110.79526532, 109.02886561, 105.86969379),
            "std": (78.13675894, 79.20679822, 78.15937325),
            "fuse_pooled": True,
        },
    ),
    "espnet_cityscapes": ReleasedSegmenter(
        classes=CITYSCAPES_CLASSES,
        short_side=512,
        sha256="343b0e77e8545d36113c4f3efbf1ee349256f25c97c9f9d5ddefe45f2f49763e",
        url=f"{_ESPNET}/espnet_p_2_q_8.pth",
        net={
            "num_classes": 20,
            "mean": (72.3923111, 82.90893555, 73.15840149),
            "std": (45.3192215, 46.15289307, 44.91483307),
            "fuse_pooled": False,
        },
    ),
}
