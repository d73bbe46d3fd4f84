"""Blocks against plain forms of themselves, and the rule that gives any size its networks."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm

from models.networks.blocks.discriminator import MultiScaleDiscriminator
from models.networks.blocks.scales import resize_bilinear, resize_nearest, stage_sizes
from models.networks.blocks.spectral import SpectralConv2d
from models.networks.blocks.spm import Modulation, SPMConv
from models.networks.cascade.stages import CascadeGenerator
from models.networks.cascade.style_encoder import StyleEncoder
from models.networks.cascade.unet import SPMUNet, stage_depth, stage_widths
from util.batch import one_hot


def tiny_divsem(crop: int) -> CascadeGenerator:
    encoder = StyleEncoder(style_dim=3, nef=1)
    return CascadeGenerator(style_encoder=encoder, label_nc=3, crop_size=crop, ngf=2, modulation=Modulation(hidden=4))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [True, False])
def test_spectral_conv_equals_torchs_classic_form(training: bool, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    ours = SpectralConv2d(5, 7, 3, stride=2, padding=1).to(memory_format=layout)
    reference = spectral_norm(nn.Conv2d(5, 7, 3, stride=2, padding=1))
    reference.load_state_dict({k.replace("weight_v", "weight_v"): v for k, v in ours.state_dict().items()})
    x = torch.randn(2, 5, 9, 9)
    for net in (ours, reference):
        net.train(training)
    for _ in range(3):
        a, b = ours(x), reference(x)
        assert torch.allclose(a, b, atol=1e-6 * float(b.abs().max()))  # sigma of vectors not yet refined is small
    a.square().sum().backward()
    b.square().sum().backward()
    assert ours.weight_orig.grad is not None
    assert torch.allclose(ours.weight_orig.grad, reference.weight_orig.grad, rtol=1e-4, atol=1e-5)
    assert torch.allclose(ours.weight_u, reference.weight_u, atol=1e-6)
    assert torch.allclose(ours.weight_v, reference.weight_v, atol=1e-6)


def test_spectral_conv_can_be_copied_between_forward_and_backward() -> None:
    net = SpectralConv2d(3, 4, 3)
    out = net(torch.randn(1, 3, 8, 8))
    twin = copy.deepcopy(net)
    assert torch.equal(twin.weight_u, net.weight_u)
    out.sum().backward()


def plain_spm(block: SPMConv, x: torch.Tensor, ctx: torch.Tensor) -> torch.Tensor:
    """The modulation as the paper writes it: one convolution after the other."""
    n = block.conv(x)
    n = (n - n.mean((2, 3), keepdim=True)) / (n.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    c, a = F.relu(block.ctx_hidden(ctx)), F.relu(block.feat_hidden(x))
    gamma = block.feat_gamma(a) * (1 + block.ctx_gamma_scale(c)) + block.ctx_gamma_shift(c)
    beta = block.feat_beta(a) * (1 + block.ctx_beta_scale(c)) + block.ctx_beta_shift(c)
    return F.leaky_relu(n * (1 + gamma) + beta, 0.2)


@pytest.mark.parametrize("stride", [1, 2])
def test_joined_convolutions_equal_the_plain_modulation(stride: int) -> None:
    torch.manual_seed(1)
    block = SPMConv(6, 10, ctx_channels=9, modulation=Modulation(hidden=12), stride=stride)
    x, ctx = torch.randn(3, 6, 16, 16), torch.randn(3, 9, 16 // stride, 16 // stride)
    assert torch.allclose(block(x, ctx), plain_spm(block, x, ctx), atol=2e-6)


def test_strided_slices_equal_torchs_resizing() -> None:
    x = torch.randn(1, 3, 256, 256)
    for size in (128, 64, 16, 2):
        assert torch.equal(resize_nearest(x, size), F.interpolate(x, size=(size, size), mode="nearest"))
    assert torch.equal(resize_bilinear(x, 256), x)
    assert torch.allclose(resize_bilinear(x, 128), F.avg_pool2d(x, 2), atol=1e-6)


def test_widths_at_256_are_the_authors() -> None:
    assert stage_widths(64) == ([1, 2, 4, 4, 8, 8, 16], [1, 1, 2, 4, 8])
    assert stage_widths(128) == ([1, 2, 4, 4, 8, 8, 16, 16], [1, 1, 2, 4, 8, 16])
    assert stage_widths(256) == ([1, 2, 4, 4, 8, 8, 16, 16, 32], [1, 1, 2, 4, 8, 8, 16])
    stage = SPMUNet(size=256, label_channels=35, ngf=32, modulation=Modulation(), style_dim=128)
    decoders = [stage.get_submodule(f"dec{j}.spm.conv").weight_orig.shape[:2] for j in range(8, 1, -1)]
    wanted = [(512, 1536), (256, 768), (256, 512), (128, 384), (64, 256), (32, 128), (32, 32)]
    assert [tuple(shape) for shape in decoders] == wanted


@pytest.mark.parametrize(("size", "depth"), [(16, 3), (48, 4), (80, 4), (96, 5), (112, 4), (512, 8)])
def test_depth_of_other_sizes(size: int, depth: int) -> None:
    assert stage_depth(size) == depth
    assert size % 2**depth == 0


@pytest.mark.parametrize("crop", [64, 128, 192, 320])
def test_generators_and_discriminators_work_at_any_multiple_of_64(crop: int) -> None:
    torch.manual_seed(0)
    netG = tiny_divsem(crop)
    netD = MultiScaleDiscriminator(label_nc=3, crop_size=crop, ndf=2)
    image, mask = torch.rand(1, 3, crop, crop) * 2 - 1, torch.zeros(1, 1, crop, crop)
    mask[..., : crop // 2] = 1
    inst = torch.zeros(1, crop, crop, dtype=torch.int64)
    seg = torch.zeros(1, 3, crop, crop)
    out = netG(image, seg, mask, mask, inst, 1)
    assert [p.shape[-1] for p in out.composite] == stage_sizes(crop)
    assert torch.equal(out.composite[-1][..., crop // 2 :], image[..., crop // 2 :])  # known pixels come back unchanged
    assert all(torch.isfinite(p).all() for p in out.fake)
    segs = [resize_nearest(seg, s) for s in stage_sizes(crop)]
    assert all(torch.isfinite(o[-1]).all() for o in netD(segs, out.composite, out.real)[0])


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    netG = tiny_divsem(64)
    mask = (torch.rand(2, 1, 64, 64) > 0.5).float()
    inst = torch.arange(64).div(16, rounding_mode="floor").expand(2, 64, 64).contiguous()
    seg = one_hot(torch.randint(0, 3, (2, 64, 64)), 3) * mask
    out = netG(torch.rand(2, 3, 64, 64), seg, mask, mask, inst, 4)
    out.fake[-1].square().mean().backward()
    assert [n for n, p in netG.named_parameters() if p.grad is None] == []


def test_context_without_style_is_spmpgans() -> None:
    net = CascadeGenerator(label_nc=3, crop_size=64, ngf=2, modulation=Modulation(hidden=4))
    assert net.stages[0].get_submodule("dec2.spm.ctx_hidden").weight.shape[1] == 3 + 2
