"""In which ways one run is tested, and the folder that the results of each are left in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from util.errors import UserError

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

    Raises:
        UserError: the folder would lie elsewhere; what another test has left in it is removed.
    """
    told = [_in_a_name(str(ways[name])) for name, usual in WAYS.items() if ways.get(name) not in (None, usual)]
    name = PurePath("_".join([split, task, *told, *(["best"] if best else [])]))
    if name.is_absolute() or ".." in name.parts:
        raise UserError(f"split {split!r}, task {task!r}: their results would lie outside of {results}; name the split "
                        "by a folder inside of the data set")  # fmt: skip
    return results / name


def _in_a_name(way: str) -> str:
    text = re.sub(r"[^\w.]+", "-", way).strip("-")
    return text if len(text) <= LONGEST else hashlib.sha256(way.encode()).hexdigest()[:12]
