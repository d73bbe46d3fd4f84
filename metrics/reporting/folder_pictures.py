"""Pictures of two folders for the report."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from metrics.folders import Item, read_exact
from metrics.reporting.page.gallery import ROWS
from util.errors import DataError
from util.images import read_binary


def shown(item: Item) -> dict[str, Any]:
    """Return the pictures of an item for the report."""
    real = {"real": read_exact(item.real)[0]} if item.real else {}
    erased = {}
    if item.mask and item.real:
        mask = read_binary(item.mask)[..., None]
        erased = {"input": np.where(mask > 0, 128, real["real"]).astype(np.uint8)}
    draws = {f"result {k}".removesuffix(" 1"): read_exact(path)[0] for k, path in enumerate(item.fake[:3], start=1)}
    return {**erased, **draws, **real}


def strips(items: Sequence[Item]) -> dict[str, dict[str, np.ndarray]]:
    """Return some pictures of two unpaired sets for the report, without those that were skipped."""
    pictures: dict[str, dict[str, np.ndarray]] = {}
    for title in ("generated", "real"):
        members = [item for item in items if bool(item.fake) == (title == "generated")]
        files = {item.name: path for item in members if (path := item.fake[0] if item.fake else item.real)}
        for name in list(files)[:: -(-len(files) // ROWS) or 1]:
            with contextlib.suppress(DataError):
                pictures.setdefault(title, {})[name] = read_exact(files[name])[0]
    return pictures
