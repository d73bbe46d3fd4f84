"""What a number was made with: the commit and the libraries."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "torch", "torchvision", "numpy", "pillow", "opencv-python", "scipy", "pytorch-fid", "diffusers", "transformers",
)  # fmt: skip


def current_commit() -> str | None:
    """Return the commit of this code, with '+' if files differ from it; None outside a git checkout."""
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def library_versions() -> dict[str, str]:
    """Return the installed versions of the libraries that numbers depend on."""
    found = {}
    for name in PACKAGES:
        with_version = _version(name)
        if with_version:
            found[name] = with_version
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
