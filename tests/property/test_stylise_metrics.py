"""Metrics of stylised pictures: closed forms, bounds, and the packages that others use."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from metrics.declaration import Clip, Setup
from metrics.features import vgg_style
from metrics.features.art_inception import load_art_inception
from metrics.features.frechet import frechet_distance
from metrics.features.infinity import fid_infinity
from metrics.features.style_sets import ArtFID, ClipLoss, OwnArtFID
from metrics.features.vgg_style import VGGStyle, cfsd, gram, load_vgg19
from metrics.pictures import Pictures
from metrics.pixels.stylisation import MS_SSIM_SIDE, SCALE_WEIGHTS, Stylisation, edge_f1, hellinger, histogram, ms_ssim
from metrics.registry import METRICS
from testing.stylising_flow import StylisingFlow
from util.errors import DataError, UserError
from util.opt import Opt

CPU = torch.device("cpu")
NAMES = ("ms_ssim", "edge_f1", "colour")


def pictures(seed: int, count: int = 2, side: int = 64) -> Tensor:
    """Return smooth random pictures (B, 3, S, S) uint8."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    fine = nn.functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)
    return (fine.clamp(0, 1) * 255).to(torch.uint8)


def batch(fake: Tensor, real: Tensor) -> Pictures:
    return Pictures(fake, real, torch.ones_like(fake[:, :1]), None, [str(i) for i in range(len(fake))])


def small_features() -> nn.Sequential:
    """Return layers of VGG-19's order, narrow and random."""
    torch.manual_seed(0)
    widths = [4, 4, "M", 4, 4, "M", 6, 6, 6, 6, "M", 8, 8, 8, 8, "M", 8, 8, 8, 8, "M"]
    layers: list[nn.Module] = []
    channels = 3
    for width in widths:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*layers)


def test_equal_pictures_score_best() -> None:
    x = pictures(0, side=192)
    metric = Stylisation(NAMES, style=x[0])
    metric.update(batch(x, x))
    found = metric.compute()
    assert found["ms_ssim"].value == pytest.approx(1)
    assert found["edge_f1"].value == pytest.approx(1)
    assert metric.each["colour"][0] == pytest.approx(0, abs=1e-6)
    assert found["colour"].extra["real"] == pytest.approx(found["colour"].value)


