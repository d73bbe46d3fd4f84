"""Open a page to edit pictures in a browser: `python scripts/app.py --name RUN`, then http://127.0.0.1:7860.

Choose an example or drop a photograph, paint classes, erase, remove and move things, and see several results;
docs/editing.md says more. The page listens on this machine alone unless --host says otherwise.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from options.parser import StrictParser
from semedit.editor import Editor
from semedit.loading import EditorOptions
from semedit.page.studio import Studio
from util.errors import EXIT_OK, UserError, remedy, run_main
from util.flags import natural
from util.opt import Opt

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LEAST_SIDE, MOST_SIDE = 64, 2048


class AppOpt(Opt):
    """Options of this command."""

    host: str
    port: int
    max_side: int


class AppOptions(EditorOptions):
    """Options of scripts/app.py."""

    description = "Open a page to edit pictures in a browser."

    def add_flags(self, parser: StrictParser) -> None:
        """Add those of the server to those of a run that edits."""
        super().add_flags(parser)
        group = parser.add_argument_group("page")
        group.add_argument("--host", default="127.0.0.1",
                           help="address to listen on; 0.0.0.0 lets everybody in who reaches this machine")  # fmt: skip
        group.add_argument("--port", type=natural, default=7860, help="0: any that is free")
        group.add_argument("--max_side", type=natural, default=1024,
                           help="pictures that are opened are scaled down to so many pixels a side")  # fmt: skip

    def validate(self, opt: Opt) -> None:
        """Check what a flag's type cannot say; raises `UserError`."""
        super().validate(opt)
        own = cast(AppOpt, opt)
        if own.port > 65535:
            raise UserError(f"--port {own.port}: a number up to 65535")
        if not LEAST_SIDE <= own.max_side <= MOST_SIDE:
            raise UserError(f"--max_side {own.max_side}: from {LEAST_SIDE} to {MOST_SIDE} pixels")


def listening(host: str, port: int) -> socket.socket:
    """Return a socket on which the page is served; raises `UserError` where it cannot be."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        told = remedy(error) or error.strerror
        raise UserError(f"--host {host} --port {port}: cannot listen there ({told}); choose another --port") from error


def main(argv: list[str] | None = None) -> int:
    opt = AppOptions().parse(argv)
    own = cast(AppOpt, opt)
    try:
        import uvicorn

        from semedit.page.server import PageServer
    except ModuleNotFoundError as error:
        raise UserError(f"the page needs {error.name}: pip install -r requirements-app.txt") from error
    with listening(own.host, own.port) as place:
        server = PageServer(Studio(Editor(opt), own.max_side))
        port = place.getsockname()[1]
        shown = f"[{own.host}]" if ":" in own.host else own.host
        if own.host not in LOOPBACK:
            print(f"note: everybody who can reach {own.host} can use this page")
        print(f"{opt.name}: open http://{shown}:{port} in a browser; Ctrl-C ends the page", flush=True)
        config = uvicorn.Config(
            server.app(own.host), log_level="warning", access_log=False, server_header=False,
            limit_concurrency=128, timeout_keep_alive=10, timeout_graceful_shutdown=2,
        )  # fmt: skip
        try:
            uvicorn.Server(config).run(sockets=[place])
        except KeyboardInterrupt:  # uvicorn has closed all connections, and passes it on
            print("ended")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
