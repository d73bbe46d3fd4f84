"""SemIA's parts: classes of layouts, files, augmentation, phases, metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from data.single_image import Reader, find_classes, find_picture, find_targets, padded, read_opaque
from data.single_image_dataset import SingleImageDataset, single_batch
from data.warps import Augmentation, warp, warp_coordinates
from metrics.declaration import Source
from metrics.features.frechet import frechet_distance
from metrics.pictures import Pictures
from metrics.segments.layout import Layout, agreement, mean_colours, nearest_colour
from models.networks.semia.blocks import Point2d, SpectralPoint2d
from models.networks.semia.discriminator import PyramidDiscriminator
from models.networks.semia.generator import SemIAGenerator
from models.networks.semia.segmenter import LayoutSegmenter
from models.semia_model import NETWORK_INPUTS, SemIAModel
from scripts.benchmark_semia import PlainSemIA
from util.errors import DataError, UserError
from util.images import read_image, save_png

SKY, GRASS = (0, 253, 255), (0, 249, 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_example(tmp_path / "data")


def write_example(folder: Path, *, size: tuple[int, int] = (41, 53)) -> Path:
    """A picture, its layout of two halves, and a target; the size is no multiple of 8."""
    rng, (height, width) = np.random.RandomState(0), size
    rows = np.repeat(np.arange(height)[:, None], width, 1)
    for name, line in (("label", height // 2), ("cond/low", height // 3)):
        save_png(np.where((rows > line)[..., None], GRASS, SKY).astype(np.uint8), folder / f"{name}.png")
    save_png(rng.randint(0, 256, (height, width, 3), dtype=np.uint8), folder / "img.png")
    return folder


def dataset(root: Path, **settings: Any) -> SingleImageDataset:
    given: dict[str, Any] = {"root": root, "targets": None, "reader": Reader("colours", 1.0), "tolerance": 64.0}
    return SingleImageDataset(**(given | settings))


# --- layouts ----------------------------------------------------------------------------------------------------------
def test_classes_are_frequent_colours_that_are_apart() -> None:
    layout = np.zeros((50, 40, 3), np.uint8)
    layout[:, :20], layout[:, 20:] = SKY, GRASS
    layout[:5, 30:] = (20, 249, 10)  # a noisy shade of grass
    layout[0, 0] = (255, 0, 0)  # rare
    classes = find_classes(layout, "colours", 64.0)
    assert sorted(map(tuple, classes.colours.tolist())) == sorted([SKY, GRASS])
    assert len(find_classes(layout, "colours", 10.0).colours) == 3
    nearest = classes.nearest(layout)
    assert nearest[2, 35] == nearest[40, 35] != nearest[40, 5]
    assert set(classes.names) == {"#00fdff", "#00f900"}


@pytest.mark.parametrize("far", [False, True])
def test_a_target_may_differ_in_shade_but_not_show_a_new_colour(root: Path, far: bool) -> None:
    layout = read_image(root / "cond" / "low.png")
    layout[:10, :10] = (250, 10, 10) if far else (40, 249, 30)
    save_png(layout, root / "cond" / "other.png")
    data = dataset(root, targets=find_targets(root / "cond"))
    assert data.names == ["low", "other"]
    if far:
        with pytest.raises(DataError, match=r"other\.png: 4\.6 % of its pixels .* #fa0a0a.*--label_tolerance"):
            data[1]
    else:
        assert torch.equal(data[1]["target_label"][2, 2], data[1]["target_label"][39, 39])


def test_sketches_and_faces_are_layouts(tmp_path: Path) -> None:
    """A black line on white, and moved; parts of a face in ten colours, two of them alike."""
    rows, columns = np.mgrid[0:48, 0:48]

    def sketch(shift: int) -> np.ndarray:
        off = np.abs(np.hypot(rows - 24, columns - 24 - shift) - 14)
        return np.repeat(np.where(off < 1.5, 0, 255).astype(np.uint8)[..., None], 3, 2)

    parts = np.array([(0, 0, 0), (204, 0, 0), (76, 153, 0), (204, 204, 0), (51, 51, 255), (204, 0, 204), (0, 255, 255),
                      (255, 204, 204), (102, 51, 0), (132, 51, 30)], np.uint8)  # fmt: skip
    face = parts[(rows // 10 * 2 + columns // 24) % 10]
    noise = np.random.RandomState(0).randint(0, 255, (48, 48, 3)).astype(np.uint8)
    cases = {"sketch": (sketch(0), sketch(4), 64.0, 2), "face": (face, face[:, ::-1], 20.0, 10)}
    for name, (label, target, tolerance, classes) in cases.items():
        save_png(noise, tmp_path / name / "img.png")
        save_png(label, tmp_path / name / "label.png")
        save_png(target, tmp_path / name / "cond" / "other.png")
        known = SingleImageDataset(
            root=tmp_path / name, targets=find_targets(tmp_path / name / "cond"),
            reader=Reader("colours", 1.0), tolerance=tolerance,
        )  # fmt: skip
        assert known.label_nc == classes
        assert (known[0]["target_label"] != known[0]["label"]).float().mean() > 0.05


def test_ids_make_one_hot_layouts(root: Path) -> None:
    for name in ("label", "cond/low"):
        ids = (read_image(root / f"{name}.png")[..., 2] > 0) * 4 + 3
        save_png(ids.astype(np.uint8), root / f"{name}.png")
    data = dataset(root, reader=Reader("ids", 1.0), targets=[root / "cond" / "low.png"])
    assert data.class_names == ["id 3", "id 7"]
    item = data[0]
    assert item["seg"].shape == (2, 40, 48)
    assert set(item["seg"].unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(item["seg"].argmax(0), item["label"])
    save_png(np.full((41, 53), 5, np.uint8), root / "cond" / "low.png")
    with pytest.raises(DataError, match="id 5 is not in the source's layout"):
        data[0]


def test_alignment_snaps_every_pixel(root: Path) -> None:
    layout = read_image(root / "label.png")
    layout[19:21] = (0, 251, 120)  # an antialiased border
    save_png(layout, root / "label.png")
    plain, aligned = (dataset(root, align=align, augmentation=Augmentation()) for align in (False, True))
    colours = {tuple(c) for c in aligned.layouts.colours.tolist()}
    shown = [
        {tuple(c) for c in ((d[(999, 0)]["target_seg"] + 1) * 127.5).round().int().flatten(1).T.tolist()}
        for d in (plain, aligned)
    ]
    assert shown[1] == colours < shown[0]


# --- files ------------------------------------------------------------------------------------------------------------
def test_files_that_cannot_be_used_are_told(root: Path) -> None:
    with pytest.raises(DataError, match=r"no img\.\*"):
        find_picture(root / "cond", "img")
    Image.fromarray(read_image(root / "img.png")).save(root / "img.jpg")
    with pytest.raises(DataError, match=r"img\.jpg, img\.png; keep one"):
        find_picture(root, "img")
    (root / "img.png").unlink()
    assert dataset(root).image_path.name == "img.jpg"
    with pytest.raises(DataError, match="no target layouts"):
        find_targets(root / "none")
    save_png(read_image(root / "cond" / "low.png"), root / "cond" / "low.bmp")
    with pytest.raises(DataError, match="two files are called low"):
        find_targets(root / "cond")


def test_sizes_must_be_equal_and_large_enough(root: Path) -> None:
    small = write_example(root / "small", size=(39, 60))
    with pytest.raises(DataError, match=r"32 pixels a side are needed"):
        dataset(small, reader=Reader("colours", 0.8))
    data = dataset(root, targets=[small / "cond" / "low.png"])
    with pytest.raises(DataError, match=r"low\.png is 60x39, .*label\.png is 53x41"):
        data[0]
    save_png(read_image(small / "label.png"), root / "label.png")
    with pytest.raises(DataError, match=r"label\.png is 60x39, .*img\.png is 53x41"):
        dataset(root)


@pytest.mark.parametrize(
    ("alpha", "pixels", "note"), [(255, 159, ""), (100, 40, "1.84 %"), (100, 159, "laid on white")]
)
def test_alpha_is_left_out_or_laid_on_white(
    root: Path, capsys: pytest.CaptureFixture[str], alpha: int, pixels: int, note: str
) -> None:
    """The authors' examples have up to 1.7 % of antialiased pixels."""
    layout = read_image(root / "label.png")
    channel = np.full((*layout.shape[:2], 1), 255, np.uint8)
    channel.reshape(-1)[:pixels] = alpha
    save_png(np.concatenate([layout, channel], 2), root / "label.png")
    found = read_opaque(root / "label.png")
    told = capsys.readouterr().out
    assert note in told if note else not told
    where = (channel < 255)[..., 0]
    assert np.array_equal(found[~where], layout[~where])
    if note == "laid on white":
        wanted = layout[where] * (100 / 255) + 155
        assert np.abs(found[where] - wanted).max() <= 0.5
    else:
        assert np.array_equal(found, layout)


