"""The page's server: answers at once what takes milliseconds, and queues what a network has to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
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

from data.edit.scenes import Scene
from semedit.page.edits import EditRequest, carry_out
from semedit.page.guard import Bodies, Guard, RefusedError
from semedit.page.jobs import BusyError, Job, JobQueue
from semedit.page.parts import planes_of, unpack
from semedit.page.studio import Studio
from util.decode import NamedBytes
from util.errors import UserError
from util.images import read_image

PAGES = {
    "": "page.html",
    "page.css": "page.css",
    "page.js": "page.js",
    "canvas.js": "canvas.js",
    "server.js": "server.js",
}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "png": "image/png", "zip": "application/zip"}
SCENE = "scene"  # the file of a job that opens a picture
RAW = ".rgb"  # a picture as bytes: what a browser decodes may be altered, against tracking by its canvas
Handler = Callable[[Request], Awaitable[Response]]


class PageServer:
    """Answers the page. Nothing that a client names is ever opened: examples and files are looked up in tables."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.jobs, self.bodies = studio, JobQueue(), Bodies()
        own = files("semedit.page")
        self.pages = {path: (own / name).read_bytes() for path, name in PAGES.items()}

    def app(self, host: str) -> Starlette:
        """Return the application; `host` is what it is served under."""
        routes = [
            *(Route(f"/{path}", self.page, methods=["GET"]) for path in PAGES),
            Route("/api/run", self.run, methods=["GET"]),
            Route("/api/examples/{name}", self.example, methods=["GET"]),
            Route("/api/open", self.open, methods=["POST"]),
            Route("/api/changes", self.change, methods=["POST"]),
            Route("/api/edits", self.edit, methods=["POST"]),
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

    async def run(self, request: Request) -> Response:
        """What the run knows."""
        return JSONResponse(self.studio.about())

    async def example(self, request: Request) -> Response:
        """A picture of the run's data, with its maps."""
        scene = await run_in_threadpool(self.studio.example, request.path_params["name"])
        return _message(self.studio.message(scene))

    async def open(self, request: Request) -> Response:
        """Files of a client: the scene, or a job where the segmenter has to look at it."""
        async with self.bodies.places:
            head, parts = unpack(await self.bodies.read(request))
            given = head.get("names")
            names = {str(k): str(v)[:200] for k, v in given.items()} if isinstance(given, dict) else {}
            if "image" not in parts:
                raise RefusedError("no picture was sent")
            if not self.studio.needs_labels(parts):
                scene = await run_in_threadpool(self.studio.opened, names, parts)
                return _message(self.studio.message(scene))

        def work(job: Job) -> None:
            job.add(SCENE, self.studio.message(self.studio.opened(names, parts)))

        return self._queued(self.jobs.submit(work))

    async def change(self, request: Request) -> Response:
        """A scene with changed maps."""
        async with self.bodies.places:
            head, parts = unpack(await self.bodies.read(request))
            return _message(await run_in_threadpool(self._changed, head, parts))

    def _changed(self, head: dict[str, Any], parts: dict[str, bytes]) -> bytes:
        wish = head.get("change")
        if not isinstance(wish, dict):
            raise RefusedError("the request is malformed (no change)")
        shape = planes_of(head, parts, "shape")["shape"] > 0 if "shape" in parts else None
        return self.studio.message(self.studio.changed(self._scene(head, parts), wish, shape))

    def _scene(self, head: dict[str, Any], parts: dict[str, bytes]) -> Scene:
        planes = planes_of(head, parts, "image", "label", "inst", "mask")
        if planes["inst"].min() < 0:
            raise RefusedError("the request is malformed (ids below 0)")
        maps = (planes["label"].astype("int32"), planes["inst"].astype("int32"), planes["mask"] > 0)
        return self.studio.scene(str(head.get("name", ""))[:200], planes["image"], *maps)

    async def edit(self, request: Request) -> Response:
        """A job that makes results."""
        async with self.bodies.places:
            head, parts = unpack(await self.bodies.read(request))
            wish = await run_in_threadpool(self._wish, head, parts)
        job = self.jobs.submit(lambda job: carry_out(self.studio, wish, job), wish.count)
        return self._queued(job)

    def _wish(self, head: dict[str, Any], parts: dict[str, bytes]) -> EditRequest:
        scene = self._scene(head, parts)
        if not scene.mask.any():
            raise UserError("nothing is erased yet: change something, or draw with the mask brush")
        reference = None
        if "reference" in parts:
            reference = self._scene(*unpack(parts["reference"]))
        return EditRequest.of(self.studio.editor, scene, head, reference)

    def _queued(self, job: Job) -> Response:
        return JSONResponse({"job": job.key}, 202)

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
        if name == SCENE and name in made:
            return _message(made[name])
        kind = name.rpartition(".")[2]
        content = made.get(f"{name.removesuffix(RAW)}.png" if name.endswith(RAW) else name)
        if content is None:
            raise RefusedError("no such file", 404)
        if name.endswith(RAW):
            return _message(await run_in_threadpool(lambda: read_image(NamedBytes(content, name)).tobytes()))
        return Response(content, media_type=TYPES[kind])


def _message(content: bytes) -> Response:
    return Response(content, media_type="application/octet-stream")


async def _refuse(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, RefusedError) else 503 if isinstance(error, BusyError) else 400
    return JSONResponse({"error": str(error)}, status)


async def _refuse_unknown(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return JSONResponse({"error": "there is no such page here"}, status)


async def _fail(request: Request, error: Exception) -> Response:
    """Starlette raises the error again, so that the terminal shows it."""
    return JSONResponse({"error": "this should not happen: the terminal in which the page was started says more"}, 500)
