"""What all tabs of the page share: reading what is sent, and queueing what takes long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from semedit.page.guard import Bodies
from semedit.page.jobs import Job, JobQueue
from semedit.page.parts import unpack

LONGEST_NAME = 200  # characters of a file's name


class Desk:
    """Takes requests in, a few bodies at a time, and hands out numbers for slow work."""

    def __init__(self) -> None:
        self.jobs, self.bodies = JobQueue(), Bodies()

    @asynccontextmanager
    async def received(self, request: Request) -> AsyncIterator[tuple[dict[str, Any], dict[str, bytes]]]:
        """Read a message, and keep its place among those in memory while it is worked on."""
        async with self.bodies.places:
            yield unpack(await self.bodies.read(request))

    def queued(self, work: Callable[[Job], None], total: int = 1) -> Response:
        """Queue work and answer with its key."""
        return JSONResponse({"job": self.jobs.submit(work, total).key}, 202)


class Tab(Protocol):
    """A run in the page.

    Attributes:
        kind: "editing", "analogy" or "stylising", as `BaseModel.flow`.
        run: its name.
    """

    kind: str
    run: str

    def routes(self, desk: Desk) -> list[Route]:
        """Return what is answered."""
        ...


def names_in(head: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of files that a message tells, as an answer can hold them: JSON lets half a character in."""
    given = head.get("names")
    if not isinstance(given, dict):
        return {}
    return {str(k): str(v)[:LONGEST_NAME].encode(errors="replace").decode() for k, v in given.items()}


def binary(content: bytes) -> Response:
    """Return an answer of bytes."""
    return Response(content, media_type="application/octet-stream")
