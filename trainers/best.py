"""The best checkpoint of a run by its validation: `best.pt`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BEST_FILE = "best.pt"


@dataclass(frozen=True)
class Score:
    """Outcome of a validation.

    Args:
        values: of the metrics by name.
        first: the one that chooses.
        lower_is_better: its better direction.
        how: what was measured, in words.
    """

    values: Mapping[str, float]
    first: str
    lower_is_better: bool
    how: str

    def __str__(self) -> str:
        told = ", ".join(f"{name} {value:.4g}" for name, value in self.values.items())
        return f"{told} ({self.how})"

    def beats(self, best: Mapping[str, Any]) -> bool:
        """Return whether this is better than what `as_best` of an earlier validation tells, or of another kind."""
        if best.get("how") != self.how:
            return True
        value, held = self.values[self.first], best["value"]
        return bool(value < held if self.lower_is_better else value > held)

    def as_best(self, step: int) -> dict[str, Any]:
        """Return what checkpoints remember of it."""
        return {"step": step, "value": self.values[self.first], "how": self.how}
