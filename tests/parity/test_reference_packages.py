"""Values against the packages that others use: scikit-image, torchmetrics, torch-fidelity, pytorch-fid, lpips."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import __version__ as scipy_version
from torchvision import models

from metrics.features.frechet import frechet_distance
from metrics.features.inception import resize_clean
from metrics.features.kid import kid as kid_value
from metrics.features.lpips import LPIPS, load_lpips, masked, whole
from metrics.features.manifold import K_PRECISION, prdc
from metrics.features.perceptual import Perceptual
from metrics.pictures import Pictures
from metrics.pixels.reconstruction import Reconstruction
from metrics.pixels.ssim import ssim_terms
from metrics.segments.confusion import Confusion
from util.errors import UserError

TORCHVISION = {"alex": "alexnet", "vgg": "vgg16"}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Two photographs and their noisy copies, or noise where there are none."""
    folder = Path(os.environ.get("TEST_ASSETS", "")) / "camvid" / "test" / "images"
    files = sorted(folder.glob("*.jpg"))[:2] if "TEST_ASSETS" in os.environ else []
    if files:
        real = torch.stack([torch.from_numpy(np.array(Image.open(f))).movedim(-1, 0)[:, :120, :150] for f in files])
    else:
        real = torch.randint(0, 256, (2, 3, 120, 150), generator=generator(0), dtype=torch.uint8)
    noise = torch.randint(-30, 31, real.shape, generator=generator(1))
    return (real.int() + noise).clamp(0, 255).to(torch.uint8), real


def test_whole_picture_values_equal_scikit_images(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    theirs = pytest.importorskip("skimage.metrics")
    fake, real = pair
    metric = Reconstruction(("l1_whole", "psnr_whole", "ssim_whole"))
    metric.update(Pictures(fake, real, None, None, ["a", "b"]))
    for b in range(2):
        x, y = fake[b].movedim(0, -1).numpy(), real[b].movedim(0, -1).numpy()
        expected = theirs.peak_signal_noise_ratio(y, x, data_range=255)
        assert metric.each["psnr_whole"][b] == pytest.approx(expected, rel=1e-9)
        _, expected_map = theirs.structural_similarity(
            x.astype(float), y.astype(float), channel_axis=-1, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, data_range=255, full=True,
        )  # fmt: skip
        ours = ssim_terms(fake[b : b + 1], real[b : b + 1], border="mirrored")[0][0].movedim(0, -1).numpy()
        np.testing.assert_allclose(ours, expected_map, atol=1e-9)
        assert metric.each["ssim_whole"][b] == pytest.approx(expected_map.mean())
        assert metric.each["l1_whole"][b] == pytest.approx(np.abs(x.astype(float) - y).mean() / 255)


def test_against_torchmetrics(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    theirs = pytest.importorskip("torchmetrics.functional")
    kid = pytest.importorskip("torchmetrics.image.kid")
    fake, real = (p.double() for p in pair)
    settings = {"data_range": 255.0, "sigma": 1.5, "return_full_image": True}
    _, expected = theirs.image.structural_similarity_index_measure(fake, real, **settings)
    inner = (..., slice(5, -5), slice(5, -5))  # it mirrors the border without repeating the edge
    torch.testing.assert_close(
        ssim_terms(fake, real, border="mirrored")[0][inner], expected.double()[inner], rtol=1e-4, atol=1e-6
    )
    label, found = (torch.randint(0, 5, (3, 16, 16), generator=generator(s)) for s in (2, 3))
    confusion = Confusion(5)
    confusion.add(label, found)
    macro = {"num_classes": 5, "average": "macro"}
    assert confusion.miou() == pytest.approx(
        100 * float(theirs.classification.multiclass_jaccard_index(found, label, **macro))
    )
    assert confusion.class_accuracy() == pytest.approx(
        100 * float(theirs.classification.multiclass_accuracy(found, label, **macro))
    )
    assert torch.equal(confusion.counts, theirs.classification.multiclass_confusion_matrix(found, label, num_classes=5))
    x, y = (torch.randn(12, 8, generator=generator(s), dtype=torch.float64) for s in (4, 5))
    assert kid_value(x, y)[0] == pytest.approx(float(kid.poly_mmd(x, y)), rel=1e-9)


def test_against_torch_fidelity() -> None:
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    prc = pytest.importorskip("torch_fidelity.metric_prc")
    x, y = (torch.randn(40, 8, generator=generator(s), dtype=torch.float64) + s / 8 for s in (4, 5))
    theirs = kid.kid_features_to_metric(x, y, kid_subsets=2, kid_subset_size=40, verbose=False)
    assert kid_value(x, y)[0] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    found = prc.prc_features_to_metric(x, y, prc_neighborhood=K_PRECISION, prc_batch_size=10, verbose=False)
    ours = prdc(x, y)
    assert ours["precision"] == pytest.approx(found["precision"])
    assert ours["recall"] == pytest.approx(found["recall"])


@pytest.mark.skipif(
    tuple(map(int, scipy_version.split(".")[:2])) >= (1, 18), reason="pytorch-fid breaks with scipy 1.18"
)
def test_full_rank_distance_equals_pytorch_fids() -> None:
    from pytorch_fid.fid_score import calculate_frechet_distance

    x, y = (torch.randn(300, 24, generator=generator(s), dtype=torch.float64).cumsum(1) for s in (6, 7))
    moments = [m for f in (x.numpy(), y.numpy()) for m in (f.mean(0), np.cov(f, rowvar=False))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = float(calculate_frechet_distance(*moments))
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [(256, 256), (90, 130), (700, 400)])
def test_clean_resize_is_pillows(size: tuple[int, int]) -> None:
    picture = torch.randint(0, 256, (3, *size), generator=generator(8), dtype=torch.uint8)
    planes = [
        Image.fromarray(c.numpy().astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC) for c in picture
    ]
    expected = (np.stack([np.asarray(p) for p in planes]).clip(0, 255) - 128) / 128
    np.testing.assert_allclose(resize_clean(picture[None])[0].numpy(), expected, atol=2e-4)


def backbone(net: str) -> dict[str, torch.Tensor]:
    """Seeded random weights, scaled so that features neither vanish nor grow."""
    with torch.device("meta"):
        shapes = getattr(models, TORCHVISION[net])().features.state_dict()
    draw = generator(9)
    return {
        f"features.{key}": torch.randn(tensor.shape, generator=draw) * (2 / max(1, tensor[0].numel())) ** 0.5
        for key, tensor in shapes.items()
    }


def theirs_heads(package: Any, net: str) -> Path:
    return Path(package.__file__).parent / "weights" / "v0.1" / f"{net}.pth"


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_equals_the_package(
    net: str, pair: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's own code and heads on the same backbone: values, and the map behind the masked value."""
    theirs = pytest.importorskip("lpips")
    weights = backbone(net)

    with torch.device("meta"):
        model = getattr(models, TORCHVISION[net])()
    state = {key.removeprefix("features."): value for key, value in weights.items()}
    model.features.to_empty(device="cpu").load_state_dict(state)
    monkeypatch.setattr(models, TORCHVISION[net], lambda pretrained: model)  # the package downloads otherwise
    heads = torch.load(theirs_heads(theirs, net), map_location="cpu", weights_only=True)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: heads)  # theirs asks for a GPU that may not be there
    reference = theirs.LPIPS(net=net, verbose=False)
    ours = LPIPS(net=net, backbone=weights, heads=heads)
    fake, real = (p[..., :96, :80] for p in pair)
    maps = ours.distance(ours.taps(fake), ours.taps(real))
    scaled = [p.float() / 127.5 - 1 for p in (fake, real)]
    mask = torch.zeros(2, 1, 96, 80)
    mask[:, :, 20:60, 10:50] = 1
    with torch.no_grad():
        torch.testing.assert_close(whole(maps), reference(*scaled).flatten(), rtol=1e-4, atol=1e-6)
        reference.spatial = True
        expected = (reference(*scaled) * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))
    torch.testing.assert_close(masked(maps, mask), expected, rtol=1e-4, atol=1e-6)


def tiny_lpips() -> Perceptual:
    heads = {
        f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1, generator=generator(k))
        for k, c in enumerate((64, 192, 384, 256, 256))
    }
    files = type("Files", (), {})()
    return Perceptual(
        LPIPS(net="alex", backbone=backbone("alex"), heads=heads),
        files,
        device=torch.device("cpu"),
        kinds=("lpips", "div"),
    )


