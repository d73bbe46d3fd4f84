"""What a stylised picture kept of its content and took of its style, without any weights.

Shapes: B pictures, H x W pixels. `Pictures.real` are the contents, `fake` the stylised pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from metrics.declaration import Setup, Value
from metrics.metric import Metric, PerPicture
from metrics.pictures import Pictures
from metrics.pixels.ssim import WINDOW, ssim_terms
from metrics.registry import METRICS, STYLISING
from util.edge_maps import SMALLEST, canny, grey
from util.strips import row_strips

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.3
MS_SSIM_SIDE = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)  # pixels, so that the coarsest scale holds a window
BINS = 8  # per colour channel


@METRICS.register
class Stylisation(PerPicture):
    """`ms_ssim`, `edge_f1` and `colour`, those in `names`; `style` (3, H, W) uint8 is needed by the last alone."""

    values = {
        "ms_ssim": Value(
            "1",
            "multi-scale SSIM (five scales halved by averaging, Gaussian 11x11, sigma 1.5, no padding, range 255) "
            "of luminance, result against content at the content's size; mean over pictures",
            limits=(0, 1),
        ),
        "edge_f1": Value(
            "1",
            "F1 of Canny's edges (blur sigma 1, thresholds 0.1 and 0.2) of result and content, one pixel of "
            "tolerance; mean over pictures",
            limits=(0, 1),
        ),
        "colour": Value(
            "distance",
            f"Hellinger distance of the colour histograms ({BINS}x{BINS}x{BINS} bins of RGB) of result and style "
            "picture; mean over pictures",
            lower_is_better=True,
            limits=(0, 1),
        ),
    }
    asked = {STYLISING: tuple(values)}
    needs = {"colour": ("style",)}
    place = 65

    def __init__(self, names: tuple[str, ...], *, style: Tensor | None) -> None:
        self.style = None if style is None else histogram(style[None])
        super().__init__(names)

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        return [cls(names, style=setup.style if "colour" in names else None)]

    def reset(self) -> None:
        super().reset()
        self._content_colour: list[float] = []

    def score(self, pictures: Pictures) -> dict[str, Tensor]:
        fake, real = pictures.fake, pictures.real
        scores = {}
        if "ms_ssim" in self.names:
            large = min(fake.shape[-2:]) >= MS_SSIM_SIDE
            undefined = torch.full((len(pictures),), torch.nan)
            scores["ms_ssim"] = ms_ssim(luminance(fake), luminance(real)) if large else undefined
        if "edge_f1" in self.names:
            scores["edge_f1"] = edge_f1(fake, real)
        if "colour" in self.names and self.style is not None:
            scores["colour"] = hellinger(histogram(fake), self.style)
            self._content_colour += hellinger(histogram(real), self.style).tolist()
        return scores

    def extra(self, name: str) -> dict[str, float]:
        if name != "colour":
            return {}
        return {"real": sum(self._content_colour) / len(self._content_colour)}

    def why_empty(self, name: str) -> str:
        if name == "ms_ssim":
            return f"five scales need pictures of at least {MS_SSIM_SIDE} pixels a side"
        return "no picture has an edge"


def luminance(pictures: Tensor) -> Tensor:
    """Return (B, 1, H, W) float64 in [0, 255] of pictures (B, 3, H, W) uint8."""
    return torch.cat([grey(pictures[..., rows, :].double()) for rows in row_strips(*pictures.shape[-2:])], -2)


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Return (B,) multi-scale SSIM of pictures (B, 1, H, W) in [0, 255] (Wang, Simoncelli, Bovik 2003)."""
    parts = []
    for scale in range(len(SCALE_WEIGHTS)):
        height, width = (length - WINDOW + 1 for length in x.shape[-2:])
        last, total = scale == len(SCALE_WEIGHTS) - 1, x.new_zeros(len(x))
        for rows in row_strips(height, width):
            total = total + ssim_terms(x, y, border="none", rows=rows)[0 if last else 1].sum((1, 2, 3))
        parts.append(total / (height * width))
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    weights = torch.tensor(SCALE_WEIGHTS, dtype=x.dtype, device=x.device)[:, None]
    return (torch.stack(parts).clamp(min=0) ** weights).prod(0)


def edge_f1(fake: Tensor, real: Tensor) -> Tensor:
    """Return (B,) F1 of the edges of pictures (B, 3, H, W), see `canny`; NaN where neither has one, or too few pixels.

    An edge pixel is right if the other map has one in its 3 x 3 neighbourhood.
    """
    if min(fake.shape[-2:]) < SMALLEST:
        return torch.full((len(fake),), torch.nan)
    ours, theirs = canny(fake), canny(real)
    near_ours, near_theirs = (F.max_pool2d(edges, 3, stride=1, padding=1) for edges in (ours, theirs))
    right, covered = _count(ours * near_theirs), _count(theirs * near_ours)
    precision, recall = right / _count(ours), covered / _count(theirs)
    none = (_count(ours) == 0) & (_count(theirs) == 0)
    score = 2 * precision * recall / (precision + recall)
    return torch.where(none, torch.nan, score.nan_to_num(0.0))


def _count(ones: Tensor) -> Tensor:
    """Return (B,) how many of (B, 1, H, W) are 1."""
    return ones.sum((1, 2, 3), dtype=torch.float64)


def histogram(pictures: Tensor) -> Tensor:
    """Return (B, 512) shares of the colours of pictures (B, 3, H, W) uint8."""
    counts = torch.zeros(len(pictures), BINS**3, dtype=torch.float64)
    for rows in row_strips(*pictures.shape[-2:]):
        levels = pictures[..., rows, :].long() * BINS // 256
        place = ((levels[:, 0] * BINS + levels[:, 1]) * BINS + levels[:, 2]).flatten(1)
        counts.scatter_add_(1, place, torch.ones_like(place, dtype=torch.float64))
    return counts / counts.sum(1, keepdim=True)


def hellinger(a: Tensor, b: Tensor) -> Tensor:
    """Return (B,) distances in [0, 1] of shares (B, n) and (1, n)."""
    return (1 - (a * b).sqrt().sum(1)).clamp(min=0).sqrt()
