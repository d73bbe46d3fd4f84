"""The page's server: answers at once what takes milliseconds, and queues what a network has to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from semedit.page.desk import Desk, Tab, binary
from semedit.page.guard import Guard, RefusedError
from semedit.page.jobs import BusyError, Job
from util.decode import NamedBytes
from util.errors import UserError
from util.images import read_image

MODULES = ("page", "dom", "server", "canvas", "easel", "scenes", "styles", "results", "layout", "stylise")
PAGES = {"": "page.html", "page.css": "page.css", **{f"{name}.js": f"{name}.js" for name in MODULES}}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "png": "image/png", "zip": "application/zip"}
RAW = ".rgb"  # a picture as bytes: what a browser decodes may be altered, against tracking by its canvas


class PageServer:
    """Answers the page. Nothing that a client names is ever opened: examples and files are looked up in tables.

    Args:
        tabs: the runs, one of each kind.
    """

    def __init__(self, tabs: Sequence[Tab]) -> None:
        self.tabs, self.desk = tabs, Desk()
        self.jobs = self.desk.jobs
        own = files("semedit.page")
        self.pages = {path: (own / name).read_bytes() for path, name in PAGES.items()}

    def app(self, host: str) -> Starlette:
        """Return the application; `host` is what it is served under."""
        routes = [
            *(Route(f"/{path}", self.page, methods=["GET"]) for path in PAGES),
            Route("/api/tabs", self.listed, methods=["GET"]),
            *(route for tab in self.tabs for route in tab.routes(self.desk)),
            Route("/api/jobs/{key}", self.job, methods=["GET", "DELETE"]),
            Route("/api/jobs/{key}/{name}", self.file, methods=["GET"]),
        ]
        handlers: dict[Any, Any] = {UserError: _refuse, HTTPException: _refuse_unknown, Exception: _fail}
        guard = Middleware(Guard, host=host)
        return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self.jobs.end()

    async def page(self, request: Request) -> Response:
        """The page itself."""
        path = request.url.path.lstrip("/")
        return Response(self.pages[path], media_type=TYPES[PAGES[path].rpartition(".")[2]])

    async def listed(self, request: Request) -> Response:
        """The runs, by kind."""
        return JSONResponse([{"kind": tab.kind, "run": tab.run} for tab in self.tabs])

    def _job(self, request: Request) -> Job:
        job = self.jobs.get(request.path_params["key"])
        if job is None:
            raise RefusedError("the server does not know this edit any more: make it again", 404)
        return job

    async def job(self, request: Request) -> Response:
        """How far a job is; or, by DELETE, its end."""
        job = self._job(request)
        if request.method == "DELETE":
            self.jobs.cancel(job)
        told = {name: getattr(job, name) for name in ("state", "done", "total", "error", "facts")}
        return JSONResponse({**told, "ahead": self.jobs.ahead(job), "files": list(job.files)})

    async def file(self, request: Request) -> Response:
        """A file that a job has made."""
        name, made = request.path_params["name"], self._job(request).files
        if "." not in name and name in made:  # a message for the page
            return binary(made[name])
        kind = name.rpartition(".")[2]
        content = made.get(f"{name.removesuffix(RAW)}.png" if name.endswith(RAW) else name)
        if content is None:
            raise RefusedError("no such file", 404)
        if name.endswith(RAW):
            return binary(await run_in_threadpool(lambda: read_image(NamedBytes(content, name)).tobytes()))
        return Response(content, media_type=TYPES[kind])


async def _refuse(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, RefusedError) else 503 if isinstance(error, BusyError) else 400
    return JSONResponse({"error": str(error)}, status)


async def _refuse_unknown(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return JSONResponse({"error": "there is no such page here"}, status)


async def _fail(request: Request, error: Exception) -> Response:
    """Starlette raises the error again, so that the terminal shows it."""
    return JSONResponse({"error": "this should not happen: the terminal in which the page was started says more"}, 500)
