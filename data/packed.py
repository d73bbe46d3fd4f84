"""Data sets packed by scripts/pack_dataset.py: tar shards that WebDataset reads, and an index to read them at random.

    <dataroot>/packed.json           for each split: count, bytes per name, sizes of its shards; written last
    <dataroot>/classes.json          as in the folder that was packed
    <dataroot>/<split>-000000.tar    <key>.image.jpg, <key>.label.png, <key>.inst.png, ...: the folder's files unchanged
    <dataroot>/<split>.index         a row of equal size per sample (`Row`)

The dataroot is a folder or an http(s) address. A sample costs a read of its row and one of its bytes, whose SHA-256 is
compared; nothing else is kept, so that starting and memory do not depend on the number of samples.
"""

from __future__ import annotations

import hashlib
import http.client
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from data.records import CLASSES_FILE, Record, parse_class_table
from util.class_table import ClassTable
from util.decode import NamedBytes
from util.errors import DataError
from util.files import cause
from util.listing import is_file_name
from util.text_files import parse_json

MANIFEST = "packed.json"
FORMAT = 1
PARTS = ("image", "label", "inst")
_PAGE = 1 << 16  # bytes of an index read at once: an address is asked seldom, and 64 pages are 4 MiB
_LONGEST_NAME = 1024  # bytes; file systems allow 255
_TIMEOUT = 60  # seconds until a silent server is asked again
_WAITS = (1, 4, 16)  # seconds between attempts
_AGAIN = "copy the packed folder again, or pack again with scripts/pack_dataset.py"


@dataclass(frozen=True)
class Row:
    """Where a sample lies.

    Args:
        shard, start: number of the shard, and the first byte of the sample's first tar header.
        spans: (offset from `start`, size) of image, label and inst; (0, 0) where there is no instance map.
        digest: SHA-256 of `content_digest`.
        name: base name of the sample's files.
    """

    shard: int
    start: int
    spans: tuple[tuple[int, int], ...]
    digest: bytes
    name: str

    @staticmethod
    def layout(name_bytes: int) -> struct.Struct:
        """Return how rows are stored whose longest name has so many bytes."""
        return struct.Struct(f"<IQ6I32s{name_bytes}s")

    @property
    def size(self) -> int:
        """Bytes from `start` to the end of the last part."""
        return max(offset + size for offset, size in self.spans)

    def pack(self, layout: struct.Struct) -> bytes:
        """Return the stored row."""
        numbers = (number for span in self.spans for number in span)
        return layout.pack(self.shard, self.start, *numbers, self.digest, self.name.encode())

    @classmethod
    def unpack(cls, layout: struct.Struct, data: bytes) -> Row:
        """Read a stored row; raises `ValueError` if its name could not be a file's."""
        shard, start, *numbers, digest, name = layout.unpack(data)
        text = name.rstrip(b"\0").decode()
        if not is_file_name(text):
            raise ValueError(f"unsafe name {text!r}")  # results are written under it
        return cls(shard, start, tuple(zip(numbers[::2], numbers[1::2], strict=True)), digest, text)


def content_digest(name: str, data: bytes) -> bytes:
    """Return the SHA-256 of a sample: its name, and the shard's bytes from its first header to its last part's end."""
    return hashlib.sha256(name.encode() + b"\0" + data).digest()


def shard_name(split: str, number: int) -> str:
    """Return the file name of a shard."""
    return f"{split}-{number:06d}.tar"


def index_name(split: str) -> str:
    """Return the file name of a split's index."""
    return f"{split}.index"


def is_url(dataroot: str) -> bool:
    """Whether a dataroot is an address."""
    return dataroot.startswith(("http://", "https://"))


def is_packed(dataroot: str) -> bool:
    """Whether a dataroot is an address or holds shards, even unfinished ones, which `read_manifest` then refuses."""
    return is_url(dataroot) or (Path(dataroot) / MANIFEST).is_file() or any(Path(dataroot).glob("*-000000.tar"))


def read_manifest(dataroot: str) -> dict[str, Any]:
    """Return the content of packed.json; raises `DataError`."""
    where = locate(dataroot, MANIFEST)
    content = read_part(dataroot, MANIFEST)
    try:
        manifest = dict(parse_json(content))
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
        for split in manifest["splits"].values():
            sizes = (split["count"], split["name_bytes"], *split["shards"])
            if not all(isinstance(size, int) and 0 < size < 1 << 62 for size in sizes) or sizes[1] > _LONGEST_NAME:
                raise ValueError("a count or size that cannot be")
        return manifest
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where}: not readable ({type(error).__name__}: {error}); {_AGAIN}") from error


def packed_classes(dataroot: str) -> ClassTable | None:
    """Return the class table that was packed, if any; raises `DataError`."""
    if not read_manifest(dataroot).get("classes"):
        return None
    return parse_class_table(read_part(dataroot, CLASSES_FILE), locate(dataroot, CLASSES_FILE))


