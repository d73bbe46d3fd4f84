"""Sources of style codes: bank, mean, reference, the line between two draws, and what is missing."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from models.style_bank import StyleBank
from models.style_sources import (
    Interpolation,
    MeanSource,
    ReferenceSource,
    StrictSource,
    draws,
    steps,
)
from util.errors import UserError

NAMES = ["sky", "car", "person"]


def bank() -> StyleBank:
    g = torch.Generator().manual_seed(0)
    return StyleBank({0: torch.randn(5, 4, generator=g), 1: torch.randn(7, 4, generator=g)})


def test_mean_of_the_class_or_of_all() -> None:
    source, rng = MeanSource(bank()), random.Random(0)
    assert torch.equal(source.draw(1, rng), bank().codes[1].mean(0))
    everything = torch.cat([bank().codes[0], bank().codes[1]]).mean(0)
    assert torch.allclose(source.draw(2, rng), everything, atol=1e-6)


def test_reference_gives_its_class_alone() -> None:
    codes = torch.full((2, 4), 9.0) + torch.arange(2.0)[:, None]
    source = ReferenceSource(1, codes, bank())
    drawn = {float(source.draw(1, random.Random(seed))[0]) for seed in range(20)}  # type: ignore[index]
    assert drawn == {9.0, 10.0}
    assert torch.equal(source.draw(0, random.Random(3)), bank().draw(0, random.Random(3)))  # type: ignore[arg-type]
    assert source.draw(2, random.Random(3)) is None


def test_interpolation_ends_equal_the_two_draws_for_every_instance_in_turn() -> None:
    labels = [1, 0, 1, 1]
    ends = [[bank().draw(label, rng) for label in labels] for rng in (random.Random(4), random.Random(9))]
    for t, expected in ((0.0, ends[0]), (1.0, ends[1])):
        source = Interpolation((bank(), 4), (bank(), 9), t)
        for label, code in zip(labels, expected, strict=True):
            assert torch.equal(source.draw(label, random.Random(77)), code)  # type: ignore[arg-type]
    middle = Interpolation((bank(), 4), (bank(), 9), 0.25)
    assert torch.allclose(middle.draw(1, random.Random(0)), 0.75 * ends[0][0] + 0.25 * ends[1][0])  # type: ignore[arg-type,operator]
    assert Interpolation((bank(), 4), (bank(), 9), 0.5).draw(2, random.Random(0)) is None


def test_frames() -> None:
    assert [(f.title, f.draw) for f in draws(bank(), 3)] == [("draw 1", 0), ("draw 2", 1), ("draw 3", 2)]
    frames = steps((bank(), 0), (bank(), 1), 3)
    assert [f.title for f in frames] == ["t = 0.00", "t = 0.50", "t = 1.00"]
    last = frames[-1].source(lambda draw: 100 + draw)  # type: ignore[misc]
    assert torch.equal(last.draw(1, random.Random(0)), bank().draw(1, random.Random(101)))  # type: ignore[arg-type]


def test_a_missing_class_is_named_with_the_ways_out_and_draws_are_counted() -> None:
    drawn: Counter[str] = Counter()
    source = StrictSource(bank(), NAMES, drawn)
    source.draw(1, random.Random(0))
    source.draw(1, random.Random(0))
    assert drawn == {"car": 2}
    with pytest.raises(UserError, match=r"'person' \(class 2\) is fully erased.*--style_source mean.*--style_image"):
        source.draw(2, random.Random(0))
