"""Commands that make the page's results again, as a person types them where the page was started."""

from __future__ import annotations

import shlex
from typing import Any

from util.errors import UserError
from util.opt import Opt

NOT_OF_THE_RUN = frozenset(
    "name checkpoints_dir host port max_side tabs segmenter segmenter_weights segmenter_classes segmenter_rename trust "
    "palette color_tolerance label_map seed config".split()
)  # flags of the page that its commands do not pass on as they are
INSTALLED = UserError.__module__.startswith("semedit.")  # as a package, in which there are no scripts
PROGRAMS = {"edit": "python scripts/edit.py", "test": "python test.py"}


def run_flags(opt: Opt) -> list[str]:
    """Return the flags that name a run, with those that were given for it when the page was started."""
    line = ["--name", opt.name]
    if opt.checkpoints_dir != "checkpoints":
        line += ["--checkpoints_dir", opt.checkpoints_dir]
    for flag, layer in sorted(vars(opt)["_set_by"].items()):
        if layer in ("command line", "config") and flag not in NOT_OF_THE_RUN:
            line += _flag(flag, getattr(opt, flag))
    return line


def _flag(name: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", str(value)]


def command_line(command: str, arguments: list[str]) -> str:
    """Return a command of `PROGRAMS` with its arguments, as a shell takes it."""
    return f"{f'semedit-{command}' if INSTALLED else PROGRAMS[command]} {shlex.join(arguments)}"