def test_diversity_is_the_mean_over_pairs_and_lpips_reads_the_first_draw() -> None:
    draws = torch.randint(0, 256, (1, 3, 3, 64, 64), generator=generator(11), dtype=torch.uint8)
    metric = tiny_lpips()
    mask = torch.ones(1, 1, 64, 64)
    metric.update(Pictures(draws[:, 0], draws[:, 1], mask, None, ["a"], draws=draws))
    values = {name: value.value for name, value in metric.compute().items()}

    def distance(i: int, j: int) -> float:
        return float(whole(metric.net.distance(metric.net.taps(draws[:, i]), metric.net.taps(draws[:, j]))))

    assert values["lpips_whole"] == pytest.approx(distance(0, 1), rel=1e-5)
    assert values["div_whole"] == pytest.approx((distance(0, 1) + distance(0, 2) + distance(1, 2)) / 3, rel=1e-5)
    assert distance(2, 0) == pytest.approx(distance(0, 2), rel=1e-6)
    assert distance(1, 1) == 0
    assert metric.compute()["div_whole"].extra["draws"] == 3


def test_one_draw_has_no_diversity_and_no_mask_no_masked_value() -> None:
    fake, real = (torch.randint(0, 256, (1, 3, 64, 64), generator=generator(s), dtype=torch.uint8) for s in (1, 2))
    metric = tiny_lpips()
    metric.update(Pictures(fake, real, None, None, ["a"], draws=fake[:, None]))
    assert set(metric.compute()) == {"lpips_whole"}
    assert any("--num_samples 2" in note for note in metric.notes)


def test_missing_lpips_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"--lpips_weights .*no such file"):
        load_lpips("alex", heads=str(tmp_path / "none.pth"), backbone=None)
    heads = tmp_path / "lin.pth"
    torch.save({"alex": {}}, heads)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError, match=r"alexnet-owt-7be5be79.pth .*no network.*--lpips_backbone FILE"):
        load_lpips("alex", heads=str(heads), backbone=None)
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="do not make LPIPS"):
        load_lpips("alex", heads=str(heads), backbone=str(tmp_path / "bad.pth"))
