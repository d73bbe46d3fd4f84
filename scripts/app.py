"""Open a page to edit pictures in a browser: `python scripts/app.py --name RUN`, then http://127.0.0.1:7860.

Choose an example or drop a photograph, paint classes, erase, remove and move things, and see several results. Runs of
SemIA and S2PreST have pages of their own, and --tabs puts several kinds into one; docs/editing.md says more. The page
listens on this machine alone unless --host says otherwise.
"""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from models import MODELS
from options.base_options import Options
from options.parser import StrictParser
from semedit.loading import EditorOptions
from util.errors import EXIT_OK, UserError, remedy, run_main
from util.flags import natural
from util.opt import Opt

PRETRAINED = Path("checkpoints/pretrained/divsem")  # of `make pretrained`
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LEAST_SIDE, MOST_SIDE = 64, 2048


class AppOpt(Opt):
    """Options of this command."""

    host: str
    port: int
    max_side: int
    tabs: str | None


class AppOptions(EditorOptions):
    """Options of scripts/app.py."""

    takes_styles = True
    description = "Open a page to edit pictures in a browser."

    def parse(self, argv: list[str] | None = None) -> Options:
        """Parse the command line; without --name, the pretrained run is taken."""
        argv = sys.argv[1:] if argv is None else argv
        probe = self.typed(argv)
        if not (probe.name or probe.help or probe.config):
            if not PRETRAINED.is_dir():
                raise UserError(
                    "--name is missing: which run? `make pretrained` makes one on street scenes in 20 minutes, which "
                    "is taken when no other is named; `make demo` a small one in minutes, for --name demo_divsem"
                )
            argv = [*argv, "--name", str(PRETRAINED)]
        return super().parse(argv)

    def typed(self, argv: list[str]) -> argparse.Namespace:
        """Return what a command line says of the run, before it is known."""
        return self._probe(argv)

    def add_flags(self, parser: StrictParser) -> None:
        """Add those of the server to those of a run that edits."""
        super().add_flags(parser)
        group = parser.add_argument_group("page")
        group.add_argument("--host", default="127.0.0.1",
                           help="address to listen on; 0.0.0.0 lets everybody in who reaches this machine")  # fmt: skip
        group.add_argument("--port", type=natural, default=7860, help="0: any that is free")
        group.add_argument("--tabs", metavar="RUN,RUN",
                           help="further runs in tabs of their own: of SemIA, of S2PreST")  # fmt: skip
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


def run_options(opt: Opt, argv: list[str]) -> list[Opt]:
    """Return the options of all runs, of one kind each; raises `UserError` for an unknown run, or a second of a kind.

    Args:
        opt: of the first.
        argv: of the command; a --name with a slash does not say where the others are.
    """
    own, options = cast(AppOpt, opt), AppOptions()
    where = ["--checkpoints_dir", options.typed(argv).checkpoints_dir]
    for flag in ("device", "precision"):
        if vars(opt)["_set_by"][flag] != "default":
            where += [f"--{flag}", getattr(opt, flag)]
    names = filter(None, (part.strip() for part in (own.tabs or "").split(",")))
    try:
        runs = [opt, *(options.parse([*where, "--name", name]) for name in names)]
    except UserError as error:
        raise UserError(f"--tabs {own.tabs}: {error}") from error
    kinds: dict[str, Opt] = {}
    for run in runs:
        kind = MODELS.get(run.model).flow
        if kind in kinds:
            raise UserError(f"--tabs {own.tabs}: {run.name} and {kinds[kind].name} ({run.model}) would need one tab; "
                            "start a page for each, with another --port")  # fmt: skip
        kinds[kind] = run
    return runs


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    opt = AppOptions().parse(argv)
    own = cast(AppOpt, opt)
    try:
        import uvicorn

        from semedit.page.server import PageServer
        from semedit.page.tabs import make_tab
    except ModuleNotFoundError as error:
        raise UserError(f"the page needs {error.name}: pip install -r requirements-app.txt") from error
    with listening(own.host, own.port) as place:
        runs = run_options(opt, argv)
        server = PageServer([make_tab(run, own.max_side) for run in runs])
        port = place.getsockname()[1]
        shown = f"[{own.host}]" if ":" in own.host else own.host
        if own.host not in LOOPBACK:
            print(f"note: everybody who can reach {own.host} can use this page")
        names = ", ".join(run.name for run in runs)
        print(f"{names}: open http://{shown}:{port} in a browser; Ctrl-C ends the page", flush=True)
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
