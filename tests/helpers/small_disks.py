"""Small file systems, to be filled."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE = "32m"  # holds a tiny run


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """Mount a small file system at a folder."""
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root that may mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, *, free: int) -> None:
    """Fill a file system but for `free` bytes."""
    with open(place / "filler", "wb") as file:
        usage = os.statvfs(place)
        left = usage.f_bavail * usage.f_frsize - free
        os.posix_fallocate(file.fileno(), 0, left)
