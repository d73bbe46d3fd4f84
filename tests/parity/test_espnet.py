"""The released ESPNet files: they load whole, and score on real photographs what was recorded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metrics.segments.confusion import Confusion
from metrics.segments.espnet import ESPNet
from metrics.segments.released import CAMVID_CLASSES, CITYSCAPES_CLASSES
from metrics.segments.segmenter import IGNORED, Segmenter, label_table
from metrics.segments.segmenters import load_segmenter
from util.errors import UserError

FILES = {"espnet_camvid": "espnet_p2_q8_camvid12.pth", "espnet_cityscapes": "espnet_p2_q8_cityscapes20.pth"}
# Classes that both data sets have, under CamVid's names.
SHARED = {
    "sky": "sky",
    "building": "building",
    "pole": "pole",
    "road": "road",
    "pavement": "sidewalk",
    "tree": "vegetation",
}
SHARED |= {"sign_symbol": "traffic sign", "fence": "fence", "car": "car", "pedestrian": "person", "bicyclist": "rider"}


@pytest.fixture(scope="module")
def assets() -> Path:
    folder = Path(os.environ.get("TEST_ASSETS", ""))
    if not os.environ.get("TEST_ASSETS") or not (folder / "weights").is_dir() or not (folder / "camvid").is_dir():
        pytest.skip("needs weights and camvid under $TEST_ASSETS")
    return folder


def released(assets: Path, spec: str) -> Segmenter:
    weights = str(assets / "weights" / FILES[spec])
    return load_segmenter(spec, weights=weights, checkpoints_dir="none", device=torch.device("cpu"))


def score(segmenter: Segmenter, table: torch.Tensor, assets: Path) -> Confusion:
    """Score every 40th test frame, 6 in all."""
    confusion = Confusion(segmenter.num_classes)
    images = sorted((assets / "camvid/test/images").glob("*.jpg"))[::40]
    for image in images:
        picture = torch.from_numpy(np.array(Image.open(image).convert("RGB"))).permute(2, 0, 1)[None]
        label_file = assets / "camvid/test/labels" / f"{image.stem}.png"
        label = torch.from_numpy(np.array(Image.open(label_file))).long()[None]
        confusion.add(table[label], segmenter.predict(picture))
    return confusion


def test_camvid_score_on_real_frames(assets: Path) -> None:
    # All 233 frames: mIoU 54.64, accuracy 84.86.
    segmenter = released(assets, "espnet_camvid")
    confusion = score(segmenter, label_table(segmenter, label_nc=12, ignore_label=11), assets)
    assert (confusion.miou(), confusion.accuracy()) == pytest.approx((54.374, 86.141), abs=0.05)
    assert segmenter.notes == {"released_file": True}


def test_cityscapes_network_recognises_camvid(assets: Path) -> None:
    """There are no Cityscapes frames to score; on CamVid's shared classes a wrong layer order falls to chance."""
    segmenter = released(assets, "espnet_cityscapes")
    table = torch.full((12,), IGNORED)
    for camvid, cityscapes in SHARED.items():
        table[CAMVID_CLASSES.index(camvid)] = CITYSCAPES_CLASSES.index(cityscapes)
    assert score(segmenter, table, assets).accuracy() == pytest.approx(57.614, abs=0.1)


def test_colours_are_fed_in_the_order_of_the_release(assets: Path) -> None:
    """The network takes RGB: with the channels swapped it must do worse."""
    segmenter = released(assets, "espnet_camvid")
    table = label_table(segmenter, label_nc=12, ignore_label=11)
    right = score(segmenter, table, assets).miou()

    class Swapped(torch.nn.Module):
        def forward(self, rgb: torch.Tensor) -> torch.Tensor:
            return segmenter.net(rgb.flip(1))

    swapped = Segmenter(
        "x", Swapped(), segmenter.class_names, short_side=360, weights="", sha256="", device=segmenter.device
    )
    assert score(swapped, table, assets).miou() < right - 3


def test_the_other_files_weights_are_refused(assets: Path) -> None:
    with pytest.raises(UserError, match="does not fit ESPNet"):
        load_segmenter(
            "espnet_camvid",
            weights=str(assets / "weights" / FILES["espnet_cityscapes"]),
            checkpoints_dir="none",
            device=torch.device("cpu"),
        )


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    net = ESPNet(num_classes=12, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), fuse_pooled=True)
    state = net.state_dict()
    del state["encoder.level3.4.d8.conv.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"missing \['encoder.level3.4.d8.conv.weight'\]"):
        load_segmenter(
            "espnet_camvid", weights=str(tmp_path / "part.pth"), checkpoints_dir="none", device=torch.device("cpu")
        )


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read as a PyTorch file"):
        load_segmenter("espnet_camvid", weights=str(tmp_path / "x.pth"), checkpoints_dir="", device=torch.device("cpu"))
    torch.save([1], tmp_path / "x.pth")
    with pytest.raises(UserError, match="holds a list, not tensors by name"):
        load_segmenter("espnet_camvid", weights=str(tmp_path / "x.pth"), checkpoints_dir="", device=torch.device("cpu"))
