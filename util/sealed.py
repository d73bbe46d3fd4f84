"""Checksums of whole files, kept in the files: any flipped bit is found before the content is used.

Other readers take both formats as before: a ZIP archive (a checkpoint) carries its SHA-256 as
the archive's comment, a safetensors file in its metadata. Files without one are still read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from util.files import require_regular, write_bytes

_CHUNK = 1 << 20
_MARK = b"sha256 of the archive without this comment: "
_COMMENT = len(_MARK) + 64  # bytes; an archive ends with two bytes that hold this length, and the comment
_KEY = "checksum_sha256"  # of safetensors' metadata, and first in the file; no other key there has this length
# By position and length alone, so that a file with a damaged key does not count as one without a checksum.
_SEALED = re.compile(rb'.{8}\{"__metadata__":\{"[^"]{%d}":"([^"]{64})"' % len(_KEY), re.DOTALL)


class _Hashing:
    """A stream that hashes what goes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def write_sealed_zip(file: BinaryIO, write: Callable[[Any], None]) -> None:
    """Let `write` write a ZIP archive without a comment to the stream that it gets, then add the checksum."""
    stream = _Hashing(file)
    write(stream)
    file.seek(-2, os.SEEK_END)
    file.write(_COMMENT.to_bytes(2, "little") + _MARK + stream.digest.hexdigest().encode())


def verify_zip(path: Path) -> None:
    """Check every byte of an archive; of one without a checksum, the CRC-32 sums of its members.

    Raises:
        zipfile.BadZipFile: a checksum is wrong, or the file is truncated. (A damaged file may raise other errors.)
        ValueError: it is not a regular file.
    """
    require_regular(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - _COMMENT - 2))
        length, comment = file.read(2), file.read()
        if not comment.startswith(_MARK):
            if comment[-2:] != b"\0\0":  # the length of a comment: torch writes none
                raise zipfile.BadZipFile("cut short, or its checksum is unreadable")
            _verify_members(path)
            return
        file.seek(0)
        # The length was written after the rest had been hashed with a length of zero.
        digest = _sha256(chain(_chunks(file, size - _COMMENT - 2), [b"\0\0"]))
    if length != _COMMENT.to_bytes(2, "little") or comment != _MARK + digest.encode():
        raise zipfile.BadZipFile("wrong checksum")


def _verify_members(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"wrong checksum in {damaged}")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, atomically; equal content makes equal bytes."""
    # Not save_file, whose files only their owner can read.
    raw = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    end = 8 + int.from_bytes(raw[:8], "little")
    header = {"__metadata__": {_KEY: "0" * 64, **metadata}, **json.loads(raw[8:end])}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    start = len(text).to_bytes(8, "little") + text
    digest = _sha256([start, memoryview(raw)[end:]])
    sealed = start.replace(b"0" * 64, digest.encode(), 1)
    write_bytes(path, b"".join((sealed, memoryview(raw)[end:])))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, every byte verified if it has a checksum, and its metadata.

    Raises:
        ValueError: the file is damaged or not a safetensors file.
    """
    try:
        _verify_tensors(path)
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _verify_tensors(path: Path) -> None:
    require_regular(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = file.read(8)
        start = length + file.read(min(int.from_bytes(length, "little"), size))
        if (seal := _SEALED.match(start)) is None:
            return
        unsealed = start[: seal.start(1)] + b"0" * 64 + start[seal.end(1) :]
        if _sha256(chain([unsealed], _chunks(file, size))).encode() != seal[1]:
            raise ValueError("wrong checksum")


def _sha256(parts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _chunks(file: BinaryIO, count: int) -> Iterator[bytes]:
    """Yield the next `count` bytes, or as many as there are."""
    while count > 0 and (chunk := file.read(min(_CHUNK, count))):
        yield chunk
        count -= len(chunk)
