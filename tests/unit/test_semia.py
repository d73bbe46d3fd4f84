"""SemIA's parts: phases, losses, metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from single_images import dataset, write_example
from torch import nn

from data.single_image_dataset import single_batch
from data.warps import Augmentation
from metrics.declaration import Source
from metrics.features.frechet import frechet_distance
from metrics.pictures import Pictures
from metrics.segments.layout import Layout, agreement, mean_colours, nearest_colour
from models.networks.semia.blocks import Point2d, SpectralPoint2d
from models.networks.semia.discriminator import PyramidDiscriminator
from models.networks.semia.generator import SemIAGenerator
from models.networks.semia.segmenter import LayoutSegmenter
from models.semia_model import NETWORK_INPUTS, SemIAModel
from scripts.benchmarks.semia import PlainSemIA
from util.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_example(tmp_path / "data")


# --- method -----------------------------------------------------------------------------------------------------------
def test_layouts_that_are_equal_change_nothing_but_by_the_heads() -> None:
    """Ratio 1 and difference 0: scale and shift are constant over the picture."""
    torch.manual_seed(0)
    net = SemIAGenerator(ngf=4).eval()
    seg = torch.rand(1, 3, 32, 40) * 2 - 1
    ratios, differences = net.changes(seg, seg)
    assert all(bool((r == 1).all()) for r in ratios)
    assert all(bool((d == 0).all()) for d in differences)


def test_the_ratio_is_bounded_on_request() -> None:
    torch.manual_seed(0)
    seg, other = (torch.rand(1, 3, 64, 64) * 2 - 1 for _ in range(2))
    nets = [SemIAGenerator(ngf=4, ratio_limit=limit).eval() for limit in (0.0, 3.0)]
    nets[1].load_state_dict(nets[0].state_dict())
    free, bounded = (torch.cat([r.flatten() for r in net.changes(seg, other)[0]]) for net in nets)
    assert free.abs().max() > 3
    assert torch.equal(free.clamp(-3, 3), bounded)


def test_a_step_is_one_of_two_modes(root: Path) -> None:
    torch.manual_seed(0)
    nets: dict[str, Any] = {
        "netG": SemIAGenerator(ngf=4), "netD": PyramidDiscriminator(ndf=4), "netS": LayoutSegmenter(width=4),
    }  # fmt: skip
    model = SemIAModel(**nets, stable_steps=4, decay_steps=6)
    data = dataset(root, augmentation=Augmentation(), stable_steps=1)
    batch: Any = single_batch(data, (7, 0))  # type: ignore[arg-type]  # augmented
    assert [(p.name, p.every, p.repeat) for p in model.phases()] == [
        ("D", 1, 1), ("S", 5, 1), ("G", 1, 10), ("D", 1, 1)
    ]  # fmt: skip
    swaps = set()
    for step in range(12):
        model.step = step
        before = dict(vars(model))
        shared = model.begin_step(batch)
        names = set(model.losses_G(shared))
        assert all(vars(model)[name] is before.get(name) for name in vars(model))  # nothing stays on the model
        if step % 5 == 0:
            assert names == {"G/gan", "G/feat", "G/rec", "G/alpha", "G/beta"}
            assert torch.equal(shared.source.image, batch["target_image"])
        else:
            assert names == {"G/gan", "G/feat", "G/align"}
            swaps.add(torch.equal(shared.source.image, batch["target_image"]))
        rates = [o.param_groups[0]["lr"] for o in (model.optimizer_G, model.optimizer_D, model.optimizer_S)]
        base = 0.01 - 0.0015 * min(max(0, step - 5), 6)
        assert rates == pytest.approx([base / 2, base * 2, 0.005])
    assert swaps == {True, False}


class Recorded(nn.Module):
    """Stands for the perceptual loss."""

    def forward(self, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return (fake - real).abs().mean()


def test_the_segmentation_network_judges_by_what_it_learned() -> None:
    """After few updates, when its running statistics are still wrong."""
    torch.manual_seed(0)
    net = LayoutSegmenter(width=16)
    picture = torch.rand(1, 3, 32, 32) * 0.4
    picture[:, :, 16:] -= 0.6
    seg = torch.where(torch.arange(32)[:, None] < 16, 1.0, -1.0).expand(1, 3, 32, 32)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
    for _ in range(12):
        optimizer.zero_grad()
        (net(picture) - seg).abs().mean().backward()
        optimizer.step()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        judged, again = net.judge(picture), net.judge(picture)
        wrong = (net.eval()(picture) - seg).abs().mean()
    assert torch.equal(judged, again)
    assert (judged - seg).abs().mean() < 0.5 * wrong
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_perceptual_loss_is_of_both_modes(root: Path) -> None:
    torch.manual_seed(0)
    nets: Any = {"netD": PyramidDiscriminator(ndf=4), "netS": LayoutSegmenter(width=4), "perceptual": Recorded()}
    model = SemIAModel(netG=SemIAGenerator(ngf=4), weights={"vgg": 1.0}, **nets)
    found = []
    for model.step in range(2):
        shared = model.begin_step(cast(Any, single_batch(dataset(root), 0)))
        found.append(model.losses_G(shared)["G/vgg"].item())
        assert (shared.source is shared.target) == (model.step == 0)
    assert min(found) > 0


def test_features_of_the_real_picture_are_kept_while_the_discriminator_stays(root: Path) -> None:
    """The values are those of reading it anew: the power iterations in between change no feature."""
    batch, found, read = cast(Any, single_batch(dataset(root), 0)), [], []
    for kind in (PlainSemIA, SemIAModel):
        torch.manual_seed(0)
        nets = SemIAGenerator(ngf=4, ratio_limit=10), PyramidDiscriminator(ndf=4), LayoutSegmenter(width=4)
        model = kind(netG=nets[0].double(), netD=nets[1].double(), netS=nets[2].double())
        nets[1].register_forward_pre_hook(lambda net, args: read.append(len(args[0])))
        model.step = 1
        shared = model.begin_step(cast(Any, {k: v.double() if k in NETWORK_INPUTS else v for k, v in batch.items()}))
        losses = [phase.losses(shared) for phase in model.phases() for _ in range(min(phase.repeat, 3))]
        found.append(torch.stack([loss[name] for loss in losses for name in ("G/feat", "G/gan") if name in loss]))
        read.append(0)
    assert read == [2, 2, 2, 2, 2, 0, 2, 2, 1, 1, 2, 0]
    assert len(found[0]) == 6
    assert torch.allclose(found[0], found[1], rtol=1e-4)


def test_the_order_of_maps_in_memory_changes_no_loss(root: Path) -> None:
    """On a CPU a step works in channels_last; the benchmark's plain form does not."""
    batch, found = cast(Any, single_batch(dataset(root), 0)), []
    for kind in (PlainSemIA, SemIAModel):
        torch.manual_seed(0)
        nets = SemIAGenerator(ngf=4), PyramidDiscriminator(ndf=4), LayoutSegmenter(width=4)
        model = kind(netG=nets[0], netD=nets[1], netS=nets[2])
        for net in nets:
            net.double()
        model.step = 1
        double = {k: v.double() if k.endswith(("image", "seg")) else v for k, v in batch.items()}
        shared = model.begin_step(cast(Any, double))
        image = model.render(shared).image
        assert image.is_contiguous(memory_format=torch.channels_last) == (kind is SemIAModel)
        losses = model.losses_G(shared)
        sum(losses.values()).backward()
        norms = [p.grad.norm() for net in nets for p in net.parameters() if p.grad is not None]
        found.append([*losses.values(), *norms])
    assert len(found[0]) > 100
    assert torch.allclose(torch.stack(found[0]), torch.stack(found[1]), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("conv", [Point2d(6, 4), SpectralPoint2d(6, 4).eval()])
def test_pointwise_convolutions_in_either_order(conv: Any) -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 6, 9, 11)
    weight = conv.weight if isinstance(conv, Point2d) else conv.normalised_weight()
    wanted = nn.functional.conv2d(x, weight, conv.bias)
    assert torch.allclose(conv(x), wanted, atol=1e-6)
    last = conv(x.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(last, wanted, atol=1e-6)
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_it_trains_in_one_process() -> None:
    with pytest.raises(UserError, match="without torchrun"):
        SemIAModel(netG=SemIAGenerator(ngf=4)).distribute(lambda net: net)


def test_alignment_trains_the_generator_but_not_the_segmenter(root: Path) -> None:
    torch.manual_seed(0)
    netS = LayoutSegmenter(width=4)
    model = SemIAModel(netG=SemIAGenerator(ngf=4), netD=PyramidDiscriminator(ndf=4), netS=netS)
    batch: Any = single_batch(dataset(root), 0)
    model.step = 1
    shared = model.begin_step(batch)
    before = netS.tail[1].running_mean.clone()
    model.misalignment(model.render(shared).image, shared.target.seg).backward()
    assert model.netG.decoder_i.tail_block.main[1].weight_orig.grad.abs().sum() > 0
    assert torch.equal(netS.tail[1].running_mean, before)
    assert netS.training


# --- metrics ----------------------------------------------------------------------------------------------------------
def test_layout_scores() -> None:
    label = torch.zeros(8, 8, dtype=torch.int64)
    label[4:] = 1
    picture = torch.where(label[None] > 0, 200, 50).to(torch.uint8).expand(3, 8, 8)
    colours = mean_colours(picture, label, 3)  # class 2 is nowhere: never the nearest
    read = lambda x: nearest_colour(x, colours)  # noqa: E731
    assert torch.equal(read(picture), label)
    wrong = picture.clone()
    wrong[:, :2] = 190
    metric = Layout(Source(picture, label, 3))
    pair, labels = torch.stack([picture, wrong]), label.expand(2, -1, -1)
    metric.update(Pictures(pair, pair, None, labels, ["a", "b"], has_truth=False))
    found = metric.compute()
    assert found["layout_acc_colour"].value == pytest.approx((100 + 75) / 2)
    assert found["layout_acc_colour"].extra["real"] == 100
    assert found["layout_acc_colour"].extra["unchanged"] == 100
    metric.reset()
    metric.update(Pictures(pair, pair, None, 1 - labels, ["a", "b"], has_truth=False))
    assert metric.compute()["layout_acc_colour"].extra["unchanged"] == 0
    assert found["layout_miou_colour"].extra["each"]["b"] == pytest.approx(100 * (0.5 + 32 / 48) / 2)
    assert agreement(label, label, 3) == (100.0, 100.0)


def test_sifid_reads_positions() -> None:
    from metrics.features.sifid import LocalFeatures

    torch.manual_seed(0)
    blocks = nn.Sequential()
    blocks.add_module("Conv2d_4a_3x3", nn.Conv2d(3, 5, 3, stride=2))
    blocks.add_module("later", nn.Conv2d(5, 7, 3))
    net = LocalFeatures(blocks)
    picture = torch.randint(0, 256, (3, 33, 41), dtype=torch.uint8)
    rows = net(picture)
    assert rows.shape == (16 * 20, 5)
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(net(picture // 2), rows) > 0.01
