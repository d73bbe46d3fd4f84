"""The perceptual loss: weights files, channel order, what it says where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch

from models.losses.perceptual import PerceptualLoss, build_features
from util.errors import UserError


def weights_file(folder: Path, arch: str, dtype: torch.dtype = torch.float32) -> str:
    torch.manual_seed(0)
    state = {f"features.{k}": v.to(dtype) for k, v in build_features(arch).state_dict().items()}
    path = folder / f"{arch}.pth"
    torch.save(state | {"classifier.0.weight": torch.zeros(2, 2)}, path)  # torchvision's own files hold more
    return str(path)


@pytest.mark.parametrize("arch", ["vgg16", "vgg19"])
def test_features_are_torchvisions(arch: str, tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    reference = getattr(torchvision.models, arch)(weights=None)
    torch.save(reference.state_dict(), tmp_path / "all.pth")
    loss = PerceptualLoss(arch=arch, weights=str(tmp_path / "all.pth"))
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    taps = loss.taps(x)
    assert [tap.shape[1] for tap in taps] == [64, 128, 256, 512, 512]
    assert torch.allclose(taps[-1], reference.features[: len(loss.features)](x), atol=1e-6)


def test_half_precision_files_are_cast_and_order_and_scale_do_what_they_say(tmp_path: Path) -> None:
    path = weights_file(tmp_path, "vgg16", torch.float16)
    a, b = torch.rand(2, 1, 3, 32, 32).mul(2).sub(1).unbind()
    rgb, bgr = (PerceptualLoss(arch="vgg16", weights=path, order=order) for order in ("rgb", "bgr"))
    assert torch.equal(bgr(a, b), rgb(a.flip(1), b.flip(1)))
    assert rgb(a, a) == 0
    assert rgb(a, b) > 0
    scaled = PerceptualLoss(arch="vgg16", weights=path, input_scale="imagenet")
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    by_hand = [(((x + 1) / 2) - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1) for x in (a, b)]
    assert torch.allclose(scaled(a, b), rgb(*by_hand), rtol=1e-5)


def test_gradient_flows_to_the_first_picture_alone(tmp_path: Path) -> None:
    loss = PerceptualLoss(arch="vgg16", weights=weights_file(tmp_path, "vgg16"))
    a, b = (torch.rand(1, 3, 32, 32, requires_grad=True) for _ in range(2))
    loss(a, b).backward()
    assert a.grad is not None
    assert b.grad is None
    assert all(p.grad is None for p in loss.parameters())


def test_more_pictures_than_targets_take_them_in_turn(tmp_path: Path) -> None:
    loss = PerceptualLoss(arch="vgg16", weights=weights_file(tmp_path, "vgg16"))
    fake, real = torch.rand(4, 3, 32, 32, requires_grad=True), torch.rand(2, 3, 32, 32)
    values, gradients = [], []
    for targets in (torch.cat([real, real]), real):
        value = loss(fake, targets)
        values.append(value.item())
        gradients.append(torch.autograd.grad(value, fake)[0])
    assert values[1] == pytest.approx(values[0], rel=1e-6)
    assert torch.allclose(gradients[1], gradients[0], rtol=1e-4, atol=1e-9)
    swapped = loss(fake, real.flip(0))
    assert swapped.item() != pytest.approx(values[0], rel=1e-4)


def test_without_network_and_file_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*args: Any, **kwargs: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(UserError) as caught:
        PerceptualLoss(arch="vgg19")
    message = str(caught.value)
    for part in ("vgg19-dcbb9e9d.pth", "dcbb9e9d", str(tmp_path), "--vgg_weights", "--lambda_vgg 0"):
        assert part in message


def test_torchvisions_download_is_found_in_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's own file is 548 MB; a small file of the same layout stands in the cache, its hash check off."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    Path(weights_file(tmp_path, "vgg19")).rename(cache / "vgg19-dcbb9e9d.pth")
    assert PerceptualLoss(arch="vgg19").features[0].weight.abs().sum() > 0


@pytest.mark.parametrize(
    ("arch", "content", "fault"),
    [("vgg19", None, "no such file"), ("vgg19", b"x", "cannot be read"), ("vgg19", "vgg16", "not features of vgg19")],
)
def test_wrong_files_are_named(arch: str, content: bytes | str | None, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path = Path(weights_file(tmp_path, content))
    with pytest.raises(UserError, match=fault) as caught:
        PerceptualLoss(arch=arch, weights=str(path))
    assert str(path) in str(caught.value)
