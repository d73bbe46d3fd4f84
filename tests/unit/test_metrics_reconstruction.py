"""L1, PSNR and SSIM against closed forms and a plain SciPy oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from metrics.pictures import Pictures
from metrics.pixels.reconstruction import PSNR_CAP, Reconstruction
from metrics.pixels.ssim import ssim_terms
from util.errors import DataError

MASKED = ("l1_masked", "psnr_masked", "ssim_masked")


def pictures(fake: torch.Tensor, real: torch.Tensor, mask: torch.Tensor) -> Pictures:
    label = torch.zeros(len(fake), *fake.shape[-2:], dtype=torch.int64)
    return Pictures(fake=fake, real=real, mask=mask, label=label, name=[f"p{i}" for i in range(len(fake))])


def random_pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    real = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    noise = torch.randint(-40, 40, shape, generator=generator)
    return (real.int() + noise).clamp(0, 255).to(torch.uint8), real


def oracle_ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    def blur(a: np.ndarray) -> np.ndarray:
        return gaussian_filter(a, sigma=1.5, truncate=3.5, mode="reflect")

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    return (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))


def test_ssim_equals_scipy_oracle_up_to_the_border() -> None:
    fake, real = random_pair(2, 3, 24, 33)
    ours = ssim_terms(fake, real, border="mirrored")[0].numpy()
    for b in range(2):
        for c in range(3):
            np.testing.assert_allclose(
                ours[b, c], oracle_ssim(fake[b, c].double().numpy(), real[b, c].double().numpy()), atol=1e-10
            )


def test_without_a_border_the_windows_inside_alone_are_left() -> None:
    fake, real = random_pair(2, 3, 24, 33)
    whole, inside = (ssim_terms(fake, real, border=border) for border in ("mirrored", "none"))
    for larger, smaller in zip(whole, inside, strict=True):
        torch.testing.assert_close(larger[..., 5:-5, 5:-5], smaller, rtol=0, atol=1e-12)


def test_closed_forms_on_the_mask_only() -> None:
    real = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    fake = real.clone()
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    mask[..., 4:8] = 1
    fake[..., 4:8] = 110
    fake[..., 12:] = 0  # outside the mask: must not count
    metric = Reconstruction(("l1_masked", "psnr_masked"))
    metric.update(pictures(fake, real, mask))
    values = metric.compute()
    assert values["l1_masked"].value == pytest.approx(10 / 255)
    assert values["psnr_masked"].value == pytest.approx(20 * np.log10(255 / 10))
    assert "ssim_masked" not in values


def test_masked_ssim_is_the_mean_of_the_map_over_the_mask() -> None:
    fake, real = random_pair(1, 3, 20, 20)
    mask = torch.zeros(1, 1, 20, 20, dtype=torch.bool)
    mask[..., 3:9, 5:] = True
    metric = Reconstruction(("ssim_masked",))
    metric.update(pictures(fake, real, mask))
    expected = ssim_terms(fake, real, border="mirrored")[0][..., 3:9, 5:].mean()
    assert metric.compute()["ssim_masked"].value == pytest.approx(float(expected))


def test_mean_is_over_pictures_and_does_not_depend_on_batches() -> None:
    fake, real = random_pair(5, 3, 16, 16)
    mask = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(1)) > torch.linspace(0, 0.9, 5).view(
        5, 1, 1, 1
    )
    whole, single = Reconstruction(MASKED), Reconstruction(MASKED)
    whole.update(pictures(fake, real, mask))
    for i in range(5):
        single.update(pictures(fake[i : i + 1], real[i : i + 1], mask[i : i + 1]))
    for name, value in whole.compute().items():
        assert value.value == pytest.approx(single.compute()[name].value, rel=1e-12)
        assert value.count == 5


def test_equal_pictures_and_empty_masks_are_counted() -> None:
    _, real = random_pair(3, 3, 16, 16)
    mask = torch.ones(3, 1, 16, 16, dtype=torch.uint8)
    mask[1] = 0
    metric = Reconstruction(MASKED)
    metric.update(pictures(real, real, mask))
    values = metric.compute()
    assert values["l1_masked"].value == 0
    assert values["ssim_masked"].value == pytest.approx(1)
    assert values["psnr_masked"].value == PSNR_CAP
    assert values["psnr_masked"].extra == {"pictures_with_empty_mask": 1, "pictures_at_cap": 2}
    assert values["l1_masked"].count == 2
    assert metric.empty == ["p1"]


def test_only_empty_masks_leave_the_values_out_and_say_so() -> None:
    _, real = random_pair(2, 3, 16, 16)
    metric = Reconstruction(MASKED)
    metric.update(pictures(real, real, torch.zeros(2, 1, 16, 16, dtype=torch.uint8)))
    assert metric.compute() == {}
    assert "every mask is empty" in metric.notes[0]


def test_pictures_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(DataError, match="at least 11 pixels"):
        ssim_terms(torch.zeros(1, 3, 10, 64), torch.zeros(1, 3, 10, 64), border="mirrored")


def test_float_pictures_are_refused() -> None:
    _, real = random_pair(1, 3, 16, 16)
    with pytest.raises(ValueError, match="8-bit"):
        pictures(real.float(), real, torch.ones(1, 1, 16, 16))
