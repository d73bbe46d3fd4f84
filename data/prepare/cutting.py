"""What scripts/prepare_objects.py cut out of scenes, and the record of a finished split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.prepare.writing import write_json
from util.text_files import parse_json


@dataclass
class Outcome:
    """What was cut from some scenes: names of the crops by slot, dropped instances by (slot or None, why), sources."""

    crops: dict[int, list[str]] = field(default_factory=dict)
    dropped: Counter[tuple[int | None, str]] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)

    def add(self, other: Outcome) -> None:
        """Add what was cut from other scenes."""
        for slot, names in other.crops.items():
            self.crops.setdefault(slot, []).extend(names)
        self.dropped.update(other.dropped)
        self.sources.update(other.sources)


def crop_files(folder: Path, crop: str) -> tuple[Path, Path]:
    """Return the picture and the mask of a crop in the folder of its class and split."""
    return folder / "images" / f"{crop}.jpg", folder / "inst_mask" / f"{crop}.png"


def write_finished(record: Path, outcome: Outcome, scenes: Sequence[str]) -> None:
    """Record that all `scenes` of a split are cut."""
    dropped = [[slot, why, count] for (slot, why), count in outcome.dropped.items()]
    write_json(record, {"scenes": _digest(scenes), "crops": outcome.crops, "dropped": dropped})


def read_finished(record: Path, scenes: Sequence[str], folders: Sequence[Path]) -> Outcome | None:
    """Return what is recorded; None if nothing is, of other scenes, or if one of its crops is gone.

    Args:
        folders: of the crops, by slot.
    """
    try:
        told = parse_json(record.read_bytes())
        crops = {int(slot): list(names) for slot, names in told["crops"].items()}
        dropped = Counter({(slot, why): count for slot, why, count in told["dropped"]})
        files = [file for slot, names in crops.items() for name in names for file in crop_files(folders[slot], name)]
        complete = told["scenes"] == _digest(scenes) and all(file.is_file() for file in files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None
    return Outcome(crops, dropped) if complete else None


def _digest(scenes: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(scenes).encode()).hexdigest()