@pytest.mark.parametrize(("resize", "size"), [(1.0, (40, 48)), (0.9, (32, 48)), (2.0, (80, 104))])
def test_size_is_scaled_then_cut_to_multiples_of_8(root: Path, resize: float, size: tuple[int, int]) -> None:
    item = dataset(root, reader=Reader("colours", resize))[0]
    assert item["image"].shape == (3, *size)
    assert item["target_label"].shape == size
    assert padded(np.zeros((33, 40, 3))).shape == (40, 40, 3)


# --- augmentation -----------------------------------------------------------------------------------------------------
def test_augmentation_grows_and_depends_on_its_key_alone(root: Path) -> None:
    data, again = (dataset(root, augmentation=Augmentation(), stable_steps=100) for _ in range(2))
    late = [data[(epoch, 0)]["target_image"] for epoch in range(100, 112)]
    assert all(torch.equal(a, again[(100 + k, 0)]["target_image"]) for k, a in enumerate(late))
    assert not torch.equal(late[0], late[1])
    first = [data[(epoch, 0)]["target_image"] for epoch in range(12)]
    original = data[0]["image"]
    change = [torch.stack([(x - original).abs().mean() for x in xs]).mean().item() for xs in (first, late)]
    assert change[0] < 0.5 * change[1]
    assert not torch.equal(dataset(root, augmentation=Augmentation(), stable_steps=100, seed=1)[(100, 0)]["target_image"], late[0])  # fmt: skip  # noqa: E501


