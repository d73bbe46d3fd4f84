"""L1, PSNR and SSIM on the masked region: how near a result is to the truth where pixels were generated.

Per picture, then averaged over pictures. Shapes: B batch, H x W pixels; pictures float64 in [0, 255], RGB.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from metrics.base import Metric, MetricValue, Pictures
from util.errors import DataError

RECONSTRUCTION = ("l1", "psnr", "ssim")
PSNR_CAP = 100.0  # dB; a picture without any difference would be infinite
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
_UNIT = {"l1": "1", "psnr": "dB", "ssim": "1"}
_PROTOCOL = {
    "l1": "mean absolute difference over masked pixels and RGB channels, divided by 255; mean over pictures",
    "psnr": "10 log10(255^2 / MSE), MSE over masked pixels and RGB channels, at most 100 dB; mean over pictures",
    "ssim": "SSIM map (Gaussian 11x11, sigma 1.5, K1 .01, K2 .03, range 255, RGB channels averaged, reflected border) "
    "of the whole picture, averaged over masked pixels; mean over pictures",
}


def masked_l1(fake: Tensor, real: Tensor, mask: Tensor) -> Tensor:
    """Return (B,) mean |fake - real| / 255 over mask (B,1,H,W); NaN where the mask is empty."""
    return _masked_mean((fake - real).abs(), mask) / 255


def masked_psnr(fake: Tensor, real: Tensor, mask: Tensor) -> Tensor:
    """Return (B,) PSNR in dB over mask (B,1,H,W), capped at 100; NaN where the mask is empty."""
    return (10 * torch.log10(255**2 / _masked_mean((fake - real).square(), mask))).clamp(max=PSNR_CAP)


def masked_ssim(fake: Tensor, real: Tensor, mask: Tensor) -> Tensor:
    """Return (B,) SSIM over mask (B,1,H,W); NaN where the mask is empty."""
    return _masked_mean(ssim_map(fake, real), mask)


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity per pixel and channel (B,C,H,W) of pictures in [0, 255] (Wang et al. 2004, equation 13).

    Population (not sample) variances; borders are mirrored with the edge repeated, as in scikit-image.

    Raises:
        DataError: a side is shorter than the window.
    """
    if min(x.shape[-2:]) < SSIM_WINDOW:
        raise DataError(f"SSIM needs pictures of at least {SSIM_WINDOW} pixels a side, got {tuple(x.shape[-2:])}")
    x, y = x.double(), y.double()  # float32 loses the small variances of flat regions
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y, xx, yy, xy = _blur(torch.stack([x, y, x * x, y * y, x * y]))
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    return ((2 * mean_x * mean_y + c1) * (2 * cov + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))


def _blur(stack: Tensor) -> Tensor:
    """Separable Gaussian over the last two axes of (K,B,C,H,W)."""
    flat = stack.flatten(0, 2)[:, None]
    radius = SSIM_WINDOW // 2
    offsets = torch.arange(-radius, radius + 1, dtype=stack.dtype, device=stack.device)
    kernel = torch.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    kernel = kernel / kernel.sum()
    for axis, shape in ((-2, (1, 1, -1, 1)), (-1, (1, 1, 1, -1))):
        size = flat.shape[axis]
        mirrored = torch.arange(-radius, size + radius, device=stack.device)
        mirrored = torch.where(mirrored < 0, -1 - mirrored, mirrored)
        mirrored = torch.where(mirrored >= size, 2 * size - 1 - mirrored, mirrored)
        flat = F.conv2d(flat.index_select(axis, mirrored), kernel.view(shape))
    return flat.view_as(stack)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    mask = mask.to(values.dtype)
    return (values * mask).sum((1, 2, 3)) / (mask.sum((1, 2, 3)) * values.shape[1])


class Reconstruction(Metric):
    """`l1_masked`, `psnr_masked`, `ssim_masked` (those asked for in `names`); `per_picture` keeps each value."""

    def __init__(self, names: tuple[str, ...] = RECONSTRUCTION) -> None:
        super().__init__()
        self.names = names
        self.reset()

    def reset(self) -> None:
        self.empty: list[str] = []
        self.per_picture: dict[str, list[float]] = {name: [] for name in self.names}

    def update(self, pictures: Pictures) -> None:
        mask = pictures.mask > 0
        filled = mask.flatten(1).any(1)
        self.empty += [name for name, some in zip(pictures.name, filled.tolist(), strict=True) if not some]
        if not bool(filled.any()):
            return
        fake, real, mask = pictures.fake[filled].double(), pictures.real[filled].double(), mask[filled]
        functions = {"l1": masked_l1, "psnr": masked_psnr, "ssim": masked_ssim}
        for name in self.names:
            self.per_picture[name] += functions[name](fake, real, mask).tolist()

    def compute(self) -> dict[str, MetricValue]:
        counts = {len(values) for values in self.per_picture.values()}
        if counts == {0}:
            self.notes = [f"{', '.join(f'{n}_masked' for n in self.names)}: left out, every mask is empty"]
            return {}
        self.notes = []
        return {f"{name}_masked": self._value(name, values) for name, values in self.per_picture.items()}

    def _value(self, name: str, values: list[float]) -> MetricValue:
        extra: dict[str, object] = {"pictures_with_empty_mask": len(self.empty)}
        if name == "psnr":
            extra["pictures_at_cap"] = sum(value >= PSNR_CAP for value in values)
        return MetricValue(sum(values) / len(values), _UNIT[name], _PROTOCOL[name], len(values), extra)
