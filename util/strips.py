"""Strips of a large picture, so that the memory of a computation follows the strip and not the picture."""

from __future__ import annotations

from collections.abc import Iterator

PIXELS = 1 << 18  # of a strip


def row_strips(height: int, width: int) -> Iterator[slice]:
    """Yield rows that together are all of a picture, from the top."""
    rows = max(1, PIXELS // width)
    for top in range(0, height, rows):
        yield slice(top, min(height, top + rows))
