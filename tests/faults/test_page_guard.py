"""Requests that no page of ours sends, from 32 clients at once, to the page's server in a process of its own."""

from __future__ import annotations

import http.client
import io
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from editing_runs import make_runs
from PIL import Image

pytest.importorskip("uvicorn", reason="the page's packages are not installed (requirements-app.txt)")

from page_client import Client, message

from semedit.page.guard import MOST_BODY
from semedit.page.parts import pack

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = 32
MOST_GROWTH = 64  # MiB of memory, after the first round


class Served(NamedTuple):
    client: Client
    pid: int
    temporary: Path

    def memory(self) -> float:
        """MiB that the server holds."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = make_runs(tmp_path_factory.mktemp("guard"))
    temporary = tmp_path_factory.mktemp("temporary")
    line = [sys.executable, str(ROOT / "scripts/app.py"), "--checkpoints_dir", str(root), "--name", "divsem"]
    line += ["--device", "cpu", "--num_workers", "0", "--port", "0"]
    where = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=where)
    assert process.stdout is not None
    told = process.stdout.readline()
    port = int(re.search(r"http://127\.0\.0\.1:(\d+) ", told)[1])  # type: ignore[index]
    yield Served(Client(port), process.pid, temporary)
    process.send_signal(signal.SIGINT)
    _, wrong = process.communicate(timeout=60)
    assert (process.returncode, wrong) == (0, "")  # no traceback in all this time


def png(width: int, height: int, lines: bytes = b"") -> bytes:
    """A PNG whose header claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def picture(kind: str, *, frames: int = 1, **how: object) -> bytes:
    file = io.BytesIO()
    first, *more = [Image.fromarray(np.full((40, 60, 3), 50 * k, np.uint8)) for k in range(frames)]
    first.save(file, kind, **({"save_all": True, "append_images": more} if more else {}), **how)
    return file.getvalue()


@cache
def zeros() -> bytes:
    """A small file of 56 million pixels."""
    return png(7500, 7500, bytes(7500 * 22501))


