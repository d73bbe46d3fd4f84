"""Differentiable augmentation: what it does to pictures and labels, its gradient, its draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from data import DATASETS
from models import MODELS
from models.losses.diffaug import POLICIES, DiffAugment, Draw
from options.train_options import TrainOptions
from util.batch import collate
from util.errors import UserError

DRAWS = [Draw(0.25, 1.5, 0.75, (1, -2), (2, 5)), Draw()]


def plain(x: torch.Tensor, draw: Draw, factor: int, hole: int) -> torch.Tensor:
    """Pixel by pixel."""
    x = x + draw.brightness
    x = (x - x.mean(0)) * draw.saturation + x.mean(0)
    x = (x - x.mean()) * draw.contrast + x.mean()
    out, size = torch.zeros_like(x), x.shape[-1]
    for i in range(size):
        for j in range(size):
            row, column = i - factor * draw.shift[0], j - factor * draw.shift[1]
            cut = draw.hole and all(
                factor * at <= place < factor * (at + hole) for at, place in zip(draw.hole, (i, j), strict=True)
            )
            if 0 <= row < size and 0 <= column < size and not cut:
                out[:, i, j] = x[:, row, column]
    return out


@pytest.mark.parametrize("factor", [1, 2])
def test_pictures_are_changed_as_drawn_at_every_scale(factor: int) -> None:
    x = torch.randn(2, 3, 8 * factor, 8 * factor, dtype=torch.float64, requires_grad=True)
    out = DiffAugment.change(x, DRAWS, 8)
    assert torch.allclose(out[0], plain(x[0], DRAWS[0], factor, 4), atol=1e-12)
    assert torch.equal(out[1], x[1]), "the second draw changes nothing"
    if factor == 1:
        assert torch.autograd.gradcheck(lambda y: DiffAugment.change(y, DRAWS, 8), (x,))


def test_labels_move_with_the_picture_and_keep_their_values() -> None:
    seg = torch.randint(2, (2, 5, 8, 8)).float()
    only_moved = Draw(shift=DRAWS[0].shift, hole=DRAWS[0].hole)
    assert torch.equal(DiffAugment.move(seg, DRAWS, 8)[0], plain(seg[0], only_moved, 1, 4))


@pytest.mark.parametrize("policy", POLICIES)
def test_draws_are_of_the_policy_and_in_range(policy: str) -> None:
    torch.manual_seed(0)
    draws = DiffAugment([policy]).draw(500, 64)
    torch.manual_seed(0)
    assert draws == DiffAugment([policy]).draw(500, 64)
    changed = {name for name in vars(Draw()) for draw in draws if getattr(draw, name) != getattr(Draw(), name)}
    names = {"color": {"brightness", "saturation", "contrast"}, "translation": {"shift"}, "cutout": {"hole"}}
    assert changed == names[policy]
    if policy == "translation":
        assert {draw.shift[0] for draw in draws} == {draw.shift[1] for draw in draws} == set(range(-8, 9))
    if policy == "cutout":
        assert {min(draw.hole[0] for draw in draws), max(draw.hole[1] for draw in draws)} == {-16, 48}  # type: ignore[index]
    if policy == "color":
        assert all(-0.5 <= d.brightness < 0.5 and 0 <= d.saturation < 2 and 0.5 <= d.contrast < 1.5 for d in draws)


def losses(*flags: str) -> dict[str, torch.Tensor]:
    opt = TrainOptions().parse([*MODELS.get("spmpgan").tiny(Path()), "--name", "x", "--lambda_feat", "1", *flags])
    dataset = DATASETS.get("streets").from_options(opt, split="test", augment=False, task="extension")
    torch.manual_seed(0)
    model: Any = MODELS.get("spmpgan").from_options(opt, is_train=True).train()
    shared = model.begin_step(collate([dataset[i] for i in range(2)]))
    return {**model.losses_D(shared), **model.losses_G(shared)}


def test_the_discriminators_alone_see_what_is_changed() -> None:
    base, changed = losses(), losses("--diffaug", "color,translation,cutout", "--r1_gamma", "1", "--r1_every", "1")
    assert {name for name in base if base[name] != changed[name]} == {"D/fake", "D/real", "G/gan", "G/feat"}
    assert changed["D/r1"] > 0


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(UserError, match=r"--diffaug: 'colour' is unknown. Did you mean 'color'\?"):
        losses("--diffaug", "colour")