class PackedRecords(Sequence[Record]):
    """The samples of a packed split, read from disk or an address at each access; one copy may serve many threads.

    Raises:
        DataError: there is no such split, or a file is missing or has another size than packed.json says.
    """

    def __init__(self, dataroot: str, split: str) -> None:
        splits = read_manifest(dataroot)["splits"]
        if split not in splits:
            raise DataError(f"{locate(dataroot, MANIFEST)}: no split '{split}'. There are: {', '.join(splits)}")
        self.dataroot, self.split, self.length = dataroot, split, splits[split]["count"]
        self.shards: list[int] = splits[split]["shards"]
        self.layout = Row.layout(splits[split]["name_bytes"])
        self.names = PackedNames(self)
        self._pages = lru_cache(maxsize=64)(self._page)
        if not is_url(dataroot):  # a server is not asked for every file: what it lacks is noticed when it is read
            self._check_files()

    def _check_files(self) -> None:
        sizes = {shard_name(self.split, number): size for number, size in enumerate(self.shards)}
        for file, size in {**sizes, index_name(self.split): self.length * self.layout.size}.items():
            path = Path(self.dataroot, file)
            if not path.is_file():
                raise DataError(f"{path} is missing; {_AGAIN}")
            if (present := path.stat().st_size) != size:
                raise DataError(f"{path} has {present} bytes, {size} were packed: cut or replaced; {_AGAIN}")

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedRecords, (self.dataroot, self.split)  # for workers that are not forked

    def __len__(self) -> int:
        return self.length

    def row(self, index: int) -> Row:
        """Return a sample's row; raises `DataError` if it cannot be right."""
        per_page = max(1, _PAGE // self.layout.size)
        page, at = divmod(range(self.length)[index], per_page)
        data = self._pages(page, per_page)[at * self.layout.size : (at + 1) * self.layout.size]
        try:
            row = Row.unpack(self.layout, data)
            if row.shard >= len(self.shards) or row.start + row.size > self.shards[row.shard]:
                raise ValueError("it lies outside of its shard")
            return row
        except (struct.error, ValueError) as error:
            where = locate(self.dataroot, index_name(self.split))
            raise DataError(f"{where}: row {index} is damaged ({error}); {_AGAIN}") from error

    def _page(self, page: int, per_page: int) -> bytes:
        rows = min(per_page, self.length - page * per_page)
        start = page * per_page * self.layout.size
        return read_part(self.dataroot, index_name(self.split), start, rows * self.layout.size)

    def __getitem__(self, index: Any) -> Any:
        """Return the `Record` of a sample, its files' bytes in the place of paths; raises `DataError` if damaged."""
        row = self.row(index)
        file = shard_name(self.split, row.shard)
        data = read_part(self.dataroot, file, row.start, row.size)
        where = f"{locate(self.dataroot, file)}: {row.name}"
        if len(data) < row.size:
            raise DataError(f"{where}: the shard is cut, {row.size - len(data)} bytes of the sample miss; {_AGAIN}")
        if content_digest(row.name, data) != row.digest:
            raise DataError(f"{where}: wrong checksum, the shard or the index is damaged or replaced; {_AGAIN}")
        parts: list[Any] = [  # typed as paths for the readers of pictures, which take both
            NamedBytes(data[offset : offset + size], f"{where}.{part}") if size else None
            for part, (offset, size) in zip(PARTS, row.spans, strict=True)
        ]
        return Record(row.name, *parts)


class PackedNames(Sequence[str]):
    """The names of the samples, read from the index."""

    def __init__(self, records: PackedRecords) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: Any) -> str:
        return self.records.row(index).name


# --- files and addresses ----------------------------------------------------------------------------------------------
def locate(dataroot: str, file: str) -> str:
    """Return the path or address of a file of the packed data."""
    return f"{dataroot.rstrip('/')}/{file}" if is_url(dataroot) else str(Path(dataroot, file))


def read_part(dataroot: str, file: str, start: int = 0, size: int = -1) -> bytes:
    """Return `size` bytes of a file, fewer at its end, or all of it; raises `DataError`."""
    where = locate(dataroot, file)
    if is_url(dataroot):
        return _fetch(where, None if size < 0 else f"bytes={start}-{start + size - 1}")
    try:
        with open(where, "rb") as opened:  # anew each time: nothing is shared with other workers
            opened.seek(start)
            return opened.read(size)
    except FileNotFoundError as error:
        raise DataError(f"{where} is missing: packing did not finish, or the copy is not whole; {_AGAIN}") from error
    except OSError as error:
        raise DataError(f"{where} cannot be read ({cause(error)})") from error


def _fetch(url: str, part: str | None) -> bytes:
    """Return the content of an address, or the bytes of a `Range`; asks again after failures that may pass."""
    request = urllib.request.Request(url, headers={"Range": part} if part else {})
    for wait in (*_WAITS, None):
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                if part and answer.status != http.client.PARTIAL_CONTENT:
                    raise DataError(
                        f"{url}: the server sends whole files only (no HTTP ranges); copy the folder, and name the copy"
                    )
                return bytes(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            code = error.code if isinstance(error, urllib.error.HTTPError) else 500
            if code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                return b""  # the file ends before
            problem = cause(error)
        if wait is None or (code < 500 and code != http.client.TOO_MANY_REQUESTS):
            break
        print(f"note: {url}: {problem}; asking again in {wait} s", flush=True)
        time.sleep(wait)
    raise DataError(f"{url} cannot be read ({problem}); check the address of --dataroot, and that the server runs")