def cut(content: bytes, R: random.Random) -> bytes:
    return content[: R.randrange(20, len(content) * 3 // 4)]


def label() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(file, "PNG")
    return file.getvalue()


def opened(content: bytes, **more: bytes) -> bytes:
    return pack({"names": {"image": "../../etc/x.png"}}, {"image": content, "label": label(), **more})


SMALL = ({"name": "a", "size": [8, 8]}, {
    "image": np.zeros((8, 8, 3), np.uint8), "label": np.zeros((8, 8), np.uint16), "inst": np.zeros((8, 8), np.int32),
    "mask": np.ones((8, 8), np.uint8),
})  # fmt: skip
WISH = {"count": 1, "seed": 0, "style": "bank"}
PICTURES: dict[str, Callable[[random.Random], bytes]] = {
    "a bomb: 40000 x 40000 pixels in a kilobyte": lambda R: opened(png(40_000, 40_000)),
    "a bomb: 7500 x 7500 pixels of zeros": lambda R: opened(zeros()),
    "a picture cut short": lambda R: opened(cut(picture("PNG"), R)),
    "a JPEG cut short": lambda R: opened(cut(picture("JPEG"), R)),
    "bytes at random": lambda R: opened(R.randbytes(R.randrange(4000))),
    "a PNG's first bytes, then any": lambda R: opened(b"\x89PNG\r\n\x1a\n" + R.randbytes(500)),
    "a WebP's first bytes, then any": lambda R: opened(b"RIFF\0\1\0\0WEBPVP8L" + R.randbytes(500)),
    "a GIF": lambda R: opened(picture("GIF")),
    "a TIFF": lambda R: opened(picture("TIFF")),
    "a BMP": lambda R: opened(picture("BMP")),
    "an EPS, which starts a program elsewhere": lambda R: opened(picture("EPS")),
    "an SVG": lambda R: opened(b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>'),
    "several pictures in a PNG": lambda R: opened(picture("PNG", frames=3)),
    "several pictures in a WebP": lambda R: opened(picture("WEBP", frames=3)),
    "a label map in colours": lambda R: opened(picture("PNG"), label=picture("PNG")),
    "an instance map of 8 bits": lambda R: opened(picture("PNG"), inst=png(60, 40, bytes(40 * 61))),
    "a label map of another size": lambda R: opened(picture("PNG"), label=png(10, 10, bytes(310))),
    "no picture": lambda R: pack({}, {"label": label()}),
}
MALFORMED: dict[str, Callable[[random.Random], bytes]] = {
    "nothing": lambda R: b"",
    "bytes at random": lambda R: R.randbytes(R.randrange(1, 2000)),
    "a head longer than all": lambda R: struct.pack("<I", 1 << 31) + b"{}",
    "no JSON": lambda R: struct.pack("<I", 5) + b"{hey}",
    "JSON without end": lambda R: struct.pack("<I", 60_000) + b"[" * 60_000,
    "a part of negative length": lambda R: b'\x1f\0\0\0{"parts": [["image", -100000]]}',
    "a part longer than all": lambda R: b'\x21\0\0\0{"parts": [["image", 99999999]]} ',
    "bytes that are no part": lambda R: message(SMALL, WISH) + b"more",
    "an endless size": lambda R: message(({**SMALL[0], "size": [1 << 40, 1 << 40]}, SMALL[1]), WISH),
    "a size of letters": lambda R: message(({**SMALL[0], "size": ["8", None]}, SMALL[1]), WISH),
    "planes of another size": lambda R: message(({**SMALL[0], "size": [9, 8]}, SMALL[1]), WISH),
    "ids below 0": lambda R: message((SMALL[0], {**SMALL[1], "inst": np.full((8, 8), -5)}), WISH),
    "ids of no class": lambda R: message((SMALL[0], {**SMALL[1], "label": np.full((8, 8), 500)}), WISH),
    "a million results": lambda R: message(SMALL, {**WISH, "count": 10**6}),
    "no whole seed": lambda R: message(SMALL, {**WISH, "seed": 0.5}),
    "codes that are none": lambda R: message(SMALL, {**WISH, "style": "codes", "codes": {"__class__": 1}}),
    "codes beyond the bank": lambda R: message(SMALL, {**WISH, "style": "codes", "codes": {"0": 1 << 40}}),
    "an unknown style": lambda R: message(SMALL, {**WISH, "style": "/etc/passwd"}),
    "a style of nothing": lambda R: message(SMALL, {**WISH, "style": "reference", "style_class": 6}),
    "a malformed reference": lambda R: message(SMALL, {**WISH, "style": "reference"}, {"reference": b"x"}),
    "nothing erased": lambda R: message((SMALL[0], {**SMALL[1], "mask": np.zeros((8, 8))}), WISH),
}
CHANGES: dict[str, dict[str, object]] = {
    "an unknown one": {"kind": "__class__"},
    "of a class that is none": {"kind": "box", "class": 10**9, "box": [0, 0, 4, 4], "shape": "ellipse"},
    "of a class in words": {"kind": "box", "class": "car", "box": [0, 0, 4, 4], "shape": "ellipse"},
    "outside": {"kind": "box", "class": 1, "box": [-4, 0, 4, 400], "shape": "ellipse"},
    "without its fields": {"kind": "box"},
    "of an unknown thing": {"kind": "remove", "id": 77},
    "of everything": {"kind": "remove", "id": 0},
    "far away": {"kind": "move", "id": 0, "right": 1 << 40, "down": 0},
    "without end": {"kind": "extend", "side": "left", "pixels": 1 << 30},
    "to nowhere": {"kind": "extend", "side": "../..", "pixels": 4},
    "painted nowhere": {"kind": "paint", "class": 1},
    "to an endless width": {"kind": "extend", "width": 1 << 30},
    "to a width in words": {"kind": "extend", "width": "../.."},
    "with labels of its own": {"kind": "extend", "side": "left", "pixels": 4, "labels": "/etc/passwd"},
    "of a thing in no picture": {"kind": "box", "class": 1, "box": [0, 0, 4, 4], "shape": "thing", "of": 1},
    "with an endless margin": {"kind": "renew", "id": 0, "reach": 1 << 30},
    "made anew of nothing": {"kind": "renew", "id": 77},
}
PATHS = [
    "/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.css/../../server.py", "/server.py", "/page.html%00",
    "/api/examples/..%2f..%2f..%2fetc%2fpasswd", "/api/examples/%2Fetc%2Fpasswd", "/api/examples/" + "a" * 4000,
    "/api/jobs/..%2f..%2fetc", "/api/jobs/x/..%2f..%2fetc%2fpasswd", "/api/jobs/x/scene", "/api/run/../../etc/passwd",
]  # fmt: skip
FOREIGN = [
    {"Host": "evil.example"}, {"Host": "evil.example:80"}, {"Host": "127.0.0.1.evil.example"}, {"Host": "[::1"},
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
]  # fmt: skip


def refused(answer: tuple[int, bytes]) -> None:
    status, content = answer
    assert status in (400, 403, 404, 405, 408, 411, 413, 503), (status, content[:200])
    told = json.loads(content)["error"]
    assert told and "Traceback" not in told and "passwd" not in told.replace("/etc/passwd", "")
    assert b"root:" not in content


def hostile(served: Served) -> list[Callable[[random.Random], None]]:
    """One way to ask for each of the above."""
    client = served.client

    def asks(path: str, body: Callable[[random.Random], bytes]) -> Callable[[random.Random], None]:
        return lambda R: refused(client.ask(path, body(R))[:2])

    def changes(wish: dict[str, object]) -> Callable[[random.Random], None]:
        return lambda R: refused(client.change(SMALL, wish)[:2])

    def gets(path: str, headers: dict[str, str] | None = None) -> Callable[[random.Random], None]:
        return lambda R: refused(client.ask(path, headers=headers)[:2])

    ways = [asks("/api/open", body) for body in PICTURES.values()]
    ways += [
        asks(path, body)
        for body in MALFORMED.values()
        for path in ("/api/open", "/api/edits", "/api/changes", "/api/styles")
    ]
    ways += [changes(wish) for wish in CHANGES.values()]
    ways += [gets(path) for path in PATHS] + [gets("/api/run", headers) for headers in FOREIGN]
    ways += [lambda R, h=headers: refused(client.ask("/api/edits", message(SMALL, WISH), headers=h)[:2])
             for headers in FOREIGN]  # type: ignore[misc] # fmt: skip
    ways += [lambda R: too_long(client, "Content-Length", str(MOST_BODY + 1))]
    ways += [lambda R: too_long(client, "Transfer-Encoding", "chunked")]
    return [*ways, lambda R: refused(client.ask("/api/run", b"")[:2])]


def too_long(client: Client, header: str, value: str) -> None:
    """Begin a request that would be too long, or says no length, and send some of it."""
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    try:
        connection.putrequest("POST", "/api/open")
        connection.putheader(header, value)
        connection.endheaders(b"100000\r\n" + bytes(1000))
        answer = connection.getresponse()
        refused((answer.status, answer.read()))
    finally:
        connection.close()


def healthy(served: Served) -> None:
    """An edit still works."""
    _, job = served.client.wait(served.client.ask("/api/edits", message(SMALL, WISH)))
    assert job["state"] == "done", job["error"]


@pytest.mark.fault("25", "bombs, damaged files, malformed messages, foreign paths and sites: 32 clients of the page",
                   sees="one sentence each; no file is opened or left, memory stays flat")  # fmt: skip
def test_hostile_requests_are_refused_in_a_sentence(ledger, served: Served) -> None:  # type: ignore[no-untyped-def]
    ways = hostile(served)

    def one(number: int) -> BaseException | None:
        try:
            ways[number % len(ways)](random.Random(number))
        except BaseException as error:
            return error
        return None

    healthy(served)
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(one, range(len(ways))))  # each once, before memory is looked at
        before = served.memory()
        rounds = [attempt for attempt in ledger.attempts(5 * len(ways), quick=len(ways))]
        for attempt, fault in zip(rounds, clients.map(one, range(len(rounds))), strict=True):
            with attempt:
                if fault is not None:
                    raise fault
    assert served.memory() < before + MOST_GROWTH
    assert not list(served.temporary.iterdir())
    healthy(served)


@pytest.mark.fault("25", "64 MiB of nothing sent to the page by each of 32 clients at once",
                   sees="that the request is malformed; four are read at a time")  # fmt: skip
def test_large_bodies_do_not_fill_the_memory_together(ledger, served: Served) -> None:  # type: ignore[no-untyped-def]
    before, most = served.memory(), 0.0
    body = bytes(MOST_BODY)

    def one(attempt) -> BaseException | None:  # type: ignore[no-untyped-def]
        try:
            refused(served.client.ask("/api/edits", body)[:2])
        except BaseException as error:
            return error
        return None

    attempts = list(ledger.attempts(CLIENTS, quick=6))
    with ThreadPoolExecutor(CLIENTS) as clients:
        results = [clients.submit(one, attempt) for attempt in attempts]
        while not all(each.done() for each in results):
            most = max(most, served.memory())
            time.sleep(0.02)
    for attempt, each in zip(attempts, results, strict=True):
        with attempt:
            if (fault := each.result()) is not None:
                raise fault
    assert most < before + 1024  # 32 bodies are 2 GiB
    healthy(served)
