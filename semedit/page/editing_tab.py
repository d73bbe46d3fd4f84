"""The tab in which scenes are edited: what its page asks of the server."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from data.edit.scenes import Scene
from semedit.page.changes import Change
from semedit.page.desk import Desk, binary, names_in
from semedit.page.edits import EditRequest, carry_out
from semedit.page.guard import RefusedError
from semedit.page.jobs import Job
from semedit.page.parts import planes_of, unpack
from semedit.page.studio import Studio
from semedit.page.thumbnails import StylesRequest, show_styles
from util.errors import UserError

SCENE = "scene"  # the file of a job that opens a picture
Message = tuple[dict[str, Any], dict[str, bytes]]


class EditingTab:
    """A run that edits scenes."""

    kind = "editing"

    def __init__(self, studio: Studio) -> None:
        self.studio, self.run = studio, studio.editor.opt.name

    def routes(self, desk: Desk) -> list[Route]:
        """Return what is answered; `desk` reads what is sent and queues what takes long."""
        self.desk = desk
        return [
            Route("/api/run", self.about, methods=["GET"]),
            Route("/api/examples/{name}", self.example, methods=["GET"]),
            Route("/api/open", self.open, methods=["POST"]),
            Route("/api/changes", self.change, methods=["POST"]),
            Route("/api/edits", self.edit, methods=["POST"]),
            Route("/api/styles", self.styles, methods=["POST"]),
        ]

    async def about(self, request: Request) -> Response:
        """What the run knows."""
        return JSONResponse(self.studio.about())

    async def example(self, request: Request) -> Response:
        """A picture of the run's data, with its maps."""
        scene = await run_in_threadpool(self.studio.example, request.path_params["name"])
        return binary(self.studio.message(scene))

    async def open(self, request: Request) -> Response:
        """Files of a client: the scene, or a job where the segmenter has to look at it."""
        async with self.desk.received(request) as (head, parts):
            names = names_in(head)
            if "image" not in parts:
                raise RefusedError("no picture was sent")
            if not self.studio.needs_labels(parts):
                scene = await run_in_threadpool(self.studio.opened, names, parts)
                return binary(self.studio.message(scene))

        def work(job: Job) -> None:
            job.add(SCENE, self.studio.message(self.studio.opened(names, parts)))

        return self.desk.queued(work)

    async def change(self, request: Request) -> Response:
        """A scene with changed maps."""
        async with self.desk.received(request) as message:
            return binary(await run_in_threadpool(self._changed, message))

    def _changed(self, message: Message) -> bytes:
        head, parts = message
        wish = head.get("change")
        if not isinstance(wish, dict):
            raise RefusedError("the request is malformed (no change)")
        shape = planes_of(head, parts, "shape")["shape"] > 0 if "shape" in parts else None
        change = Change(wish, shape, self._reference(parts))
        return self.studio.message(self.studio.changed(self._scene(head, parts), change))

    async def edit(self, request: Request) -> Response:
        """A job that makes results."""
        async with self.desk.received(request) as message:
            wish = await run_in_threadpool(self._wish, message)
        return self.desk.queued(lambda job: carry_out(self.studio, wish, job), wish.count)

    def _wish(self, message: Message) -> EditRequest:
        head, parts = message
        scene = self._scene(head, parts)
        if not scene.mask.any():
            raise UserError("nothing is erased yet: change something, or draw with the mask brush")
        return EditRequest.of(self.studio.editor, scene, head, self._reference(parts))

    async def styles(self, request: Request) -> Response:
        """A job that shows the styles of a thing's class."""
        async with self.desk.received(request) as (head, parts):
            scene = await run_in_threadpool(self._scene, head, parts)
            wish = await run_in_threadpool(StylesRequest.of, self.studio.editor, scene, head)
        return self.desk.queued(lambda job: show_styles(self.studio.editor, wish, job), len(wish.numbers))

    def _reference(self, parts: dict[str, bytes]) -> Scene | None:
        return self._scene(*unpack(parts["reference"])) if "reference" in parts else None

    def _scene(self, head: dict[str, Any], parts: dict[str, bytes]) -> Scene:
        planes = planes_of(head, parts, "image", "label", "inst", "mask")
        if planes["inst"].min() < 0:
            raise RefusedError("the request is malformed (ids below 0)")
        maps = (planes["label"].astype("int32"), planes["inst"].astype("int32"), planes["mask"] > 0)
        return self.studio.scene(str(head.get("name", ""))[:200], planes["image"], *maps)
