"""Does a rendered picture follow its target layout? Pixel accuracy and mean IoU of classes read from the picture.

Two readers: by colour (a pixel is of the class whose mean colour in the source picture is nearest), and by the run's
own segmentation network (its predicted layout, each pixel the nearest class). Beside each value stands the source
picture's own score under its own layout: what the reader can see at all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metrics.base import MetricValue

READERS = {
    "colour": "each pixel is of the class whose mean colour in the source is nearest",
    "segnet": "the run's segmentation network predicts the layout; each pixel is of the nearest class",
}


def mean_colours(source: Tensor, label: Tensor, classes: int) -> Tensor:
    """Return the mean colour (N, 3) float64 of each class of a picture (3, H, W) uint8; infinite where it has none."""
    seen = torch.nn.functional.one_hot(label.flatten(), classes).double()
    means = (seen.T @ source.flatten(1).double().T) / seen.sum(0)[:, None]
    return means.nan_to_num(nan=torch.inf)


def nearest_colour(picture: Tensor, colours: Tensor) -> Tensor:
    """Return the index (H, W) of the nearest of colours (N, C) to each pixel of (C, H, W)."""
    flat = picture.flatten(1).double().T
    distance = torch.cdist(flat, colours.double()).nan_to_num(nan=torch.inf)
    return distance.argmin(1).view(picture.shape[1:])


def agreement(found: Tensor, wanted: Tensor, classes: int) -> tuple[float, float]:
    """Return pixel accuracy and mean IoU, in %, over the classes that either has."""
    counts = torch.bincount(wanted.flatten() * classes + found.flatten(), minlength=classes**2)
    table = counts.view(classes, classes).double()
    hits, union = table.diagonal(), table.sum(0) + table.sum(1) - table.diagonal()
    accuracy = float(hits.sum() / table.sum())
    return 100 * accuracy, 100 * float((hits[union > 0] / union[union > 0]).mean())


def measure_layout(
    name: str,
    read: Callable[[Tensor], Tensor],
    *,
    source: tuple[Tensor, Tensor],
    results: dict[str, tuple[Tensor, Tensor]],
    classes: int,
) -> dict[str, MetricValue]:
    """Return `layout_acc_<name>` and `layout_miou_<name>`: means over targets.

    Args:
        name: of `READERS`.
        read: picture (3, H, W) uint8 to classes (H, W).
        source: picture and classes; results: picture and target classes, by name.
    """
    real = agreement(read(source[0]), source[1], classes)
    each = {key: agreement(read(picture), wanted, classes) for key, (picture, wanted) in results.items()}
    found = {}
    for place, (kind, what) in enumerate((("acc", "pixel accuracy"), ("miou", "mean IoU"))):
        values = {key: pair[place] for key, pair in each.items()}
        protocol = f"{what} of the target layout, {READERS[name]}; mean over targets"
        extra = {"each": values, "real": real[place]}
        found[f"layout_{kind}_{name}"] = MetricValue(
            sum(values.values()) / len(values), "%", protocol, len(values), extra
        )
    return found
