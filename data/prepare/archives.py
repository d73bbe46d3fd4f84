"""Files of a data set as its authors distribute it: zip and tar archives, or the folders that they unpack to.

Archives are read in place, one member at a time, so that nothing has to be unpacked.
"""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from util.decode import MOST_BYTES, NamedBytes
from util.errors import DataError, UserError
from util.listing import check_name, files_below

MOST_GROWTH = 100  # times the size of a compressed tar: pictures never unpack to more
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Member:
    """A file inside an archive; cheap to send to another process."""

    archive: Path
    name: str

    def __str__(self) -> str:
        return f"{self.archive}: {self.name}"

    def read(self) -> bytes:
        """Return the content; raises `DataError` if it is damaged."""
        try:
            archive = _open_archive(self.archive)
            if isinstance(archive, zipfile.ZipFile):
                return archive.read(self.name)
            member = archive.extractfile(self.name)
            assert member is not None, "only regular files are listed"
            return member.read()
        except MemoryError:
            raise
        except Exception as error:  # zlib.error, EOFError, NotImplementedError, ...
            raise DataError(f"{self}: the member is damaged ({error}); fetch the archive again") from error


Source = Path | Member


def opened(source: Source) -> Path:
    """Return what the readers of `util.images` take: the path, or a member's bytes (typed as a path for them)."""
    if isinstance(source, Member):
        return NamedBytes(source.read(), str(source))  # type: ignore[return-value]
    return source


def content(source: Source) -> bytes:
    """Return the bytes of a file."""
    return source.read() if isinstance(source, Member) else source.read_bytes()


Archive = zipfile.ZipFile | tarfile.TarFile


def _open_archive(path: Path) -> Archive:
    state = path.stat()
    return _open_once(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _open_once(path: Path, changed: int, size: int) -> Archive:
    """Open an archive once per process, and again if the file has changed."""
    try:
        if zipfile.is_zipfile(path):
            return zipfile.ZipFile(path)
        if not tarfile.is_tarfile(path):
            raise DataError(f"{path}: not a whole zip or tar archive; a partial download? Fetch it again")
        archive = tarfile.open(path)  # noqa: SIM115 (kept open)
        _read_heads(archive, path, limit=MOST_GROWTH * size + MOST_BYTES)
    except (DataError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{path}: the archive is damaged ({error}); fetch it again") from error
    return archive


def _read_heads(archive: tarfile.TarFile, path: Path, *, limit: int) -> None:
    """Find all members; raises `DataError` for a compressed archive that unpacks to more than `limit` bytes."""
    for info in archive:
        if info.offset_data + info.size > limit:
            raise DataError(f"{path}: unpacks to over {MOST_GROWTH} times its size with '{info.name}'; no pictures do")


def _members(archive: Archive) -> list[tuple[str, int, bool]]:
    """Return name and size of all members but folders, and whether each is a link or device."""
    if isinstance(archive, tarfile.TarFile):
        return [(info.name, info.size, not info.isfile()) for info in archive.getmembers() if not info.isdir()]
    files = [info for info in archive.infolist() if not info.filename.endswith("/")]  # is_dir() fails without a name
    return [(info.filename, info.file_size, stat.S_ISLNK(info.external_attr >> 16)) for info in files]


def _check_member(path: Path, name: str, size: int, *, is_link: bool) -> None:
    """Refuse links, devices, what is larger than any picture, and names that lead out of the folder to unpack to."""
    if is_link:
        raise DataError(f"{path}: '{name}' is a link or device; pack the files themselves (tar --dereference)")
    if size > MOST_BYTES:
        raise DataError(f"{path}: '{name}' unpacks to {size >> 20} MiB; at most {MOST_BYTES >> 20} are read")
    parts = PurePosixPath(name).parts
    if not name or name.startswith("/") or ".." in parts or "\\" in name or re.match(r"[A-Za-z]:", name):
        raise DataError(f"{path}: unsafe member path '{name}'; this is not an official archive")
    check_name(name, path)


def list_files(path: Path) -> dict[str, Source]:
    """Return every file of an archive or folder by its path with '/', e.g. "gtFine/train/aachen/x.png".

    A folder's own name comes first, as in the archive that it was unpacked from. Hidden files are left out.

    Raises:
        UserError: there is no such file or folder.
        DataError: a damaged archive, or one with unsafe paths.
    """
    if path.is_dir():
        path = path.resolve()
        sources: dict[str, Source] = {file.relative_to(path.parent).as_posix(): file for file in files_below(path)}
    elif not path.is_file():
        raise UserError(f"--source {path}: no such archive or folder")
    else:
        members = _members(_open_archive(path))
        for name, size, is_link in members:
            _check_member(path, name, size, is_link=is_link)
        sources = {name: Member(path, name) for name, _, _ in members}
    return {name: source for name, source in sources.items() if not PurePosixPath(name).name.startswith(".")}


@dataclass(frozen=True)
class Found:
    """Files of one kind by (split, base name), and the archives or folders that they are in."""

    files: dict[tuple[str, str], Source]
    where: str

    def check_complete(self, wanted: Sequence[tuple[str, str]], path_of: str) -> None:
        """Raise `DataError` naming the archive and the first missing members.

        Args:
            wanted: (split, base name) of the files that must be there.
            path_of: format of a member's path with {split}, {name} and, for its first part, {group}.
        """
        missing = [key for key in wanted if key not in self.files]
        if missing:
            names = [path_of.format(split=s, name=n, group=n.split("_")[0]) for s, n in missing[:_SHOWN]]
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise DataError(
                f"{self.where} lacks {', '.join(names)}{more}. The archive is partial, or only partly unpacked: "
                "fetch it again"
            )


class SourceSet:
    """All files of the archives and folders given to `--source`."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.listings = {path: list_files(path) for path in paths}

    def find(self, pattern: str, *, archive: str) -> Found:
        """Return the files whose whole path matches a pattern with the groups `split` and `name`.

        Args:
            pattern: regular expression of the end of the path; it begins at a folder.
            archive: official name of what should hold them, for the message.

        Raises:
            UserError: there is none.
        """
        compiled = re.compile(rf"(?:.*/)?{pattern}")
        files: dict[tuple[str, str], Source] = {}
        where = []
        for path, listing in self.listings.items():
            matches = [(m, source) for name, source in listing.items() if (m := compiled.fullmatch(name))]
            files |= {(m["split"], m["name"]): source for m, source in matches}
            where += [str(path)] if matches else []
        if not files:
            raise UserError(f"--source: {archive} is missing, or is another archive: {self._summary()}")
        return Found(files, ", ".join(where))

    def one(self, name: str, *, archive: str) -> Source:
        """Return the file of a base name, in any folder; raises `UserError` if there is none."""
        for listing in self.listings.values():
            for path, source in listing.items():
                if PurePosixPath(path).name == name:
                    return source
        raise UserError(f"--source: {name} is missing; it is part of {archive}. Given: {self._summary()}")

    def _summary(self) -> str:
        """Say what was given: each source with its topmost folders."""
        parts = []
        for path, listing in self.listings.items():
            tops = sorted({"/".join(PurePosixPath(name).parts[:2]) for name in listing})
            parts.append(f"{path} holds {', '.join(tops[:4]) or 'nothing'}{', ...' if len(tops) > 4 else ''}")
        return "; ".join(parts)
