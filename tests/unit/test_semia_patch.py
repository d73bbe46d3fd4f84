"""SemIA's patch loss against its plain form, and the files that its features take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from semia_patches import WholeMaps, cut
from torch import Tensor, nn

from models.losses import patch as patch_module
from models.losses.patch import PatchFeatures, PatchLoss
from models.losses.perceptual import build_features
from scripts.benchmarks.semia import plain_patch_loss
from util.errors import UserError


class Pyramid(WholeMaps):
    """Stands for VGG: two maps with gradient, the second at half the size."""

    def __init__(self, channels: int = 4) -> None:
        nn.Module.__init__(self)
        self.conv = nn.Conv2d(3, channels, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        first = torch.tanh(self.conv(x))
        return [first, nn.functional.avg_pool2d(first, 2)]


@pytest.mark.parametrize("semantic", [False, True])
@pytest.mark.parametrize("chunk", [2**25, 1200])  # bytes: all at once; a few patches at a time
def test_patch_loss_equals_the_plain_one(semantic: bool, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_module, "CHUNK_BYTES", chunk)
    torch.manual_seed(0)
    features = Pyramid().double()
    loss = PatchLoss(features=features, semantic=semantic)
    source, other = torch.rand(1, 3, 24, 32).double(), torch.rand(1, 3, 24, 32).double()
    classes = [torch.randint(0, 3, (3, 4)).repeat_interleave(8, 0).repeat_interleave(8, 1) for _ in range(2)]
    classes[1][:4, :4] = 7  # a class that the source does not have: compared with all
    gradients, values = [], []
    corners = [[(0, 0), *loss.draw((24, 32))[0]], loss.draw((24, 32))[1]]
    for plain in (True, False):
        fake = other.clone().requires_grad_()
        if plain:
            known = (classes[0], classes[1]) if semantic else None
            value = plain_patch_loss(features(source), features(fake), corners, known)
        else:
            banks = loss.banks(source, classes[0])
            value = loss(fake, banks, classes[1], corners)
            assert torch.equal(value, loss(fake, banks, classes[1], corners))  # from kept patches as from new ones
        value.backward()
        values.append(value.item())
        gradients.append(fake.grad)
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-10, atol=1e-15)


def test_patch_loss_of_a_copy_is_small_and_classes_keep_patches_apart() -> None:
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 32, 32)
    halves = (torch.arange(32)[:, None] > 15).long().expand(32, 32)
    identity = Pyramid()
    identity.forward = lambda x: [x, nn.functional.avg_pool2d(x, 2)]  # type: ignore[method-assign]
    swapped = picture.roll(16, 2)
    values = {}
    for semantic in (False, True):
        loss = PatchLoss(features=identity, semantic=semantic)
        corners = [[(20, 5)] * 10, [(12, 3)] * 5]
        # The lower half of the swapped picture shows the upper half's pixels, labelled as the lower half.
        values[semantic] = loss(swapped, loss.banks(picture, halves), halves, corners).item()
    assert values[False] < values[True]  # without classes it finds its own pixels in the upper half


def test_drawn_corners_fit_every_map() -> None:
    loss = PatchLoss(features=Pyramid(), semantic=False)
    torch.manual_seed(1)
    corners = [loss.draw((32, 40)) for _ in range(300)]
    first = {c for draw in corners for c in draw[0]}
    second = {c for draw in corners for c in draw[1]}
    assert (max(r for r, _ in first), max(c for _, c in first)) == (29, 37)
    assert (max(r for r, _ in second), max(c for _, c in second)) == (15, 19)
    assert min(map(min, first | second)) == 0


@pytest.mark.parametrize("arch", ["vgg16", "vgg19"])
def test_features_of_patches_equal_those_cut_out_of_whole_maps(arch: str) -> None:
    """At the borders too, where every layer is padded with zeros."""
    torch.manual_seed(0)
    features = PatchFeatures.__new__(PatchFeatures)
    nn.Module.__init__(features)
    features.layers = build_features(arch)[:7].double()
    for layer in features.layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.uniform_(layer.bias, 0.1, 0.5)  # so that a zero differs from what a layer makes of zeros
    sides = (24, 32)
    ends = [
        [(a, b) for a in (0, 1, 9, top - 1, top) for b in (0, 1, 5, side - 1, side)]
        for top, side in ((21, 29), (11, 15))
    ]
    values, gradients = [], []
    for plain in (True, False):
        picture = torch.rand(1, 3, *sides, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
        found = cut(features(picture), ends) if plain else features.patches(picture, ends)
        sum(patch.square().sum() for patch in found).backward()  # type: ignore[union-attr]
        values.append(found)
        gradients.append(picture.grad)
    for a, b in zip(*values, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-9, atol=1e-10)  # type: ignore[arg-type]


def test_features_are_of_the_network_that_is_named(tmp_path: Path) -> None:
    """The first layers of VGG-16 and VGG-19 have equal shapes: a file of the other one must not pass."""
    torch.manual_seed(0)
    file, picture = tmp_path / "vgg16.pth", torch.rand(1, 3, 16, 16)
    layers = build_features("vgg16")
    torch.save({f"features.{key}": value.half() for key, value in layers.state_dict().items()}, file)
    layers.half().float()
    first, second = PatchFeatures(arch="vgg16", weights=str(file))(picture)
    assert torch.equal(first, layers[:2](picture))
    assert torch.equal(second, layers[:7](picture))
    with pytest.raises(UserError, match="not features of vgg19"):
        PatchFeatures(arch="vgg19", weights=str(file))