def test_ms_ssim_is_made_of_torchmetrics_contrasts_and_scikit_images_ssim() -> None:
    """torchmetrics' last scale alone counts mirrored borders; scikit-image's mean leaves them out, as here."""
    package = pytest.importorskip("torchmetrics.functional.image")
    theirs = pytest.importorskip("skimage.metrics")
    x, y = (pictures(seed, 1, side=192)[:, :1].double() for seed in (1, 2))
    y = (0.7 * x + 0.3 * y).round()
    contrasts = package.multiscale_structural_similarity_index_measure(
        x, y, data_range=255.0, kernel_size=11, sigma=1.5, betas=(*SCALE_WEIGHTS[:-1], 0.0), normalize="relu"
    )
    small = (nn.functional.avg_pool2d(z, 16)[0, 0].numpy() for z in (x, y))
    last = theirs.structural_similarity(
        *small, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert float(ms_ssim(x, y)) == pytest.approx(float(contrasts) * last ** SCALE_WEIGHTS[-1], rel=1e-4)


def test_small_pictures_have_no_ms_ssim() -> None:
    metric = Stylisation(("ms_ssim",), style=pictures(0)[0])
    metric.update(batch(pictures(1), pictures(2)))
    assert metric.compute() == {}
    assert str(MS_SSIM_SIDE) in metric.notes[0]


@given(st.integers(0, 3), st.integers(0, 3))
@settings(deadline=None, max_examples=10)
def test_edges_forgive_one_pixel_and_no_more(down: int, right: int) -> None:
    square = torch.zeros(1, 3, 40, 40)
    square[..., 10:30, 10:30] = 1
    moved = torch.roll(square, (down, right), (2, 3))
    score = float(edge_f1(square, moved))
    assert 0 <= score <= 1
    assert (score == 1) == (max(down, right) <= 1)


def test_edges_of_plain_pictures_are_undefined_or_missed() -> None:
    plain, square = torch.zeros(1, 3, 40, 40), torch.zeros(1, 3, 40, 40)
    square[..., 10:30, 10:30] = 1
    assert math.isnan(float(edge_f1(plain, plain)))
    assert float(edge_f1(plain, square)) == float(edge_f1(square, plain)) == 0


def test_colour_distance_is_hellingers() -> None:
    black, white = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    half = torch.cat([black[..., :2], white[..., 2:]], -1)
    assert float(hellinger(histogram(black), histogram(white))) == 1
    assert float(hellinger(histogram(black), histogram(half))) == pytest.approx(math.sqrt(1 - math.sqrt(0.5)))
    turned = pictures(3)[:1]
    assert float(hellinger(histogram(turned), histogram(turned.flip(3)))) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("rows", [512, 5])
def test_cfsd_is_the_kl_divergence_of_its_definition(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vgg_style, "CFSD_ROWS", rows)
    draw = torch.Generator().manual_seed(0)
    fake, content = (torch.rand(2, 5, 3, 4, generator=draw) * 5 for _ in range(2))
    wanted = []
    for a, b in zip(fake.flatten(2), content.flatten(2), strict=True):
        p, q = (torch.softmax((x / 5).T @ (x / 5), 1) for x in (a, b))
        wanted.append(float((q * (q / p).log()).sum()))
    assert cfsd(fake, content).tolist() == pytest.approx(wanted, rel=1e-4)
    assert cfsd(fake, fake).tolist() == [0, 0]


def test_values_from_vgg() -> None:
    names = ("cfsd", "style_loss", "content_loss")
    x, y = pictures(1), pictures(2)
    metric = VGGStyle(names, features=small_features(), sha256="s", style=x[0], device=CPU)
    metric.update(batch(x, x))
    values = metric.each
    assert values["cfsd"] == pytest.approx([0, 0], abs=1e-5)
    assert values["content_loss"] == [0, 0]
    assert values["style_loss"][0] == pytest.approx(0, abs=1e-9)
    assert values["style_loss"][1] > 0
    metric.reset()
    metric.update(batch(y, x))
    assert min(metric.each["cfsd"] + metric.each["content_loss"]) > 0
    before = metric.taps(x, (0,), 224)[0]
    assert float(before.min()) < 0  # conv1_1 itself, not what a ReLU in place leaves of it
    flat = before.flatten(2)
    torch.testing.assert_close(gram(before)[0], flat[0] @ flat[0].T / flat[0].numel())


def test_vgg_weights_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--vgg_weights FILE"):
        load_vgg19(None)
    with pytest.raises(UserError, match="no such file"):
        load_vgg19(str(tmp_path / "x.pth"))
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="is not torchvision's VGG-19"):
        load_vgg19(str(tmp_path / "x.pth"))


class Net:
    """LPIPS of closed form: squared differences of colours."""

    net = "alex"

    def to(self, device: torch.device) -> Net:
        return self

    def taps(self, x: Tensor) -> list[Tensor]:
        return [x.float() / 255]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
        return [(x - y).square().mean(1, keepdim=True) for x, y in zip(a, b, strict=True)]


def features(x: Tensor) -> Tensor:
    """Return (B, 3) mean colours of pictures (B, 3, H, W)."""
    return x.float().mean((2, 3)) / 255


@pytest.mark.parametrize("styles", [1, 3])
def test_art_fid_combines_both_distances(styles: int) -> None:
    import types

    net, files = Net(), types.SimpleNamespace(weights="w")
    painted = pictures(9, styles) // 2
    metric = ArtFID(["art_fid"], net, files, features, "i", styles=list(painted))  # type: ignore[arg-type]
    fake, real = pictures(1, 4), pictures(2, 4)
    metric.update(batch(fake, real))
    lpips = float((fake.float() - real.float()).square().mean() / 255**2)
    reference = features(painted).expand(2, -1) if styles == 1 else features(painted)
    fid = frechet_distance(features(fake), reference)
    found = metric.compute()["art_fid"]
    assert found.value == pytest.approx((1 + lpips) * (1 + fid), rel=1e-5)
    assert found.extra["num_styles"] == styles
    metric.reset()
    metric.update(batch(fake[:1], real[:1]))
    assert metric.compute() == {}
    assert "two contents" in metric.notes[0]


def test_art_fid_at_infinity_has_the_extrapolated_distance_and_enough_pictures() -> None:
    import types

    net, files, names = Net(), types.SimpleNamespace(weights="w"), ("art_fid", "art_fid_infinity")
    painted, fake, real = pictures(9, 7, side=16) // 2, pictures(1, 8, side=16), pictures(2, 8, side=16)
    metric = ArtFID(names, net, files, features, "i", styles=list(painted))  # type: ignore[arg-type]
    metric.update(batch(fake, real))
    plain, infinite = metric.compute().values()
    assert infinite.extra["fid_style"] == fid_infinity(features(fake), features(painted)).value
    assert infinite.value == pytest.approx((1 + plain.extra["lpips"]) * (1 + infinite.extra["fid_style"]))
    assert infinite.value != plain.value and "infinitely many" in infinite.protocol
    few = ArtFID(names, net, files, features, "i", styles=list(painted[:5]))  # type: ignore[arg-type]
    few.update(batch(fake, real))
    assert few.compute().keys() == {"art_fid"}
    assert few.notes == ["art_fid_infinity: left out, it needs at least 6 contents and style pictures (--style_set)"]


