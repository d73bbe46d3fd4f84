"""Layers that compute in another order on a CPU equal their plain forms, gradients included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.losses.distance import mean_distance
from models.networks.blocks.enlarge import Smoothing, commuted_conv, enlarged_convs, upsample2
from models.networks.blocks.init import init_normal
from models.networks.blocks.norm import ChannelsLastNorm, instance_norm
from models.networks.blocks.regions import RegionMap, Regions, combinations
from models.networks.blocks.spectral import SpectralConv2d
from models.networks.cascade import stages
from models.networks.cascade.context import dense_context
from models.networks.cascade.stages import Cascade, CascadeGenerator
from models.networks.cascade.style_encoder import StyleEncoder


def equal(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def gradients(out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return torch.autograd.grad((out * weight).sum(), inputs)


@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_norm_of_channels_last_maps(mean: float) -> None:
    x = (torch.randn(2, 5, 6, 7) + mean).contiguous(memory_format=torch.channels_last)
    exact = F.instance_norm(x.double())
    assert instance_norm(x).is_contiguous(memory_format=torch.channels_last)
    assert (instance_norm(x) - exact).abs().max() < 2e-5
    wide = x.double().requires_grad_()
    assert equal(ChannelsLastNorm.apply(wide), exact)
    assert equal(*gradients(ChannelsLastNorm.apply(wide), wide), *gradients(F.instance_norm(wide), wide))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_mean_distance_is_l1_loss_bit_for_bit(dtype: torch.dtype) -> None:
    x, target = (torch.randn(2, 3, 5, 7).relu().to(dtype) for _ in range(2))  # equal where both are 0
    found = []
    for distance in (mean_distance, F.l1_loss):
        own = x.clone().requires_grad_()
        with torch.autocast("cpu", enabled=dtype == torch.bfloat16):  # where PyTorch's comes in float32
            value = distance(own, target)
        (0.25 * value).backward()
        assert own.grad is not None
        found.append((value, own.grad))
    assert found[0][0].dtype == found[1][0].dtype
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1]) and bool((found[0][1] == 0).any())


def test_smoothing_has_the_gradient_of_its_form() -> None:
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Smoothing.apply, (x,))


@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
@pytest.mark.parametrize("skip_channels", [0, 2])
def test_convolution_of_an_enlarged_map(padding_mode: str, skip_channels: int, spectral: bool) -> None:
    make: Callable[..., nn.Conv2d | SpectralConv2d] = SpectralConv2d if spectral else nn.Conv2d
    conv = make(3 + skip_channels, 4, 3, padding=1, padding_mode=padding_mode).double().eval()
    x = torch.randn(2, 3, 8, 9, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(2, skip_channels, 16, 18, dtype=torch.float64) if skip_channels else None
    plain = conv(upsample2(x) if skip is None else torch.cat([upsample2(x), skip], dim=1))
    fast = commuted_conv(x, skip, conv)
    assert equal(plain, fast)
    for a, b in zip(gradients(plain, x, *conv.parameters()), gradients(fast, x, *conv.parameters()), strict=True):
        assert equal(a, b)
    assert equal(enlarged_convs(x, skip, [conv])[0], plain)
    small, half = x[..., :4, :5].detach(), None if skip is None else skip[..., :8, :10]
    assert equal(enlarged_convs(small, half, [conv])[0], commuted_conv(small, half, conv))


@pytest.mark.parametrize("largest", [4, 60])  # combinations are numbered by a table, or by sorting
def test_convolutions_of_regions(largest: int) -> None:
    """Two in a row, the second one of the first one's finer regions."""
    first, second = nn.Conv2d(4, 3, 3, padding=1).double(), nn.Conv2d(3, 5, 3, padding=1).double()
    ids, parts = combinations(torch.randint(0, 3, (2, 7, 6)), torch.randint(0, largest, (2, 7, 6)))
    assert len(set(zip(*(part.tolist() for part in parts), strict=True))) == len(parts[0]) <= 3 * largest
    rows = torch.randn(len(parts[0]), 4, dtype=torch.float64, requires_grad=True)
    plain = second(F.relu(first(rows[ids].movedim(-1, 1))))
    hidden = RegionMap(rows, Regions(ids, len(rows))).conv3x3(first.weight, first.bias).relu()
    fast = hidden.conv3x3(second.weight, second.bias).dense()
    assert equal(plain, fast)
    inputs = [rows, *first.parameters(), *second.parameters()]
    for a, b in zip(gradients(plain, *inputs), gradients(fast, *inputs), strict=True):
        assert equal(a, b)


def test_neighbourhoods_that_repeat_are_one_region() -> None:
    stripes = Regions((torch.arange(12) // 4).expand(1, 9, 12), 3)
    taps, finer = stripes.refined
    assert finer.count == len(taps) == 9 * 3  # both sides and the middle of each stripe; top, middle, bottom
    assert stripes.worth_refining
    assert not Regions(torch.arange(108).view(1, 9, 12), 108).worth_refining


@pytest.mark.parametrize("edge_input", [True, False])
@pytest.mark.parametrize("styles", [True, False])
def test_generator_with_context_as_lookups(styles: bool, edge_input: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    encoder = StyleEncoder(style_dim=4, nef=1) if styles else None
    net = CascadeGenerator(label_nc=5, crop_size=64, ngf=2, edge_input=edge_input, style_encoder=encoder)
    init_normal(net)
    net.double().eval()
    mask = torch.zeros(2, 1, 64, 64, dtype=torch.float64)
    mask[:, :, 10:50, 20:] = 1
    seg = F.one_hot(torch.randint(0, 5, (2, 8, 8)).repeat_interleave(8, 1).repeat_interleave(8, 2), 5).movedim(-1, 1)
    edge = (torch.rand_like(mask) > 0.8).double() * mask
    inst = torch.randint(0, 6, (2, 4, 4)).repeat_interleave(16, 1).repeat_interleave(16, 2)
    codes = torch.randn(2, 6, 4).double().requires_grad_() if styles else None  # painted in float32

    def run() -> Cascade:
        return net.render(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double(),
                          seg * mask, edge, mask, codes, inst if styles else None)  # fmt: skip

    fast = run().fake[-1]
    monkeypatch.setattr(stages, "build_context", dense_context)
    plain = run().fake[-1]
    assert plain.std() > 1e-3
    assert torch.allclose(fast, plain, rtol=0, atol=1e-9)
    parameters = [*(p for p in net.parameters() if p.requires_grad), *([] if codes is None else [codes])]
    of_fast = torch.autograd.grad(fast.sum(), parameters, allow_unused=True)
    of_plain = torch.autograd.grad(plain.sum(), parameters, allow_unused=True)
    # A bias before a norm has no gradient but rounding.
    scale = max(float(g.abs().max()) for g in of_plain if g is not None)
    for a, b in zip(of_fast, of_plain, strict=True):
        assert (a is None) == (b is None)
        assert a is None or b is None or torch.allclose(a, b, rtol=1e-4, atol=1e-6 * scale)
