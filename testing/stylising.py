"""Contents in the style of a run (S2PreST): at which size, how many at a time, and where their pictures go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from models.s2prest_model import S2PreSTModel
from testing.contents import Content
from testing.stylising_flags import coefficients
from util.device import autocast
from util.errors import UserError
from util.images import read_image, save_png
from util.opt import Opt
from util.pictures import canvas_size, resized
from util.progress import progress

MOST_PIXELS = 1 << 22  # of a canvas: 2048 x 2048


def check_sizes(opt: Opt, model: S2PreSTModel, contents: list[Content]) -> None:
    """Raise `UserError` if --size is too small for the UNet, or makes a canvas of more than `MOST_PIXELS`."""
    least = model.frozen.smallest_side
    for content in contents:
        width, height = canvas(opt, model, content)
        if min(width, height) < least:
            raise UserError(f"--size {opt.size}: this base model needs at least {least} pixels a side")
        if width * height > MOST_PIXELS:
            raise UserError(
                f"{content.path}: {content.size[0]}x{content.size[1]} would be computed at {width}x{height}, and at "
                f"most {MOST_PIXELS / 1e6:.1f} million pixels are; cut it, lower --size {opt.size}, or squeeze it into "
                "a square with --no-keep_aspect"
            )


def canvas(opt: Opt, model: S2PreSTModel, content: Content) -> tuple[int, int]:
    """Return (width, height) that a content is computed at."""
    return canvas_size(*content.size, side=opt.size, multiple=model.frozen.factor, keep_aspect=opt.keep_aspect)


def stylise_all(opt: Opt, model: S2PreSTModel, contents: list[Content], folder: Path, name: str) -> None:
    """Stylise all contents, and save results and edge maps at the contents' own sizes."""
    with progress(total=len(contents), desc=name, unit="picture") as bar:
        for size, group in batches(opt, model, contents):
            edges = [content.edges(size) for content in group]
            for k, pictures in enumerate(draws(opt, model, group, size, edges)):
                for content, picture in zip(group, pictures, strict=True):
                    save_png(picture, place_of(folder, content, k))
            for content, drawn in zip(group, edges, strict=True):
                save_png(resized(drawn, content.size), folder / "canny" / f"{content.name}.png")
            bar.update(len(group))


def draws(
    opt: Opt, model: S2PreSTModel, group: Sequence[Content], size: tuple[int, int], edges: Sequence[np.ndarray]
) -> Iterator[list[np.ndarray]]:
    """Yield --num_samples times the stylised pictures of contents that are computed at one size, with their alpha."""
    photos = [content.photo() for content in group]
    scaled, lines = [resized(photo.rgb, size) for photo in photos], [resized(drawn, size) for drawn in edges]
    for k in range(opt.num_samples):
        with autocast(model.frozen.device, opt.precision):
            stylised = model.stylise(scaled, lines, [opt.seed + k] * len(group), coefficients(opt))
        pictures = []
        for content, photo, result in zip(group, photos, stylised, strict=True):
            whole = composite(photo.rgb, resized(result, content.size), content.mask())
            pictures.append(whole if photo.alpha is None else np.dstack([whole, photo.alpha]))
        yield pictures


def batches(opt: Opt, model: S2PreSTModel, contents: list[Content]) -> Iterator[tuple[tuple[int, int], list[Content]]]:
    """Yield at most --batch_size contents that are computed at one size, with that size."""
    groups: dict[tuple[int, int], list[Content]] = {}
    for content in contents:
        groups.setdefault(canvas(opt, model, content), []).append(content)
    for size, group in groups.items():
        for i in range(0, len(group), opt.batch_size):
            yield size, group[i : i + opt.batch_size]


def composite(picture: np.ndarray, result: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return the result where the mask allows it, the content's own pixels elsewhere."""
    return result if mask is None else np.where(mask[..., None], result, picture)


def place_of(folder: Path, content: Content, draw: int) -> Path:
    """Return where a content's draw 0, 1, ... is saved."""
    return folder / ("stylized" if draw == 0 else f"stylized_{draw + 1}") / f"{content.name}.png"


def read_result(folder: Path, content: Content, draw: int) -> np.ndarray:
    """Return a stylised picture as it was saved."""
    return read_image(place_of(folder, content, draw))
