"""Listing of folders: sorted, following links, and only with names that are UTF-8."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from util.errors import DataError


def entries(folder: Path) -> list[Path]:
    """Return what a folder holds, sorted by name and without hidden files, such as the `._x.png` of macOS.

    Raises:
        DataError: a name that is not UTF-8.
    """
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in paths:
        check_name(path.name, folder)
    return paths


def files_by_name(folder: Path, endings: tuple[str, ...], problems: list[str]) -> dict[str, Path]:
    """Return the folder's files of these endings by base name, sorted; hidden ones are left out.

    Of two files of one name the first is returned, and `problems` gets a sentence about the second.
    """
    files: dict[str, Path] = {}
    for path in entries(folder):
        if path.suffix.lower() not in endings:
            continue
        if path.stem in files:
            problems.append(f"{path}: a second file of this name beside {files[path.stem].name}; keep one")
        files.setdefault(path.stem, path)
    return files


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, sorted; links to files and folders are followed, wherever they lead.

    Each real folder is read once: a link to one that was read, such as a loop, is reported and left out. Raises
    `DataError` as `entries` does.
    """
    seen = set()
    pending = [folder]
    while pending:
        path = pending.pop()
        state = path.stat()
        if (state.st_dev, state.st_ino) in seen:
            print(f"note: {path} is a link to a folder that is read already: left out")
            continue
        seen.add((state.st_dev, state.st_ino))
        inner = entries(path)
        yield from (entry for entry in inner if not entry.is_dir())
        pending += reversed([entry for entry in inner if entry.is_dir()])


def is_file_name(name: str) -> bool:
    """Whether a name out of somebody else's file is that of a file: joined to a folder, it does not lead out of it."""
    return bool(name) and not name.startswith(".") and not re.search(r"[/\\\0]", name)


def check_name(name: str, place: Path) -> None:
    """Raise `DataError` if a file's name is not UTF-8: no result or report could hold it."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise DataError(f"{place}: the name '{shown}' in it is not UTF-8; rename it") from error
