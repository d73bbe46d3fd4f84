"""Does a rendered picture follow its target layout? Pixel accuracy and mean IoU of classes read from the picture.

Two readers: by colour (a pixel is of the class whose mean colour in the source picture is nearest), and by the run's
own segmentation network (its predicted layout, each pixel the nearest class). Beside each value is the source
picture's own score under its own layout, the most that the reader can see, and under the target layouts: what a
method scores that changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metrics.declaration import Setup, Source, Value
from metrics.metric import Metric, MetricValue, PerPicture
from metrics.pictures import Pictures
from metrics.registry import ANALOGY, METRICS

KINDS = {"acc": "pixel accuracy", "miou": "mean IoU"}
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


def agreement(seen: Tensor, wanted: Tensor, classes: int) -> tuple[float, float]:
    """Return pixel accuracy and mean IoU, in %, over the classes that either has."""
    counts = torch.bincount(wanted.flatten() * classes + seen.flatten(), minlength=classes**2)
    table = counts.view(classes, classes).double()
    hits, union = table.diagonal(), table.sum(0) + table.sum(1) - table.diagonal()
    accuracy = float(hits.sum() / table.sum())
    return 100 * accuracy, 100 * float((hits[union > 0] / union[union > 0]).mean())


@METRICS.register
class Layout(PerPicture):
    """`layout_acc_<reader>` and `layout_miou_<reader>`: does a picture follow `Pictures.label`?"""

    asked = {ANALOGY: ("layout",)}
    values = {
        f"layout_{kind}_{reader}": Value("%", f"{what} of the target layout, {how}; mean over targets", limits=(0, 100))
        for reader, how in READERS.items()
        for kind, what in KINDS.items()
    }
    needs = {"layout": ("labels", "source")}
    of_source = True
    place = 80

    def __init__(self, source: Source) -> None:
        colours = mean_colours(source.picture, source.label, source.classes)
        self.classes = source.classes
        self.readers: dict[str, Callable[[Tensor], Tensor]] = {"colour": lambda x: nearest_colour(x, colours)}
        if source.read_layout is not None:
            self.readers["segnet"] = source.read_layout
        self._read = {name: read(source.picture) for name, read in self.readers.items()}
        self._source = {name: agreement(found, source.label, self.classes) for name, found in self._read.items()}
        self._parts = {f"layout_{kind}_{name}": (name, k) for name in self.readers for k, kind in enumerate(KINDS)}
        super().__init__(tuple(self._parts))

    @classmethod
    def load(cls, names: tuple[str, ...], setup: Setup) -> list[Metric]:
        assert setup.source is not None
        return [cls(setup.source)]

    def reset(self) -> None:
        super().reset()
        self._named: list[str] = []
        self._unchanged: dict[str, list[tuple[float, float]]] = {reader: [] for reader in self.readers}

    def score(self, pictures: Pictures) -> dict[str, Tensor]:
        assert pictures.label is not None
        self._named += pictures.name
        scores = {}
        for reader, read in self.readers.items():
            pairs = zip(pictures.fake, pictures.label, strict=True)
            each = [agreement(read(fake), wanted, self.classes) for fake, wanted in pairs]
            scores[reader] = torch.tensor(each, dtype=torch.float64)
            self._unchanged[reader] += [agreement(self._read[reader], label, self.classes) for label in pictures.label]
        return {name: scores[reader][:, k] for name, (reader, k) in self._parts.items()}

    def compute(self) -> dict[str, MetricValue]:
        values = super().compute()
        if "segnet" not in self.readers:
            self.notes.append("layout by the segmentation network left out: converted weights have none")
        return values

    def extra(self, name: str) -> dict[str, Any]:
        reader, k = self._parts[name]
        unchanged = [values[k] for values in self._unchanged[reader]]
        return {
            "each": dict(zip(self._named, self.each[name], strict=True)),
            "real": self._source[reader][k],
            "unchanged": sum(unchanged) / len(unchanged),
        }
