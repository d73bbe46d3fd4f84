"""SIEDOB's blocks against plain forms of themselves, and its networks at other sizes and widths."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.blocks.discriminator import PatchDiscriminator
from models.networks.blocks.init import init_normal
from models.networks.blocks.spade import SPADE, CodeSPADE, ResnetBlock
from models.networks.blocks.spectral import SpectralConv2d
from models.networks.siedob.background_generator import BackgroundGenerator
from models.networks.siedob.fusion_generator import FusionGenerator
from models.networks.siedob.object_generators import ObjectInpainter, StyleObjectGenerator
from models.networks.siedob.saspm import SASPM

NC = 6
STYLED = torch.tensor([True, True, True, True, False, True])


def saspm_by_loops(net: SASPM, x: Tensor, seg: Tensor, background: Tensor, mask: Tensor, styled: Tensor) -> Tensor:
    """The module in the spec's words: picture by picture, class by class."""
    features = F.leaky_relu(net.code(x), 0.2)
    small = [F.interpolate(t, x.shape[2:], mode="nearest") for t in (seg, background, mask)]
    full = small[0] * small[1]
    known = full * (1 - small[2])
    painted = []
    for b in range(len(x)):
        canvas = torch.zeros_like(features[b])
        for j in range(NC):
            where = known[b, j] > 0
            if styled[j] and where.any():
                canvas = canvas + features[b][:, where].mean(1)[:, None, None] * full[b, j]
        painted.append(canvas)
    condition = torch.cat([torch.stack(painted), full], 1)
    hidden = F.relu(net.spade.shared(condition))
    normalised = F.instance_norm(net.conv(x))
    return F.leaky_relu(normalised * (1 + net.spade.gamma(hidden)) + net.spade.beta(hidden), 0.2)


def saspm_case() -> tuple[SASPM, list[Tensor]]:
    torch.manual_seed(0)
    label = torch.randint(0, NC - 1, (3, 1, 32, 32))  # class 5 is nowhere
    label[1, :, :, :8] = 1
    seg = torch.zeros(3, NC, 32, 32).scatter_(1, label, 1)
    seg[2, :, :4] = 0  # pixels without a class
    mask = (torch.rand(3, 1, 32, 32) > 0.5).float()
    mask[1] = torch.maximum(mask[1], seg[1, 1:2])  # class 1 is all erased in the second picture
    background = 1 - seg[:, 4:5]
    x = torch.randn(3, 8, 16, 16, requires_grad=True)
    return SASPM(8, label_nc=NC, width=12), [x, seg, background, mask, STYLED]


def test_saspm_equals_the_loop_in_values_and_gradients() -> None:
    net, inputs = saspm_case()
    results = []
    for run in (net, lambda *args: saspm_by_loops(net, *args)):
        out = run(*inputs)
        target = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        grads = torch.autograd.grad((out * target).sum(), [inputs[0], *net.parameters()])
        results.append([out, *grads])
    for fast, plain in zip(*results, strict=True):
        assert plain.abs().max() > 0
        assert torch.allclose(fast, plain, rtol=1e-4, atol=1e-4)


def test_an_unstyled_class_propagates_nothing() -> None:
    """What stands in the known pixels of an unstyled class is without effect on others."""
    net, (x, seg, _, mask, _) = saspm_case()
    everywhere = torch.ones_like(mask)
    code = net.code(x).detach()
    net.code.forward = lambda _: code  # type: ignore[method-assign]
    before = [net(x, seg, everywhere, mask, styled) for styled in (STYLED, torch.ones(NC, dtype=torch.bool))]
    where = F.interpolate(seg[:, 4:5] * (1 - mask), scale_factor=0.5, mode="nearest")
    code = code + 5 * where
    after = [net(x, seg, everywhere, mask, styled) for styled in (STYLED, torch.ones(NC, dtype=torch.bool))]
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


@pytest.mark.parametrize("size", [2, 4, 5, 6, 16])
def test_a_code_at_5_pixels_modulates_as_one_at_all_pixels(size: int) -> None:
    torch.manual_seed(0)
    fast = CodeSPADE(6, 7, hidden=9).double()
    plain = SPADE(6, 7, hidden=9).double()
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(2, 6, size, size, dtype=torch.float64)
    results = []
    for net, shape in ((fast, (2, 7)), (plain, (2, 7, size, size))):
        code = torch.arange(14.0, dtype=torch.float64).view(2, 7).sin().requires_grad_()
        out = net(x, code if len(shape) == 2 else code[:, :, None, None].expand(shape))
        results.append([out, *torch.autograd.grad(out.sin().sum(), [code, *net.parameters()])])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, atol=1e-10)


