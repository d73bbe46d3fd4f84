"""`benchmark.py semia`: SemIA's patch loss and whole iteration against a plain implementation of the same loss.

The plain one works as the release does: a list of all source patches, sliced one by one; per drawn patch as many
copies of it, a full sort, a Python list of indices; all five levels of VGG-19 for both pictures, in every update; the
segmentation network's forward pass even where its loss has no gradient. Both see the same draws and give equal values.
"""

from __future__ import annotations

import argparse
from functools import partial
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
from scripts.benchmarks.measure import OURS, PLAIN, Figures, Form, in_turn, machine, save, told, with_ratios
from trainers.step import frozen
from util.errors import UserError
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
    if min(opt.height, opt.width) < 32 or opt.height % 8 or opt.width % 8:
        raise UserError(f"--height {opt.height} --width {opt.width}: multiples of 8, at least 32")
    found, rows = machine(opt), {}
    print(f"{opt.height}x{opt.width}, {told(found)}; CPU (wall) seconds")
    for semantic in (False, True):
        name = f"patch loss, {'semantic' if semantic else 'released'}"
        rows[name] = compare_losses(opt, semantic=semantic)
        show(name, rows[name])
    if not opt.loss_only:
        for mode, row in compare_iterations(opt).items():
            rows[f"iteration, {mode}"] = row
            show(f"iteration, {mode}", row)
    save(opt, {**found, "size": [opt.height, opt.width], "rows": rows})


def forms(opt: argparse.Namespace) -> tuple[str, ...]:
    """Return what is timed."""
    return (PLAIN, OURS) if opt.against == PLAIN else (OURS,)


def show(name: str, row: Figures) -> None:
    """Print a row."""
    told = "".join(
        f"  {form} {row[form]['cpu_s']:8.3f} ({row[form]['wall_s']:.3f})" for form in (PLAIN, OURS) if form in row
    )
    ratios = f"  {row['cpu_ratio']:5.1f}x ({row['ratio']:.1f}x)" if PLAIN in row else ""
    values = f"  values {', '.join(f'{value:.7f}' for value in row['values'])}" if "values" in row else ""
    print(f"{name:28}{told}{ratios}{values}")


def picture(opt: argparse.Namespace, name: str) -> Tensor:
    return torch.rand(1, 3, opt.height, opt.width, generator=torch_generator("benchmark", name)) * 2 - 1


def halves(opt: argparse.Namespace) -> Tensor:
    """Return classes (H, W): four quarters."""
    rows, columns = torch.arange(opt.height) * 2 // opt.height, torch.arange(opt.width) * 2 // opt.width
    return rows[:, None] * 2 + columns


def losses(opt: argparse.Namespace, *, semantic: bool) -> dict[str, PatchLoss]:
    """Return plain and our loss with the same features, of random weights where no file is given (equal cost)."""
    features = VGGOfCost() if opt.vgg_weights is None else PatchFeatures(weights=opt.vgg_weights)
    kinds = {PLAIN: PlainPatchLoss, OURS: PatchLoss}
    return {name: kinds[name](features=features, semantic=semantic) for name in forms(opt)}


class VGGOfCost(PatchFeatures):
    """The features' layers with random weights."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        torch.manual_seed(0)
        self.layers = build_features("vgg19")[:7]
        self.requires_grad_(False)


def compare_losses(opt: argparse.Namespace, *, semantic: bool) -> Figures:
    """Time forward and backward of one loss; ours as in training, where ten updates share the source's patches."""
    source, classes = picture(opt, "source"), halves(opt)
    torch.manual_seed(0)
    kinds = losses(opt, semantic=semantic)
    corners = kinds[OURS].draw((opt.height, opt.width))

    def work(loss: PatchLoss, fakes: list[Tensor]) -> float:
        banks = loss.banks(source, classes)
        for fake in fakes:
            value = loss(fake, banks, classes, corners)
            value.backward()
        return value.item()

    updates = {name: 1 if name == PLAIN else 10 for name in kinds}
    fakes = {name: [picture(opt, "fake").requires_grad_() for _ in range(count)] for name, count in updates.items()}
    figures, values = in_turn({name: Form(partial(work, loss, fakes[name])) for name, loss in kinds.items()}, opt)
    shares = {name: {key: x / updates[name] for key, x in each.items()} for name, each in figures.items()}
    return {**with_ratios(shares), "values": list(values.values())}


def compare_iterations(opt: argparse.Namespace) -> dict[str, Figures]:
    """Time whole iterations of both modes, and their mean over the cycle of one reconstruction and four samplings."""
    kinds, models = {PLAIN: PlainSemIA, OURS: SemIAModel}, {}
    for name in forms(opt):
        torch.manual_seed(0)
        models[name] = build(opt, kinds[name], losses(opt, semantic=opt.patch_loss == "semantic")[name])
    rows: dict[str, Figures] = {}
    for step, mode in enumerate(("reconstruction", "sampling")):
        work = {name: Form(partial(iterate, opt, model, step)) for name, model in models.items()}
        rows[mode] = with_ratios(in_turn(work, opt)[0])
    pairs = {name: [row[name] for row in rows.values()] for name in models}
    mean = {name: {key: (a[key] + 4 * b[key]) / 5 for key in a} for name, (a, b) in pairs.items()}
    return {**rows, "mean of the cycle": with_ratios(mean)}


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