def test_picture_and_layout_are_warped_alike() -> None:
    rng = np.random.RandomState(0)
    layout = np.where(np.arange(64)[:, None] > 30, 200, 20).astype(np.uint8).repeat(60, 1)
    picture = np.stack([layout] * 3, -1)
    for _ in range(8):
        moved, ids = Augmentation(warp=0.05)([picture, layout], rng, 1.0, nearest=[False, True])
        assert set(np.unique(ids)) <= {20, 200}
        assert (np.abs(moved[..., 0].astype(int) - ids) > 90).mean() < 0.02


@pytest.mark.parametrize("strength", [0, 0.4])
@pytest.mark.parametrize("size", [(50, 70), (64, 64)])
def test_the_last_bits_of_the_spline_do_not_reach_a_warped_picture(size: tuple[int, int], strength: float) -> None:
    rng = np.random.RandomState(0)
    picture = np.stack([*(3 * np.mgrid[: size[0], : size[1]]), rng.randint(0, 256, size)], -1).astype(np.uint8)
    layout = rng.randint(0, 9, size).astype(np.uint8)
    exact = warp_coordinates(*size, strength * rng.uniform(-1, 1, (9, 2)))
    for _ in range(5):
        other = exact * (1 + 1e-9 * rng.standard_normal(exact.shape))
        assert np.array_equal(warp(picture, other), warp(picture, exact))
        assert np.array_equal(warp(layout, other, nearest=True), warp(layout, exact, nearest=True))


def test_a_warp_without_moves_is_none_for_odd_sizes() -> None:
    picture = np.random.RandomState(0).randint(0, 256, (31, 45, 3), dtype=np.uint8)
    assert np.array_equal(warp(picture, warp_coordinates(31, 45, np.zeros((9, 2)))), picture)


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
