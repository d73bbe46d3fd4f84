"""What a number was made with: the commit, the libraries, the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from util.errors import UserError
from util.files import cause

VERSION = "0.1.0"
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scipy", "pytorch-fid", "diffusers", "transformers")


def current_commit() -> str | None:
    """Return the commit of this code, with '+' if files differ from it; None outside a git checkout."""
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def library_versions() -> dict[str, str]:
    """Return the installed versions of the libraries that numbers depend on."""
    return {name: version for name in PACKAGES if (version := _version(name))}


def this_machine() -> str:
    """Return the processor's name and the number of its cores that may be used."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = next(filter(None, names), platform.processor() or platform.machine() or "processor not known")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{name}, {cores} core{'s' if cores > 1 else ''}"


@contextmanager
def torchvision_pair() -> Iterator[None]:
    """Context of imports from torchvision, or from packages that import it.

    Raises:
        UserError: it is missing, or was built for another torch; the message names the version that fits.
    """
    try:
        yield
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # as "torchvision::nms does not exist"
        torch, torchvision = _version("torch") or "none", _version("torchvision") or "none"
        minor = torch.split(".")[1] if torch.startswith("2.") else ""  # torch 2.N goes with torchvision 0.(N + 15)
        fitting = f"torchvision==0.{int(minor) + 15}.*" if minor.isdigit() else "the torchvision of its release"
        raise UserError(
            f"torchvision cannot be used ({cause(error)}): torch {torch} and torchvision {torchvision} are installed, "
            f"and the two must be of one pair. `pip install '{fitting}'` fits this torch; take both from one index "
            "(requirements.lock has a pair that was tried)"
        ) from error


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