def test_the_residual_blocks_norm_counts_the_padding() -> None:
    block = ResnetBlock(4, 2)
    x = torch.randn(2, 4, 8, 8) + 3
    padded = F.pad(x, (1, 1, 1, 1))
    statistics = padded.mean((2, 3), keepdim=True), padded.var((2, 3), keepdim=True, correction=0)
    hidden = F.leaky_relu(block.conv1((padded - statistics[0]) / (statistics[1] + 1e-5).sqrt()), 0.2)
    out = block.shortcut(x) + block.conv2(F.instance_norm(F.pad(hidden, (1, 1, 1, 1))))
    assert torch.allclose(block(x), out, atol=1e-5)
    assert isinstance(ResnetBlock(4).shortcut, nn.Identity)


def test_a_discriminator_pads_with_what_is_asked_for() -> None:
    nets = [PatchDiscriminator(5, ndf=4, num_layers=3, padding_mode=mode) for mode in ("replicate", "zeros")]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.ones(1, 5, 32, 32)
    replicated, zeros = (net.eval()(x)[0] for net in nets)
    assert torch.allclose(replicated, replicated[..., :1, :1])  # a constant picture has no border
    assert not torch.allclose(zeros[..., 0, 0], zeros[..., 8, 8])
    assert torch.allclose(zeros[..., 8, 8], replicated[..., 8, 8], atol=1e-6)


def background(size: int, batch: int = 1) -> list[Tensor]:
    maps = [torch.rand(batch, c, size, size) for c in (3, NC, 1, 1, 1)]
    return [maps[0], *((m > 0.5).float() for m in maps[1:])]


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], list[Tensor]]]] = {
    "background": (lambda: BackgroundGenerator(label_nc=NC, ngf=4, things=(4,)), background),
    "background without SASPM": (lambda: BackgroundGenerator(label_nc=NC, ngf=4, saspm=False), background),
    "fusion": (lambda: FusionGenerator(ngf=4), lambda size: [torch.rand(1, c, size, size) for c in (3, 1, 1)]),
    "inpaint": (
        lambda: ObjectInpainter(class_channels=4, ngf=4),
        lambda size: [torch.rand(1, c, size, size) for c in (3, 1, 1, 4)],
    ),
    "style": (
        lambda: StyleObjectGenerator(class_channels=4, ngf=4, style_dim=8),
        lambda size: [torch.rand(1, c, size, size) for c in (4, 3, 4)],
    ),
}


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("name", CASES)
def test_any_size_and_every_parameter_is_reached(name: str, size: int) -> None:
    net, inputs = CASES[name][0](), CASES[name][1](size)
    outputs = net(*inputs)
    if isinstance(net, StyleObjectGenerator):
        assert [code.shape for code in outputs[1:]] == [(1, 8), (1, 8)]
    else:
        outputs = [outputs]
    assert outputs[0].shape == (1, 3, size, size)
    assert all(out.isfinite().all() for out in outputs)
    torch.stack([out.square().sum() for out in outputs]).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("name", CASES)
def test_a_deep_copy_is_independent_and_equal(name: str) -> None:
    net, inputs = CASES[name][0](), CASES[name][1](64)
    net.train()(*inputs)
    twin = copy.deepcopy(net).eval()
    before = net.eval()(*inputs)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    for a, b in zip(twin(*inputs), before, strict=True):  # pictures of a batch, or what the style generator returns
        assert torch.equal(a, b)


def test_objects_do_not_see_their_neighbours_in_the_batch() -> None:
    net = ObjectInpainter(class_channels=4, ngf=4).eval().double()
    inputs = [torch.rand(3, c, 64, 64, dtype=torch.float64) for c in (3, 1, 1, 4)]
    alone = net(*(t[1:2] for t in inputs))
    assert torch.allclose(net(*inputs)[1:2], alone, atol=1e-7)


def test_the_background_generator_does_not_see_labels_on_objects() -> None:
    net = BackgroundGenerator(label_nc=NC, ngf=4, things=(4,)).eval()
    image, seg, edge, mask, where = background(64)
    other = seg * where + torch.rand_like(seg).round() * (1 - where)
    assert torch.equal(net(image, seg, edge, mask, where), net(image, other, edge, mask, where))
    with pytest.raises(ValueError, match="seg has shape"):
        net(image, seg[:, :-1], edge, mask, where)


def test_fusion_keeps_what_is_not_masked() -> None:
    net = FusionGenerator(ngf=4)
    image, mask, edge = torch.rand(2, 3, 64, 64), torch.zeros(2, 1, 64, 64), torch.zeros(2, 1, 64, 64)
    mask[..., 32:] = 1
    out = net(image, mask, edge)
    assert torch.equal(out[..., :32], image[..., :32])
    assert not torch.allclose(out[..., 32:], image[..., 32:])


def test_initialisation_reaches_every_convolution() -> None:
    net = BackgroundGenerator(label_nc=NC, ngf=16)
    init_normal(net)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | SpectralConv2d):
            weight = module.weight_orig if isinstance(module, SpectralConv2d) else module.weight
            assert weight.std().item() == pytest.approx(0.02, rel=0.15)
            assert module.bias is None or not module.bias.any()
