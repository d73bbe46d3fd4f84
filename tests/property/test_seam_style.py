"""Seam, brightness and style consistency: closed forms, plain oracles, properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.pictures import Pictures
from metrics.pixels.brightness import Brightness
from metrics.pixels.seam import Seam, border_jump
from metrics.pixels.style import MIN_PIXELS, Style, style_distances

QUICK = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)


def draw(seed: int, *shape: int, high: int = 256) -> torch.Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def pictures(fake: torch.Tensor, real: torch.Tensor, mask: torch.Tensor | None, **rest: object) -> Pictures:
    return Pictures(fake, real, mask, None, [f"p{i}" for i in range(len(fake))], **rest)  # type: ignore[arg-type]


@QUICK
@given(seeds)
def test_the_jump_is_the_mean_over_pairs_across_the_border(seed: int) -> None:
    x, mask = draw(seed, 1, 3, 5, 6), draw(seed + 1, 1, 1, 5, 6, high=2)
    steps = []
    for i in range(5):
        for j in range(6):
            for k, m in ((i + 1, j), (i, j + 1)):
                if k < 5 and m < 6 and mask[0, 0, i, j] != mask[0, 0, k, m]:
                    steps.append(float((x[0, :, i, j].double() - x[0, :, k, m].double()).abs().mean()) / 255)
    found = float(border_jump(x, mask))
    assert math.isnan(found) if not steps else found == pytest.approx(sum(steps) / len(steps))
    assert float(border_jump(x, 1 - mask)) == pytest.approx(found, nan_ok=True)


def test_seam_of_a_step_of_fifty_levels_on_a_flat_truth() -> None:
    real = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    mask[..., 4:] = 1
    fake = torch.where(mask > 0, 150, real).to(torch.uint8)
    metric = Seam()
    metric.update(pictures(fake, real, mask))
    value = metric.compute()["seam"]
    assert value.value == pytest.approx(math.log(51))
    assert value.extra["signed"] == pytest.approx(math.log(51))
    metric.reset()
    metric.update(pictures(real, fake, mask))  # the truth has the step, the result lost it: as far off, the other way
    assert metric.compute()["seam"].value == pytest.approx(math.log(51))
    assert metric.compute()["seam"].extra["signed"] == pytest.approx(-math.log(51))


def test_brightness_tells_dark_pictures_apart_and_keeps_the_sign() -> None:
    grey = torch.tensor([40, 200, 60])  # of the given pixels
    real = torch.zeros(3, 3, 8, 8, dtype=torch.uint8) + grey[:, None, None, None].to(torch.uint8)
    mask = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    mask[..., :2] = 1
    off = torch.tensor([102, -51, 0])  # two fifths too bright, a fifth too dark, right
    fake = torch.where(mask > 0, real + off[:, None, None, None], 0).to(torch.uint8)  # known pixels do not count
    metric = Brightness()
    metric.update(pictures(fake, real, mask))
    values = metric.compute()
    assert metric.per_picture()["brightness"] == pytest.approx([0.4, 0.2, 0])
    assert values["brightness"].value == pytest.approx(0.2)
    assert values["brightness"].extra["signed"] == pytest.approx(0.2 / 3)
    assert values["brightness_dark"].value == values["brightness_dark"].extra["signed"] == pytest.approx(0.2)
    assert values["brightness_dark"].count == 2
    metric.reset()
    metric.update(pictures(fake[1:2], real[1:2], mask[1:2]))
    assert "brightness_dark" not in metric.compute()
    assert metric.notes == ["brightness_dark: left out, no picture is dark"]
    metric.reset()
    metric.update(pictures(fake, real, mask, has_truth=False))  # a removed object
    assert not metric.compute()
    assert metric.notes == [
        f"{name}: left out, the real pictures do not show what the labels ask for" for name in values
    ]


def test_seam_is_zero_on_itself_and_left_out_without_a_border() -> None:
    real = draw(3, 2, 3, 8, 8)
    metric = Seam()
    metric.update(pictures(real, real, draw(4, 2, 1, 8, 8, high=2)))
    assert metric.compute()["seam"].value == 0
    metric.reset()
    metric.update(pictures(real, real, torch.ones(2, 1, 8, 8)))
    metric.update(pictures(real, real, None))
    assert metric.compute() == {}
    assert "no mask has a border" in metric.notes[0]


def plain_style(x: torch.Tensor, mask: torch.Tensor, inst: torch.Tensor) -> tuple[float, float]:
    colour, texture = [], []
    h, w = inst.shape
    for i in inst.unique():
        parts = [(inst == i) & (mask == m) for m in (0, 1)]
        if min(int(p.sum()) for p in parts) < MIN_PIXELS:
            continue
        (mv, sv), (mg, sg) = ((x[:, p].mean(1), x[:, p].std(1, correction=0)) for p in parts)
        colour.append(float(((mg - mv) ** 2 + (sg - sv) ** 2).sum().sqrt()) / 255)
        grey, steps = x.mean(0), [[], []]
        for a in range(h):
            for b in range(w):
                for c, d in ((a + 1, b), (a, b + 1)):
                    for which, p in enumerate(parts):
                        if c < h and d < w and p[a, b] and p[c, d]:
                            steps[which].append(abs(float(grey[a, b] - grey[c, d])))
        texture.append(abs(sum(steps[1]) / len(steps[1]) - sum(steps[0]) / len(steps[0])) / 255)
    return (sum(colour) / len(colour), sum(texture) / len(texture)) if colour else (math.nan, math.nan)


@settings(deadline=None, max_examples=8)
@given(seeds)
def test_style_is_its_definition_and_blind_to_ids(seed: int) -> None:
    x = draw(seed, 3, 20, 24)
    inst = torch.zeros(20, 24, dtype=torch.int64)
    inst[:, 14:], inst[:3, :5] = 26003, 7  # the last too small to be counted
    mask = torch.zeros(20, 24, dtype=torch.uint8)
    mask[8:, 2:20] = 1
    found = style_distances(x, mask, inst)
    assert found.tolist() == pytest.approx(plain_style(x.double(), mask, inst))
    renamed = torch.where(inst == 0, 50, inst)
    assert style_distances(x, mask, renamed).tolist() == pytest.approx(found.tolist())


def test_style_closed_form_and_the_truth_beside_it() -> None:
    real = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    mask[..., 8:] = 1
    fake = real.clone()
    fake[:, 0][mask[:, 0] > 0] = 130
    metric = Style()
    metric.update(pictures(fake, real, mask, inst=torch.zeros(1, 16, 16, dtype=torch.int64)))
    values = metric.compute()
    assert values["style_colour"].value == pytest.approx(30 / 255)
    assert values["style_texture"].value == 0
    assert values["style_colour"].extra["real"] == 0


def test_style_without_instances_is_left_out() -> None:
    real = draw(1, 1, 3, 16, 16)
    metric = Style()
    metric.update(pictures(real, real, torch.ones(1, 1, 16, 16)))
    assert metric.compute() == {}
    assert "no instance map" in metric.notes[0]
