"""In which ways one run is tested, and the folder that the results of each are left in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WAYS: Mapping[str, Any] = {
    "style_source": "bank",
    "test_cuts": "centre",
    "object_classes": None,
    "removal": "thing",
}  # with their defaults
LONGEST = 80  # characters of a folder's name for one of them


def folder_of_test(results: Path, split: str, task: str, ways: Mapping[str, Any], *, best: bool = False) -> Path:
    """Return the folder of a test in a run's `results`: `<split>_<task>`, and what is not as usual of its `WAYS`.

    Args:
        ways: by name; those that are missing or None are as usual.
        best: of the weights that a validation chose.
    """
    told = [_in_a_name(ways[name]) for name, usual in WAYS.items() if ways.get(name) not in (None, usual)]
    return results / "_".join([split, task, *told, *(["best"] if best else [])])


def _in_a_name(way: str) -> str:
    text = re.sub(r"[^\w.]+", "-", way).strip("-")
    return text if len(text) <= LONGEST else hashlib.sha256(way.encode()).hexdigest()[:12]
