"""The metrics of stylised pictures: names, and an evaluator with what they need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metrics.base import Metric
from metrics.evaluator import Evaluator
from metrics.feature_cache import default_cache_dir
from metrics.feature_metrics import FeatureMetrics
from metrics.inception import find_inception, load_inception
from metrics.lpips import load_lpips
from metrics.perceptual import Perceptual
from metrics.reconstruction import Reconstruction
from metrics.style_sets import OF_SETS, ArtFID, ClipLoss
from metrics.stylisation import WITHOUT_WEIGHTS, Stylisation
from metrics.vgg_style import FROM_VGG, VGGStyle, load_vgg19
from util.errors import UserError
from util.flags import metric_names

STYLISE_METRICS = ("psnr", "ssim", *WITHOUT_WEIGHTS, "lpips", "fid", "kid", *FROM_VGG, *OF_SETS)


def parse_stylise_metrics(text: str) -> list[str]:
    """Return the names in --metrics, see `metric_names`."""
    return metric_names(text, STYLISE_METRICS)


def require_weights(opt: Any) -> None:
    """Raise `UserError` if weights that `--metrics` names are missing; with `all`, nothing is required."""
    names = set(parse_stylise_metrics(opt.metrics))
    if opt.metrics == "all":
        return
    if names & {"fid", "kid", "art_fid"}:
        find_inception(opt.inception_weights)
    if names & {"lpips", "art_fid"}:
        load_lpips(opt.lpips_net, heads=opt.lpips_weights, backbone=opt.lpips_backbone)
    if names & set(FROM_VGG):
        load_vgg19(opt.vgg_weights)


def build_stylise_evaluator(
    opt: Any,
    *,
    style: Tensor,
    styles: Sequence[Tensor],
    embed: Callable[[list[np.ndarray]], Tensor],
    device: torch.device,
) -> Evaluator:
    """Load what `--metrics` needs; with `all`, what cannot be had is left out with a note.

    Args:
        opt: flags of options/metric_flags.py.
        style: the style picture (3, H, W) uint8.
        styles: what `art_fid` compares with.
        embed: CLIP's features, see `ClipLoss`.
    """
    names, required = parse_stylise_metrics(opt.metrics), opt.metrics != "all"
    metrics: list[Metric] = []
    notes: list[str] = []

    def chosen(known: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in known if name in names)

    def attempt(wanted: tuple[str, ...], make: Callable[[], Metric]) -> None:
        if not wanted:
            return
        try:
            metrics.append(make())
        except UserError as error:
            if required:
                raise
            notes.append(f"{', '.join(wanted)}: left out: {error}")

    def inception_sets() -> Metric:
        cache = default_cache_dir() if opt.cache_dir is None else Path(opt.cache_dir)
        settings: dict[str, Any] = {"cache_dir": None if opt.cache_dir == "none" else cache}
        return FeatureMetrics(
            *load_inception(opt.inception_weights), device=device, names=chosen(("fid", "kid")), **settings
        )

    def lpips() -> Any:
        return load_lpips(opt.lpips_net, heads=opt.lpips_weights, backbone=opt.lpips_backbone)

    def art_fid() -> Metric:
        (net, files), (inception, source) = lpips(), load_inception(opt.inception_weights)
        return ArtFID(net, files, inception, source, styles=styles, device=device)

    def vgg() -> Metric:
        features, sha256 = load_vgg19(opt.vgg_weights)
        return VGGStyle(chosen(FROM_VGG), features=features, sha256=sha256, style=style, device=device)

    if whole := tuple(f"{name}_whole" for name in chosen(("psnr", "ssim"))):
        metrics.append(Reconstruction(whole))
    if own := chosen(WITHOUT_WEIGHTS):
        metrics.append(Stylisation(own, style=style))
    attempt(chosen(("lpips",)), lambda: Perceptual(*lpips(), device=device, kinds=("lpips",)))
    attempt(chosen(("fid", "kid")), inception_sets)
    attempt(chosen(FROM_VGG), vgg)
    attempt(chosen(("art_fid",)), art_fid)
    if chosen(("clip_loss",)):
        metrics.append(ClipLoss(embed, str(opt.clip_model)))
    return Evaluator(metrics, notes=notes)
