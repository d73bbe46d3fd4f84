"""All metrics over one stream of pictures, their result line and their table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metrics.analysis import draw_times, with_bins, with_intervals
from metrics.base import Metric, MetricValue, Pictures
from metrics.feature_cache import default_cache_dir
from metrics.feature_metrics import FROM_FEATURES, FeatureMetrics
from metrics.inception import load_inception
from metrics.lpips import load_lpips
from metrics.perceptual import PERCEPTUAL, Perceptual
from metrics.reconstruction import RECONSTRUCTION, WHOLE, Reconstruction
from metrics.seam import Seam
from metrics.segmentation import SEGMENTATION, SegmentationMetric
from metrics.segmenters import label_table, load_segmenter
from metrics.style import Style
from metrics.style_sets import ArtFID, ClipLoss
from metrics.stylisation import Stylisation
from metrics.vgg_style import VGGStyle
from util.errors import UserError
from util.flags import metric_names

VARIANTS = {"": FROM_FEATURES, "clean": ("fid_clean",), "region": ("fid_region",)}
METRICS = (
    "fid", "kid", "prdc", "fid_clean", "fid_region", *SEGMENTATION,
    *RECONSTRUCTION, *WHOLE, *PERCEPTUAL, "seam", "style",
)  # fmt: skip
NEED_TRUTH = {*RECONSTRUCTION, *WHOLE, "lpips"}
WIDEST = 8  # columns of a table
FAMILIES = (
    FeatureMetrics, SegmentationMetric, Reconstruction, Perceptual, Seam, Style, Stylisation, VGGStyle, ArtFID, ClipLoss
)  # fmt: skip
LOWER_IS_BETTER = {word for family in FAMILIES for word in family.lower_is_better}
NO_SEGMENTER = (
    "mIoU and accuracy left out: name a segmenter with --segmenter RUN|streets|espnet_camvid|espnet_cityscapes|"
    "hf:ID|export:FILE; "
    "`python scripts/train_segmenter.py --dataset_mode MODE --dataroot DIR --name RUN` trains one."
)


class Evaluator:
    """Feeds each batch to every metric once. `notes` tells the reader what is missing from the table and why.

    `names` and `share` (erased share, NaN without a mask) of the pictures seen are kept for bins and for reports.
    """

    def __init__(self, metrics: Sequence[Metric], *, notes: Sequence[str] = (), bootstrap: int = 0) -> None:
        self.metrics, self.bootstrap = list(metrics), bootstrap
        self._notes = list(notes)
        self.names: list[str] = []
        self.share: list[float] = []

    @property
    def notes(self) -> list[str]:
        """Notes of the set-up and, after `compute`, of the metrics."""
        return self._notes + [note for metric in self.metrics for note in metric.notes]

    def reset(self) -> None:
        """Forget all pictures."""
        self.names, self.share = [], []
        for metric in self.metrics:
            metric.reset()

    def update(self, pictures: Pictures) -> None:
        """Take a batch."""
        self.names += pictures.name
        none = torch.full((len(pictures),), torch.nan)
        self.share += (none if pictures.mask is None else (pictures.mask > 0).double().mean((1, 2, 3))).tolist()
        for metric in self.metrics:
            metric.update(pictures)

    def add_sets(self, *, fake: Mapping[str, Tensor], real: Mapping[str, Tensor]) -> None:
        """Take generated and real pictures (3,H,W) uint8 by name, no pairs; only `FeatureMetrics` read these."""
        for metric in self.metrics:
            if isinstance(metric, FeatureMetrics):
                metric.add_sets(fake=fake, real=real)

    def compute(self) -> dict[str, MetricValue]:
        """Return the values of all metrics by name, with bins by erased share and, if asked for, intervals."""
        found: dict[str, MetricValue] = {}
        share = torch.tensor(self.share, dtype=torch.float64)
        for metric in self.metrics:
            values = metric.compute()
            if values and bool((share >= 0).any()):
                values = with_bins(metric, values, share=share)
            if values and self.bootstrap:
                values = with_intervals(metric, values, self._resampled(metric))
            found |= values
        return found

    def _resampled(self, metric: Metric) -> dict[str, list[float]]:
        """Draw pictures with their truth; of sets that are no pairs, from each apart."""
        if isinstance(metric, FeatureMetrics) and metric.apart:
            sizes = dict(zip(("generated", "real"), metric.apart, strict=True))
            drawn = (draw_times(self.bootstrap, torch.arange(n), f"bootstrap {which}") for which, n in sizes.items())
            return metric.resampled_sets(*drawn)
        order = torch.tensor(sorted(range(len(self.names)), key=self.names.__getitem__), dtype=torch.int64)
        return metric.resampled(draw_times(self.bootstrap, order, "bootstrap")) if len(order) > 1 else {}

    def per_picture(self) -> dict[str, list[float]]:
        """Return the values of single pictures, in the order of `names`."""
        return {name: values for metric in self.metrics for name, values in metric.per_picture().items()}

    @property
    def smallest_side(self) -> int:
        """Pixels a side that pictures need for every metric here."""
        return max((metric.smallest_side for metric in self.metrics), default=1)

    @property
    def label_nc(self) -> int | None:
        """Number of label ids that may occur; None where no segmenter reads labels."""
        return next((len(m.table) for m in self.metrics if isinstance(m, SegmentationMetric)), None)

    def confusion(self) -> tuple[tuple[str, ...], Tensor] | None:
        """Return class names and the confusion matrix (C,C) of the generated pictures, where a segmenter ran."""
        for metric in self.metrics:
            if isinstance(metric, SegmentationMetric) and metric.generated.counts.any():
                return metric.segmenter.class_names, metric.generated.counts
        return None


def parse_metrics(text: str) -> list[str]:
    """Return the names in --metrics, see `metric_names`."""
    return metric_names(text, METRICS)


@dataclass(frozen=True)
class Files:
    """Where networks come from: the flags of the same names, and the folder of kept features (None: keep none)."""

    inception_weights: str | None = None
    segmenter: str | None = None
    segmenter_weights: str | None = None
    segmenter_classes: str | None = None
    trust: str | None = None
    checkpoints_dir: str = "checkpoints"
    lpips_net: str = "alex"
    lpips_weights: str | None = None
    lpips_backbone: str | None = None
    cache_dir: Path | None = None

    @classmethod
    def from_options(cls, opt: Any) -> Files:
        """Read the flags of options/metric_flags.py."""
        names = [name for name in cls.__dataclass_fields__ if name != "cache_dir"]
        folder = default_cache_dir() if opt.cache_dir is None else Path(opt.cache_dir)
        return cls(
            **{name: getattr(opt, name) for name in names}, cache_dir=None if opt.cache_dir == "none" else folder
        )


def build_evaluator(
    names: Sequence[str],
    *,
    device: torch.device,
    files: Files,
    label_nc: int | None,
    ignore_label: int | None,
    class_names: list[str] | None = None,
    per_class: bool = False,
    bootstrap: int = 0,
    required: bool = True,
) -> Evaluator:
    """Load what `names` (see `parse_metrics`) need and return the evaluator.

    Args:
        label_nc: number of label ids; None: the segmenter's own, or one more than the highest id of its class map.
        required: a network that cannot be had is an error; otherwise its metrics are left out with a note.

    Raises:
        UserError: unknown name, missing weights, a segmenter that is missing or has other classes, nothing to compute.
    """
    names = parse_metrics(",".join(names))
    metrics: list[Metric] = []
    notes: list[str] = []

    def attempt(what: Sequence[str], make: Callable[[], list[Metric]]) -> None:
        try:
            metrics.extend(make())
        except UserError as error:
            if required:
                raise
            notes.append(f"{', '.join(what)}: left out: {error}")

    def from_features() -> list[Metric]:
        net, source = load_inception(files.inception_weights)
        made: list[Metric] = []
        for variant, members in VARIANTS.items():
            chosen = tuple(name.split("_")[0] for name in members if name in names)
            if chosen:
                settings = {"names": chosen, "variant": variant, "cache_dir": files.cache_dir}
                made.append(FeatureMetrics(net, source, device=device, **settings))  # type: ignore[arg-type]
        return made

    def from_segments() -> list[Metric]:
        net = load_segmenter(
            str(files.segmenter), weights=files.segmenter_weights, checkpoints_dir=files.checkpoints_dir,
            device=device, classes=files.segmenter_classes, trust=files.trust,
        )  # fmt: skip
        own = max([net.num_classes - 1, *(net.label_map or {})]) + 1  # a class map tells the highest label id
        count = own if label_nc is None else label_nc
        table = label_table(net, label_nc=count, ignore_label=ignore_label, class_names=class_names)
        wanted = tuple(name for name in SEGMENTATION if name in names)
        return [SegmentationMetric(net, table=table, ignore_label=ignore_label, names=wanted, per_class=per_class)]

    def from_lpips() -> list[Metric]:
        net, hashes = load_lpips(files.lpips_net, heads=files.lpips_weights, backbone=files.lpips_backbone)
        kinds = tuple(name for name in PERCEPTUAL if name in names)
        return [Perceptual(net, hashes, device=device, kinds=kinds)]

    if wanted := [name for members in VARIANTS.values() for name in members if name in names]:
        attempt(wanted, from_features)
    if wanted := [name for name in SEGMENTATION if name in names]:
        if files.segmenter:
            attempt(wanted, from_segments)
        else:
            notes.append(NO_SEGMENTER)
    if chosen := tuple(name for name in (*RECONSTRUCTION, *WHOLE) if name in names):
        metrics.append(Reconstruction(chosen))
    if wanted := [name for name in PERCEPTUAL if name in names]:
        attempt(wanted, from_lpips)
    metrics += [kind() for name, kind in (("seam", Seam), ("style", Style)) if name in names]
    if names and not metrics:
        raise UserError("; ".join([f"--metrics {','.join(names)}: none of these can be had", *notes]))
    return Evaluator(metrics, notes=notes, bootstrap=bootstrap)


def arrow(name: str) -> str:
    """Return the better direction of a metric."""
    return "↓" if name.split("_")[0] in LOWER_IS_BETTER else "↑"


def result_line(
    values: Mapping[str, MetricValue], *, step: int | None, task: str, num_images: int, protocol: Any
) -> dict[str, Any]:
    """Return one line of `metrics.jsonl`: plain numbers under 'metrics', everything else under 'details'."""
    details = {
        name: {"unit": v.unit, "protocol": v.protocol, "count": v.count, **v.extra} for name, v in values.items()
    }
    return {
        "metrics": {name: float(v.value) for name, v in values.items()},
        "details": details,
        "step": step,
        "task": task,
        "num_images": num_images,
        "protocol": protocol,
    }


def format_table(rows: Sequence[tuple[str, Mapping[str, float | MetricValue]]]) -> str:
    """Return an aligned text table: one row per (label, values), one column per metric, `-` where a row lacks it.

    An arrow in the head tells the better direction; the real pictures' score follows in brackets where it is known.
    More than `WIDEST` metrics stand below each other instead, a column per row.
    """
    columns = list(dict.fromkeys(name for _, values in rows for name in values))
    head = ["", *(f"{name} {arrow(name)}" for name in columns)]
    body = [[label, *(_cell(values.get(name)) for name in columns)] for label, values in rows]
    if len(columns) > WIDEST:
        head, *body = [list(line) for line in zip(head, *body, strict=True)]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in [head, *body]]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def _cell(value: float | MetricValue | None) -> str:
    if value is None:
        return "-"
    number = value.value if isinstance(value, MetricValue) else value
    text = f"{number:.4f}" if math.isfinite(number) and abs(number) < 1 else f"{number:.2f}"
    if not isinstance(value, MetricValue):
        return text
    if "ci95" in value.extra:
        low, high = value.extra["ci95"]
        text += f" [{low:.4g}, {high:.4g}]"
    elif "standard_error" in value.extra:
        text += f" ± {value.extra['standard_error']:.4f}"
    real = value.extra.get("real")
    return text if real is None else f"{text} (real {real:.{4 if abs(real) < 1 else 2}f})"
