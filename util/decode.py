"""Safe decoding of picture files: few formats, regular files of bounded size, complete, one picture each."""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from PIL import ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from util.errors import DataError
from util.files import cause

# The only ones tried, whatever a file's name says: Pillow knows forty more, of which EPS starts a program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")
assert TiffImagePlugin and WebPImagePlugin  # imported to be known: Pillow would load all its formats to find them
MOST_PIXELS = 1 << 27  # of a picture: 134 million, 400 MB as RGB
MOST_BYTES = 1 << 30  # of a file
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `MOST_PIXELS` is an error, always
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")  # damaged metadata


class NamedBytes(io.BytesIO):
    """Bytes that picture readers accept as a file; `str()` says where they came from, for messages."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self._name = name

    def __str__(self) -> str:
        return self._name


class Decoded(NamedTuple):
    """A decoded picture, and how its file stores the values ("RGB;16B"), which Pillow may cut to 8 bit."""

    picture: Image.Image
    stored: str


def decode(file: str | os.PathLike[str] | NamedBytes, what: str) -> Decoded:
    """Decode a whole file and turn it as its EXIF orientation says.

    Pillow refuses truncated data, where OpenCV silently fills the rest with grey.

    Args:
        file: its path, or its content.
        what: "picture", "label map": for messages.

    Raises:
        DataError: missing, not a regular file, of another format, too large, with several pictures, or damaged.
    """
    with _opened(file, what) as picture:
        layout = picture.tile[0][3] if picture.tile else ""
        stored = layout[0] if isinstance(layout, tuple) else layout
        picture.load()
        return Decoded(upright(picture), stored if isinstance(stored, str) else "")


def picture_size(file: str | os.PathLike[str] | NamedBytes, what: str = "picture") -> tuple[int, int]:
    """Return width and height, as `decode` turns it, from the file's header; raises `DataError` as `decode` does."""
    with _opened(file, what) as picture:
        turned = orientation(picture) > 4 and picture.format != "TIFF"  # whose size Pillow has turned already
        return picture.size[::-1] if turned else picture.size


def rotation_note(file: str | os.PathLike[str]) -> str:
    """Return a note on a picture that is turned when it is read; empty for others."""
    with _opened(file, "picture") as picture:
        value = orientation(picture)
    return f"{file}: turned or mirrored as its EXIF orientation ({value}) says" if value != 1 else ""


def upright(picture: Image.Image) -> Image.Image:
    """Return a loaded picture turned as its EXIF orientation says."""
    return picture if orientation(picture) == 1 else ImageOps.exif_transpose(picture)


def orientation(picture: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8: 1 is upright, above 4 sides are exchanged; 1 if none can be read."""
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1  # Pillow would decode the whole file to look for it
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of damaged metadata: struct.error, SyntaxError, ValueError, ...
        return 1
    return value if value in range(1, 9) else 1


def read_regular(path: str | os.PathLike[str], what: str) -> bytes:
    """Return the content of a regular file of at most `MOST_BYTES`; raises `DataError` for others."""
    _check_file(path, what)
    with open(path, "rb") as file:
        return file.read()


def _check_file(path: str | os.PathLike[str], what: str) -> None:
    """Refuse files that cannot be pictures before opening them: reading a pipe or a device might never end."""
    try:
        state = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path}: the {what} does not exist") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the {what} cannot be read ({cause(error)})") from error
    if not stat.S_ISREG(state.st_mode):
        raise DataError(f"{path}: the {what} is a folder, pipe or device, not a regular file; replace or remove it")
    if state.st_size > MOST_BYTES:
        raise DataError(
            f"{path}: the {what} is a file of {state.st_size >> 20} MiB; at most {MOST_BYTES >> 20} are read"
        )


@contextmanager
def _opened(file: str | os.PathLike[str] | NamedBytes, what: str) -> Iterator[ImageFile.ImageFile]:
    """Open a file and check its header; whatever Pillow raises in the block is a `DataError`."""
    if not isinstance(file, NamedBytes):
        _check_file(file, what)
    try:
        with Image.open(file, formats=FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise DataError(
                    f"{file}: the {what} has {picture.width}x{picture.height} pixels; at most "
                    f"{MOST_PIXELS / 1e6:.0f} million are read. Scale it down or cut it"
                )
            if _has_several(picture):
                raise DataError(f"{file}: the {what} holds several pictures; save the one that is meant")
            yield picture
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DataError(
            f"{file}: the {what} cannot be decoded: it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file, "
            "whatever its name says; save it as PNG, or replace it"
        ) from error
    except Exception as error:  # of a damaged file: struct.error, KeyError, zlib.error, DecompressionBombError, ...
        raise DataError(f"{file}: the {what} cannot be decoded ({cause(error)}); replace or remove the file") from error


def _has_several(picture: Image.Image) -> bool:
    if picture.format == "MPO":  # a JPEG of a camera, with previews behind the picture
        return False
    if picture.format != "TIFF":
        return getattr(picture, "n_frames", 1) > 1
    try:  # to count them, Pillow would visit all
        picture.seek(1)
    except EOFError:
        return False
    return True
