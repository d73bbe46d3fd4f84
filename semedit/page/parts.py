"""What the page and its server send each other: a JSON head and named parts, one after the other.

Four bytes (little-endian) say how long the head is; its "parts" are pairs of name and number of bytes. Parts are
files, or planes: the maps of a picture whose "size" (width, height) the head holds. Planes keep ids exact, which
pictures in a browser do not.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from util.errors import UserError
from util.text_files import parse_json

MOST_PIXELS = 1 << 22  # of a picture in the page; a photograph is scaled down to --max_side before
MOST_HEAD = 1 << 16  # bytes
PLANES = {"image": ("u1", 3), "label": ("<u2", 1), "inst": ("<i4", 1), "mask": ("u1", 1), "shape": ("u1", 1)}


def pack(head: Mapping[str, Any], parts: Mapping[str, bytes]) -> bytes:
    """Return a message."""
    listed = {**head, "parts": [[name, len(content)] for name, content in parts.items()]}
    text = json.dumps(listed).encode()
    return b"".join([struct.pack("<I", len(text)), text, *parts.values()])


def unpack(body: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return head and parts of a message; raises `UserError` if it is none."""
    try:
        (length,) = struct.unpack_from("<I", body)
        if length > MOST_HEAD:
            raise ValueError(f"a head of {length} bytes")
        head = parse_json(body[4 : 4 + length])
        parts, place = {}, 4 + length
        for name, size in head.pop("parts"):
            if not isinstance(name, str) or type(size) is not int or not 0 <= size <= len(body) - place:
                raise ValueError(f"a part {str(name)[:40]!r} of {str(size)[:40]} bytes")
            parts[name] = body[place : place + size]
            place += size
        if place != len(body):
            raise ValueError(f"{len(body) - place} bytes belong to no part")
    except (struct.error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"the request is malformed ({type(error).__name__}: {error})") from error
    return head, parts


def planes_of(head: Mapping[str, Any], parts: Mapping[str, bytes], *names: str) -> dict[str, np.ndarray]:
    """Return the planes of these names: (H, W, 3) or (H, W) arrays; raises `UserError` for missing or wrong ones."""
    size = head.get("size")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise UserError("the request is malformed (size is not [width, height])")
    width, height = size
    if width * height > MOST_PIXELS:
        raise UserError(f"a picture of {width}x{height} pixels; the page takes {MOST_PIXELS / 1e6:.1f} million")
    planes = {}
    for name in names:
        dtype, channels = PLANES[name]
        needed = np.dtype(dtype).itemsize * channels * width * height
        if len(parts.get(name, b"")) != needed:
            raise UserError(f"the request is malformed ({name} has not the {needed} bytes of {width}x{height} pixels)")
        shape = (height, width, channels) if channels > 1 else (height, width)
        planes[name] = np.frombuffer(parts[name], dtype).reshape(shape)
    return planes


def plane_bytes(name: str, values: np.ndarray) -> bytes:
    """Return a plane as the bytes of a part."""
    return np.ascontiguousarray(values, PLANES[name][0]).tobytes()
