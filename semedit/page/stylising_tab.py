"""The tab of a run that holds a style (S2PreST): a photograph is painted in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from data.streets.scene import render_street
from data.streets_dataset import scene_rng
from models import MODELS
from options.test_options import TestOptions
from semedit.page.commands import command_line, run_flags
from semedit.page.desk import Desk, names_in
from semedit.page.files import archive, checked_file, fitted, picture_png, plain_name
from semedit.page.guard import RefusedError
from semedit.page.jobs import Job
from testing.contents import Content, content_of
from testing.stylising import canvas, check_sizes, draws, place_of
from testing.stylising_flags import folder_of_style
from testing.stylising_flow import check_style_run, make_ready
from util.decode import NamedBytes
from util.errors import UserError
from util.opt import Opt
from util.pictures import read_photo

MOST_RESULTS = 4
LARGEST_SEED = 1 << 31
# What the page offers of test.py's flags: the kind of number, and its limits
NUMBERS: dict[str, tuple[type, float, float]] = {
    "style_guidance": (float, 0.05, 1), "steps": (int, 1, 250), "guidance": (float, 0, 50), "size": (int, 64, 1024),
    "seed": (int, 0, LARGEST_SEED - 1), "num_samples": (int, 1, MOST_RESULTS),
}  # fmt: skip
SHOWN = {
    "style_guidance": "strength", "steps": "number of steps", "guidance": "guidance", "size": "size",
    "seed": "seed", "num_samples": "number of results",
}  # fmt: skip


@dataclass(frozen=True)
class StyleRequest:
    """A photograph to stylise: its file, the arguments of test.py that do the same, and their options."""

    content: Content
    file: bytes
    line: list[str]
    opt: Opt


class StylisingTab:
    """A run with its style.

    Args:
        opt: of a command that takes a run.
        max_side: photographs are scaled down to so many pixels a side.
    """

    kind = "stylising"

    def __init__(self, opt: Opt, max_side: int) -> None:
        self.run, self.max_side, self.flags = opt.name, max_side, run_flags(opt)
        self.usual = TestOptions().parse([*self.flags, "--content", "picture.png"])
        run_dir = check_style_run(self.usual, self.run)
        method: Any = MODELS.get(opt.model)
        self.model: Any = method.from_options(self.usual, is_train=False)
        make_ready(self.usual, self.model, [run_dir])
        style: np.ndarray = self.model.style
        self.style = picture_png(fitted(style, max_side))

    def routes(self, desk: Desk) -> list[Route]:
        """Return what is answered; `desk` reads what is sent and queues what takes long."""
        self.desk = desk
        return [
            Route("/api/style", self.about, methods=["GET"]),
            Route("/api/style.png", self.style_picture, methods=["GET"]),
            Route("/api/style/example.png", self.example, methods=["GET"]),
            Route("/api/stylise", self.stylise, methods=["POST"]),
        ]

    async def about(self, request: Request) -> Response:
        """What the run is, and what may be asked of it."""
        usual = {name: getattr(self.usual, name) for name in NUMBERS}
        limits = {name: [low, high] for name, (_, low, high) in NUMBERS.items()}
        about = {"run": self.run, "model": self.usual.model, "usual": usual, "limits": limits}
        return JSONResponse({**about, "max_side": self.max_side})

    async def style_picture(self, request: Request) -> Response:
        """The picture whose style it is."""
        return Response(self.style, media_type="image/png")

    async def example(self, request: Request) -> Response:
        """A picture to try it on: a drawn street, which is there on every machine."""
        scene = await run_in_threadpool(render_street, scene_rng(0, "test", 0), height=384, width=512)
        return Response(picture_png(scene.image), media_type="image/png")

    async def stylise(self, request: Request) -> Response:
        """A job that paints a photograph in the style."""
        async with self.desk.received(request) as (head, parts):
            if "image" not in parts:
                raise RefusedError("no picture was sent")
            wish = await run_in_threadpool(self.wish, head, parts["image"])
        return self.desk.queued(lambda job: self.carry_out(wish, job), wish.opt.num_samples)

    def wish(self, head: Mapping[str, Any], sent: bytes) -> StyleRequest:
        """Return the request of a message; raises `UserError` for what cannot be used."""
        told = names_in(head).get("image", "picture")
        name = plain_name(told)
        rgb = read_photo(checked_file(sent, told, "picture")).rgb
        file = picture_png(fitted(rgb, self.max_side))
        line = [*self.flags, "--content", f"{name}.png", *_numbers(head)]
        opt = TestOptions().parse(line)
        content = content_of(opt, name, NamedBytes(file, told))
        check_sizes(opt, self.model, [content])
        return StyleRequest(content, file, line, opt)

    def carry_out(self, wish: StyleRequest, job: Job) -> None:
        """Make the results, and what repeats them."""
        opt, content, name = wish.opt, wish.content, wish.content.name
        size, folder = canvas(opt, self.model, content), folder_of_style(opt, self.run)
        packed: dict[str, bytes] = {}
        for k, (picture,) in enumerate(draws(opt, self.model, [content], size, [content.edges(size)])):
            packed[place_of(Path(folder), content, k).as_posix()] = made = picture_png(picture)
            job.add(f"{name}_styled.png" if k == 0 else f"{name}_styled_{k + 1}.png", made)
            job.step(k + 1)
        line = command_line("test", wish.line)
        job.tell(command=line, titles=[f"seed {opt.seed + k}" for k in range(opt.num_samples)])
        inputs = {f"{name}.png": wish.file, "command.txt": f"{line}\n".encode()}
        job.add(f"{name}.zip", archive({**packed, **inputs}))


def _numbers(head: Mapping[str, Any]) -> list[str]:
    """Return the arguments of `NUMBERS` in a message; raises `UserError` for those outside their limits."""
    line = []
    for name, (kind, low, high) in NUMBERS.items():
        value: Any = head.get(name)
        if type(value) not in (int, kind) or not low <= value <= high:
            whole = "a whole number " if kind is int else ""
            raise UserError(f"the {SHOWN[name]} is {whole}from {low:g} to {high:g}")
        line += [f"--{name}", str(value)]
    return line
