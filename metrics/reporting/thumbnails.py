"""Small pictures of the report, each embedded once however often it is shown."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 192  # pixels of a thumbnail's long side


class Thumbnail(NamedTuple):
    """A picture as it is shown somewhere: the CSS class that holds it, what it shows in words, its size in CSS."""

    rule: str
    alt: str
    size: str


class Thumbnails:
    """Attributes: `pictures`, the data URI of each by its CSS class."""

    def __init__(self) -> None:
        self.pictures: dict[str, str] = {}
        self._rules: dict[bytes, str] = {}

    def add(self, picture: np.ndarray, alt: str, side: int = SIDE) -> Thumbnail:
        """Embed a picture (H,W,3) uint8, shown with its long side at `side` pixels; `alt` says what it shows."""
        rule = self._rules.setdefault(picture.tobytes() + repr(picture.shape).encode(), f"p{len(self._rules)}")
        if rule not in self.pictures:
            self.pictures[rule] = _data_uri(picture)
        height, width = picture.shape[:2]
        scale = side / max(height, width)
        crisp = ";image-rendering:pixelated" if scale > 1 else ""
        return Thumbnail(rule, alt, f"width:{round(width * scale)}px;height:{round(height * scale)}px{crisp}")


def _data_uri(picture: np.ndarray) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
