"""`benchmark.py semia`: SemIA's patch loss and whole iteration against a plain implementation of the same loss.

The plain one works as the release does: a list of all source patches, sliced one by one; per drawn patch as many
copies of it, a full sort, a Python list of indices; all five levels of VGG-19 for both pictures, in every update; the
segmentation network's forward pass even where its loss has no gradient. Both see the same draws and give equal values.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.base_model import Phase
from models.losses.patch import NEAREST, SCALES, Corners, PatchFeatures, PatchLoss
from models.losses.perceptual import TAPS, build_features
from models.networks.semia.discriminator import PyramidDiscriminator
from models.networks.semia.generator import Rendering, SemIAGenerator, init_semia
from models.networks.semia.segmenter import LayoutSegmenter
from models.semia_model import SemIAModel, SemIAStep
from trainers.step import frozen
from util.files import write_text
from util.seeds import torch_generator


def plain_patch_loss(
    source: list[Tensor],
    target: list[Tensor],
    corners: Corners,
    classes: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Return the patch loss of feature maps (1, C, H, W), patch by patch.

    Args:
        corners: of the drawn patches, by scale.
        classes: (H, W) of source and target; None: patches are compared with all.
    """
    total, count = target[0].new_zeros(()), 0
    for known, own, picks, scale in zip(source, target, corners, SCALES, strict=True):
        p, (height, width) = scale.size, known.shape[2:]
        places = [(i, j) for i in range(height - p) for j in range(width - p)]
        every = torch.cat([known[:, :, i : i + p, j : j + p] for i, j in places])
        for row, column in picks:
            allowed = list(range(len(places)))
            if classes is not None:
                at = [c[:: scale.stride, :: scale.stride] for c in classes]
                wanted, middle = at[1][row + p // 2, column + p // 2], p // 2
                same = [k for k, (i, j) in enumerate(places) if at[0][i + middle, j + middle] == wanted]
                allowed = same if len(same) >= NEAREST else allowed
            patch = own[:, :, row : row + p, column : column + p]
            candidates = every if len(allowed) == len(places) else every[allowed]
            copies = torch.cat([patch for _ in range(len(candidates))])
            distance = (copies - candidates).abs().mean((1, 2, 3))
            order = torch.argsort(distance).tolist()
            total, count = total + distance[order[:NEAREST]].mean(), count + 1
    return total / count


class PlainPatchLoss(PatchLoss):
    """`PatchLoss` by `plain_patch_loss`, and with all five levels of VGG-19."""

    def __init__(self, *, features: PatchFeatures, semantic: bool) -> None:
        super().__init__(features=features, semantic=semantic)
        self.rest = build_features("vgg19")[7 : TAPS["vgg19"][-1] + 1].requires_grad_(False)

    def banks(self, source: Tensor, classes: Tensor) -> Any:
        return source, classes

    def forward(self, fake: Tensor, banks: Any, classes: Tensor, corners: Any = None) -> Tensor:
        drawn = self.draw((fake.shape[2], fake.shape[3])) if corners is None else corners
        source = self.features(banks[0])
        target = self.features(fake)
        for maps in (source, target):
            self.rest(maps[-1])
        return plain_patch_loss(source, target, drawn, (banks[1], classes) if self.semantic else None)


class PlainSemIA(SemIAModel):
    """As the release: source and target anew in every update, every result's layout read, maps in their usual order."""

    def laid_out(self, pair: Any) -> Any:
        return pair

    def losses_G(self, shared: SemIAStep) -> dict[str, Tensor]:
        shared.real.clear()
        return super().losses_G(shared)

    def render(self, shared: SemIAStep) -> Rendering:
        out = super().render(shared)
        if out.image.requires_grad and not shared.reconstructs and self.alignment == "released":
            with torch.no_grad():
                self.misalignment(out.image, shared.target.seg)
        return out


# --- measuring --------------------------------------------------------------------------------------------------------
def main(opt: argparse.Namespace) -> None:
    """Print the table and write the JSON."""
    figures: dict[str, Any] = {"size": [opt.height, opt.width], "threads": torch.get_num_threads()}
    print(f"{opt.height}x{opt.width}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads; CPU (wall) seconds")
    for semantic in (False, True):
        name = "semantic" if semantic else "released"
        figures[name] = compare_losses(opt, semantic=semantic)
        show(f"patch loss, {name}", figures[name])
    if not opt.loss_only:
        figures["iteration"] = compare_iterations(opt)
        for mode, pair in figures["iteration"].items():
            show(f"iteration, {mode}", pair)
    if opt.json:
        write_text(Path(opt.json), json.dumps(figures, indent=1))


def show(name: str, pair: dict[str, Any]) -> None:
    plain, fast = pair["plain"], pair["ours"]
    ratio = f"{plain['cpu_s'] / fast['cpu_s']:5.1f}x ({plain['wall_s'] / fast['wall_s']:.1f}x)"
    values = f"  values {pair['values'][0]:.7f}, {pair['values'][1]:.7f}" if "values" in pair else ""
    cells = (f"{side['cpu_s']:8.3f} ({side['wall_s']:.3f})" for side in (plain, fast))
    print(f"{name:28} plain {next(cells)}  ours {next(cells)}  {ratio}{values}")


def timed(work: Callable[[], Any], repeats: int) -> tuple[dict[str, float], Any]:
    """Return the lowest CPU and wall seconds, and the result."""
    timings, result = [], None
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        timings.append((time.process_time() - cpu, time.perf_counter() - wall))
    return {"cpu_s": min(c for c, _ in timings), "wall_s": min(w for _, w in timings)}, result


def picture(opt: argparse.Namespace, name: str) -> Tensor:
    return torch.rand(1, 3, opt.height, opt.width, generator=torch_generator("benchmark", name)) * 2 - 1


def halves(opt: argparse.Namespace) -> Tensor:
    """Return classes (H, W): four quarters."""
    rows, columns = torch.arange(opt.height) * 2 // opt.height, torch.arange(opt.width) * 2 // opt.width
    return rows[:, None] * 2 + columns


def losses(opt: argparse.Namespace, *, semantic: bool) -> tuple[PatchLoss, PatchLoss]:
    """Return plain and fast loss with the same features, of random weights where no file is given (equal cost)."""
    features = VGGOfCost() if opt.vgg_weights is None else PatchFeatures(weights=opt.vgg_weights)
    return PlainPatchLoss(features=features, semantic=semantic), PatchLoss(features=features, semantic=semantic)


class VGGOfCost(PatchFeatures):
    """The features' layers with random weights."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        torch.manual_seed(0)
        self.layers = build_features("vgg19")[:7]
        self.requires_grad_(False)


def compare_losses(opt: argparse.Namespace, *, semantic: bool) -> dict[str, Any]:
    """Time forward and backward of one loss; ours as in training, where ten updates share the source's patches."""
    source, classes = picture(opt, "source"), halves(opt)
    figures: dict[str, Any] = {"values": []}
    corners = None
    for name, loss in zip(("plain", "ours"), losses(opt, semantic=semantic), strict=True):
        torch.manual_seed(0)
        corners = corners or loss.draw((opt.height, opt.width))
        fakes = [picture(opt, "fake").requires_grad_() for _ in range(1 if name == "plain" else 10)]

        def work(loss: PatchLoss = loss, fakes: list[Tensor] = fakes, corners: Any = corners) -> float:
            banks = loss.banks(source, classes)
            for fake in fakes:
                value = loss(fake, banks, classes, corners)
                value.backward()
            return value.item()

        times, value = timed(work, opt.repeats)
        figures[name] = {key: seconds / len(fakes) for key, seconds in times.items()}
        figures["values"].append(value)
    return figures


def compare_iterations(opt: argparse.Namespace) -> dict[str, Any]:
    """Time whole iterations of both modes, and their mean over the cycle of one reconstruction and four samplings."""
    figures: dict[str, Any] = {"reconstruction": {}, "sampling": {}, "mean of the cycle": {}}
    for name, kind in (("plain", PlainSemIA), ("ours", SemIAModel)):
        torch.manual_seed(0)
        model = build(opt, kind, losses(opt, semantic=opt.patch_loss == "semantic")[name == "ours"])
        for step, mode in enumerate(("reconstruction", "sampling")):
            figures[mode][name] = timed(partial(iterate, opt, model, step), opt.repeats)[0]
        pair = [figures[mode][name] for mode in ("reconstruction", "sampling")]
        figures["mean of the cycle"][name] = {key: (pair[0][key] + 4 * pair[1][key]) / 5 for key in pair[0]}
    return figures


def build(opt: argparse.Namespace, kind: type[SemIAModel], patch: PatchLoss) -> SemIAModel:
    nets = {"netG": SemIAGenerator(), "netD": PyramidDiscriminator(), "netS": LayoutSegmenter()}
    for net in nets.values():
        init_semia(net)
    model = kind(**nets, patch=patch, alignment=opt.semantic_alignment)  # type: ignore[arg-type]
    model.train()
    return model


def batch(opt: argparse.Namespace) -> Any:
    seg, label = picture(opt, "seg"), halves(opt)[None]
    own = {"image": picture(opt, "source"), "seg": seg, "label": label}
    return {**own, **{f"target_{name}": value.flip(-1) for name, value in own.items()}}


def iterate(opt: argparse.Namespace, model: SemIAModel, step: int) -> None:
    """One step, as the trainer does it."""
    torch.manual_seed(step)
    model.step = step
    shared = model.begin_step(batch(opt))
    for phase in model.phases():
        if step % phase.every == 0:
            for _ in range(phase.repeat):
                update(model, phase, shared)


def update(model: SemIAModel, phase: Phase, shared: SemIAStep) -> None:
    with frozen(model, keep=phase.networks):
        total = sum(model.loss_weights.get(name, 1.0) * loss for name, loss in phase.losses(shared).items())
        phase.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[union-attr]
    phase.optimizer.step()
