"""Where the code of a fully erased instance comes from: a bank, a class's mean, another picture, or between two draws.

A source has `draw(label, rng)` as `StyleBank` has; codes are raw, (D,) float32. They are set as a model's `bank`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.style_bank import StyleBank
from util.errors import UserError


class StyleSource(Protocol):
    """Source of codes by class; None for a class without codes."""

    def draw(self, label: int, rng: random.Random) -> Tensor | None:
        """Return a code (D,) of a class, drawn with `rng`; None if there is none."""
        ...


class MeanSource:
    """The mean code of a class in a bank; of a class without codes, the mean of all."""

    def __init__(self, bank: StyleBank) -> None:
        self.bank = bank

    def draw(self, label: int, rng: random.Random) -> Tensor:
        rows = self.bank.codes.get(label)
        return self.bank.mean if rows is None else rows.mean(0)


class NoiseSource:
    """Codes of independent N(0, 1) values, the baseline of SIEDOB's ablation."""

    def __init__(self, style_dim: int) -> None:
        self.style_dim = style_dim

    def draw(self, label: int, rng: random.Random) -> Tensor:
        return torch.tensor([rng.gauss(0, 1) for _ in range(self.style_dim)])


class ReferenceSource:
    """Codes (n, D) of one class from another picture; all other classes from `rest`."""

    def __init__(self, label: int, codes: Tensor, rest: StyleSource) -> None:
        self.label, self.codes, self.rest = label, codes, rest

    def draw(self, label: int, rng: random.Random) -> Tensor | None:
        """As the bank; with several instances in the reference, one is chosen."""
        if label != self.label:
            return self.rest.draw(label, rng)
        return self.codes[rng.choice(range(len(self.codes)))]


class Interpolation:
    """A point on the line between two draws for one picture: t = 0 gives the first, t = 1 the second, exactly.

    Args:
        first, second: sources, each with the seed of its draws; both draw for instances in the same order.
        t: in [0, 1].
    """

    def __init__(self, first: tuple[StyleSource, int], second: tuple[StyleSource, int], t: float) -> None:
        self.ends = [(source, random.Random(seed)) for source, seed in (first, second)]
        self.t = t

    def draw(self, label: int, rng: random.Random) -> Tensor | None:
        a, b = (source.draw(label, own_rng) for source, own_rng in self.ends)
        return None if a is None or b is None else torch.lerp(a, b, self.t)


class StrictSource:
    """Wraps a source: raises `UserError` for a class without codes, and counts the draws by class.

    Args:
        source: where codes come from.
        class_names: for messages.
        drawn: instances by class name, counted on.
    """

    def __init__(self, source: StyleSource, class_names: list[str], drawn: Counter[str]) -> None:
        self.source, self.class_names, self.drawn = source, class_names, drawn

    def draw(self, label: int, rng: random.Random) -> Tensor:
        """Return a code; raises `UserError` naming the class if there is none."""
        name = self.class_names[label] if 0 <= label < len(self.class_names) else f"class {label}"
        code = self.source.draw(label, rng)
        if code is None:
            raise UserError(
                f"an instance of '{name}' (class {label}) is fully erased, and the style bank has no code of that "
                "class. Use --style_source mean; a picture that shows one, by --style_image, --style_label, "
                "--style_inst and --style_class; or a larger bank (scripts/build_style_bank.py)"
            )
        self.drawn[name] += 1
        return code


@dataclass(frozen=True)
class Frame:
    """One result for a picture.

    Args:
        title: above it in a strip.
        draw: number of the draw whose seed it takes.
        source: given the seeds of one window by the number of the draw, returns where its codes come from; None for a
            model without styles.
    """

    title: str
    draw: int
    source: Callable[[Callable[[int], int]], StyleSource] | None


def draws(source: StyleSource, count: int) -> list[Frame]:
    """Return `count` independent draws."""
    return [Frame(f"draw {k + 1}", k, lambda seed: source) for k in range(count)]


def steps(first: tuple[StyleSource, int], last: tuple[StyleSource, int], count: int) -> list[Frame]:
    """Return `count` steps on the line from one draw to another, each a source with the number of the draw."""

    def between(t: float) -> Callable[[Callable[[int], int]], StyleSource]:
        return lambda seed: Interpolation((first[0], seed(first[1])), (last[0], seed(last[1])), t)

    places = [k / (count - 1) for k in range(count)]
    return [Frame(f"t = {t:.2f}", first[1], between(t)) for t in places]
