"""Pictures of the report, each embedded once however often it is shown."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 192  # CSS pixels of a thumbnail's long side
KEPT = 512  # pixels of an embedded picture's long side, to zoom into


class Thumbnail(NamedTuple):
    """A picture as it is shown somewhere: the CSS class that holds it, what it shows in words, its size in CSS."""

    rule: str
    alt: str
    size: str


class Thumbnails:
    """Attributes: `pictures`, the data URI of each by its CSS class; `sizes`, width and height of what is embedded."""

    def __init__(self) -> None:
        self.pictures: dict[str, str] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self._rules: dict[bytes, str] = {}

    def add(self, picture: np.ndarray, alt: str, side: int = SIDE) -> Thumbnail:
        """Embed a picture (H,W,3) uint8, shown with its long side at `side` pixels; `alt` says what it shows."""
        rule = self._rules.setdefault(picture.tobytes() + repr(picture.shape).encode(), f"p{len(self._rules)}")
        if rule not in self.pictures:
            self.pictures[rule], self.sizes[rule] = _data_uri(picture)
        return self.shown(Thumbnail(rule, alt, ""), side)

    def shown(self, thumbnail: Thumbnail, side: int) -> Thumbnail:
        """Return a picture with its long side at `side` pixels."""
        width, height = self.sizes[thumbnail.rule]
        scale = side / max(height, width)
        crisp = ";image-rendering:pixelated" if scale > 1 else ""
        size = f"width:{round(width * scale)}px;height:{round(height * scale)}px{crisp}"
        return thumbnail._replace(size=size)


def _data_uri(picture: np.ndarray) -> tuple[str, tuple[int, int]]:
    image = Image.fromarray(picture)
    image.thumbnail((KEPT, KEPT), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}", image.size
