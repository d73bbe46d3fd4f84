"""The page's server on a free port of this machine, and a client that is no browser."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import uvicorn

import semedit
from semedit.page.desk import Tab
from semedit.page.editing_tab import EditingTab
from semedit.page.parts import PLANES, pack, plane_bytes, unpack
from semedit.page.server import PageServer
from semedit.page.studio import Studio


class Answer(NamedTuple):
    status: int
    content: bytes
    headers: dict[str, str]

    def json(self) -> dict[str, Any]:
        value = json.loads(self.content)
        assert isinstance(value, dict)
        return value

    def scene(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Head and planes of a scene."""
        assert self.status == 200, self.content
        return scene_of(self.content)


def scene_of(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    head, parts = unpack(content)
    width, height = head["size"]
    planes = {}
    for name, part in parts.items():
        dtype, channels = PLANES[name]
        planes[name] = np.frombuffer(part, dtype).reshape((height, width, channels)[: 2 + (channels > 1)])
    return head, planes


class Client:
    """Asks a server, as a page of its own would."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, path: str, body: bytes | None = None, *, method: str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            given = {"Content-Type": "application/octet-stream"} if body is not None else {}
            connection.request(method or ("GET" if body is None else "POST"), path, body, {**given, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()})
        finally:
            connection.close()

    def change(
        self, scene: tuple[dict[str, Any], dict[str, np.ndarray]], change: dict[str, Any], **more: np.ndarray
    ) -> Answer:
        return self.ask("/api/changes", message(scene, {"change": change}, **more))

    def wait(self, answer: Answer) -> tuple[str, dict[str, Any]]:
        """Return key and last state of the job that an answer names."""
        assert answer.status == 202, answer.content
        key = answer.json()["job"]
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            job = self.ask(f"/api/jobs/{key}").json()
            if job["state"] not in ("waiting", "running"):
                return key, job
            time.sleep(0.02)
        raise TimeoutError(key)


def message(
    scene: tuple[dict[str, Any], dict[str, np.ndarray]],
    head: dict[str, Any],
    parts: dict[str, bytes] | None = None,
    **more: np.ndarray,
) -> bytes:
    """Return the message that sends a scene."""
    known, planes = scene
    named = {name: plane_bytes(name, values) for name, values in {**planes, **more}.items()}
    return pack({"name": known["name"], "size": known["size"], **head}, named | (parts or {}))


@contextmanager
def serving(editor: semedit.Editor, *, max_side: int = 512) -> Iterator[tuple[Client, PageServer]]:
    """Serve a run that edits scenes in a thread."""
    with serving_tabs([EditingTab(Studio(editor, max_side))]) as pair:
        yield pair


@contextmanager
def serving_tabs(tabs: Sequence[Tab]) -> Iterator[tuple[Client, PageServer]]:
    """Serve runs in a thread."""
    page = PageServer(tabs)
    with socket.create_server(("127.0.0.1", 0)) as place:
        config = uvicorn.Config(page.app("127.0.0.1"), log_level="error", access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            yield Client(place.getsockname()[1]), page
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive()