def test_art_trained_inception_is_torchvisions_network_from_a_file(tmp_path: Path) -> None:
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    net = inception_v3(weights=None, num_classes=5, transform_input=False, init_weights=False).eval()
    torch.save(net.state_dict(), tmp_path / "art.pth")
    found, sha256 = load_art_inception(str(tmp_path / "art.pth"))
    assert len(sha256) == 64
    net.fc = nn.Identity()
    x = pictures(3, 1, side=80)
    with torch.no_grad():
        torch.testing.assert_close(found.train().features(x), net(x.float() / 255), rtol=1e-4, atol=1e-5)
    with pytest.raises(DataError, match="at least 75 pixels a side"):
        found.features(x[..., :70, :])
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "art.pth")
    with pytest.raises(UserError, match=r"--art_inception .*art\.pth does not fit Inception3: missing"):
        load_art_inception(str(tmp_path / "art.pth"))
    with pytest.raises(UserError, match="--art_inception FILE, or ask for art_fid"):
        OwnArtFID.load_features(Opt(art_inception=None), CPU)


class Planted:
    """Makes a folder where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_nothing_of_a_pickle_runs_as_art_inception(tmp_path: Path) -> None:
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(1), "more": Planted(tmp_path / "trace")}, tmp_path / "art.pth")
    with pytest.raises(UserError, match=r"--art_inception .*art\.pth cannot be read as a PyTorch file of tensors"):
        load_art_inception(str(tmp_path / "art.pth"))
    assert not (tmp_path / "trace").exists()


def test_clip_loss_is_minus_log_of_the_mean_cosine() -> None:
    def embed(given: list[np.ndarray]) -> Tensor:
        mean = torch.stack([torch.from_numpy(p.astype(np.float32)).mean((0, 1)) for p in given])
        return mean / mean.norm(dim=1, keepdim=True)

    metric, fake, real = ClipLoss(Clip("c", "b32", embed)), pictures(1), pictures(2)
    metric.update(batch(fake, real))
    a, b = (embed(list(x.movedim(1, -1).numpy())) for x in (fake, real))
    assert metric.compute()["clip_loss"].value == pytest.approx(-math.log(float((a * b).sum(1).mean())), abs=1e-6)


def test_several_clips_each_give_a_value() -> None:
    def embed(shift: float) -> Callable[[Sequence[np.ndarray]], Tensor]:
        return lambda given: nn.functional.normalize(torch.stack([torch.tensor([shift, p.mean()]) for p in given]))

    first, other = Clip("b", "b32", embed(30)), Clip("l", "l14", embed(90))
    found = {}
    for metric in ClipLoss.load(("clip_loss",), Setup(opt=Opt(), device=CPU, clips=[first, other])):
        metric.update(batch(pictures(1), pictures(2) // 3))
        found |= metric.compute()
    assert list(found) == ["clip_loss", "clip_loss_l14"]
    assert found["clip_loss"].value != found["clip_loss_l14"].value
    assert found["clip_loss_l14"].protocol.endswith("network l")
    assert METRICS.gives("clip_loss", "clip_loss_l14") and METRICS.value("clip_loss_l14") is not None
    with pytest.raises(UserError, match=r"several networks of one size \(l14, l14\)"):
        ClipLoss.load(("clip_loss",), Setup(opt=Opt(), device=CPU, clips=[first, other, other]))


def test_names_of_metrics() -> None:
    parse = StylisingFlow.metrics
    leading = ["psnr", "ssim", "ms_ssim", "edge_f1", "colour", "lpips", "fid", "kid"]
    arts = ["art_fid", "art_fid_infinity", "art_fid_own", "art_fid_infinity_own"]
    assert parse("all") == [*leading, "div", "cfsd", "style_loss", "content_loss", *arts, "clip_loss"]
    assert parse("none") == []
    assert parse("lpips, cfsd,lpips") == ["lpips", "cfsd"]
    for text in ("all,psnr", "psnr,none"):
        with pytest.raises(UserError, match="stands alone"):
            parse(text)
    with pytest.raises(UserError, match="Did you mean 'cfsd'"):
        parse("cfds")
