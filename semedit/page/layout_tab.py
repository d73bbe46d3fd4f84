"""The tab of a run of one picture (SemIA): its layout is painted anew, and the picture rendered for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from semedit.page.commands import command_line, run_flags
from semedit.page.desk import Desk, binary
from semedit.page.files import archive, inst_png, picture_png, plain_name
from semedit.page.jobs import Job
from semedit.page.parts import MOST_PIXELS, pack, plane_bytes, planes_of
from testing.analogy_edit import LayoutEditor
from util.decode import NamedBytes
from util.errors import UserError
from util.opt import Opt


@dataclass(frozen=True)
class Layout:
    """A painted layout: its file, and where (H, W) the picture is rendered anew."""

    file: bytes
    mask: np.ndarray


class LayoutTab:
    """A run that knows one picture.

    Args:
        opt: of a command that takes a run.
    """

    kind = "analogy"

    def __init__(self, opt: Opt) -> None:
        self.opt, self.run, self.editor = opt, opt.name, LayoutEditor(opt)
        dataset = self.editor.dataset
        self.name, self.classes = plain_name(dataset.image_path.name), dataset.layouts
        self.stored = dataset.reader.stored_layout(dataset.label_path)
        self.label = self.classes.nearest(self.stored)
        height, width = self.label.shape
        if width * height > MOST_PIXELS:
            raise UserError(
                f"{dataset.image_path}: {width}x{height} pixels; the page takes {MOST_PIXELS / 1e6:.1f} million. Edit "
                "it by scripts/edit.py"
            )

    def routes(self, desk: Desk) -> list[Route]:
        """Return what is answered; `desk` reads what is sent and queues what takes long."""
        self.desk = desk
        return [
            Route("/api/layout", self.about, methods=["GET"]),
            Route("/api/layouts", self.edit, methods=["POST"]),
        ]

    async def about(self, request: Request) -> Response:
        """The run's picture with its layout, as a scene whose classes are the layout's colours."""
        colours = self.classes.colours.tolist()
        head = {
            "name": self.name, "size": [self.label.shape[1], self.label.shape[0]], "objects": [], "notes": [],
            "run": self.run, "model": self.opt.model,
            "classes": [{"name": n, "colour": c} for n, c in zip(self.classes.names, colours, strict=True)],
        }  # fmt: skip
        planes = {"image": self.editor.image, "label": self.label, "inst": self.label, "mask": 0 * self.label}
        return binary(pack(head, {name: plane_bytes(name, values) for name, values in planes.items()}))

    async def edit(self, request: Request) -> Response:
        """A job that renders the picture for a layout."""
        async with self.desk.received(request) as message:
            layout = await run_in_threadpool(self.painted, *message)
        return self.desk.queued(lambda job: self.carry_out(layout, job))

    def painted(self, head: dict[str, Any], parts: dict[str, bytes]) -> Layout:
        """Return the layout of a message; what is not repainted stays as it is stored, with its soft borders."""
        planes = planes_of(head, parts, "label", "mask")
        label, mask = planes["label"], planes["mask"] > 0
        if label.shape != self.label.shape:
            raise UserError(f"the layout is {label.shape[1]}x{label.shape[0]}, the run's picture another size")
        if label.max() >= len(self.classes.names):
            raise UserError(f"the layout has a class {label.max()}; the run knows {len(self.classes.names)}")
        if not mask.any():
            raise UserError("nothing is to be rendered: paint, or ask for the whole picture")
        kept = label == self.label
        if self.classes.kind == "ids":
            ids = np.where(kept, self.stored, self.classes.ids[label])
            return Layout(inst_png(ids, rgb=False), mask)
        return Layout(picture_png(np.where(kept[..., None], self.stored, self.classes.colours[label])), mask)

    def carry_out(self, layout: Layout, job: Job) -> None:
        """Make the result, and what repeats it."""
        name = self.name
        picture = self.editor.edited(NamedBytes(layout.file, "the layout"), layout.mask)
        job.add(f"{name}_edit.png", picture_png(picture))
        files = [*("--image", f"{name}.png"), *("--label", f"{name}_layout.png"), *("--mask", f"{name}_mask.png")]
        line = command_line("edit", [*run_flags(self.opt), *files, "--output", f"{name}_edit.png"])
        job.tell(command=line, titles=["rendered"])
        inputs = {
            f"{name}.png": picture_png(self.editor.image),
            f"{name}_layout.png": layout.file,
            f"{name}_mask.png": picture_png(255 * layout.mask.astype(np.uint8)),
            "command.txt": f"{line}\n".encode(),
        }
        job.add(f"{name}.zip", archive({**job.files, **inputs}))
