"""What comes back for a pack: every picture there, of its size, changed inside its mask and nowhere else.

Shapes: pictures (H,W,3) uint8, masks (H,W) bool.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metrics.folders import list_pictures, read_exact
from testing.packs.forms import FORMS, Picture
from testing.packs.pack import Pack
from util.errors import DataError
from util.images import save_png
from util.progress import progress

LISTED = 5


@dataclass
class Given:
    """What was done to the given (unmasked) pixels: `changed` of `pixels`, in `changed_in` of `pictures`."""

    pixels: int = 0
    changed: int = 0
    pictures: int = 0
    changed_in: int = 0
    inverted: int = 0  # pictures that changed more outside their mask than inside
    judged: int = 0  # pictures that could have

    def add(self, result: np.ndarray, item: Picture) -> None:
        """Take a result."""
        steps = np.abs(result.astype(np.int16) - item.image).sum(2)
        inside, outside = steps[item.mask], steps[~item.mask]
        changed = int((outside > 0).sum())
        self.pixels += outside.size
        self.changed += changed
        self.pictures += 1
        self.changed_in += changed > 0
        if inside.size and outside.size:
            self.judged += 1
            self.inverted += bool(outside.mean() > inside.mean())

    def told(self) -> str:
        """Say how many were changed."""
        share = max(0.01, 100 * self.changed / max(1, self.pixels))
        return f"{self.changed} given pixels ({share:.2f} %), in {self.changed_in} of {self.pictures} pictures"

    def fields(self) -> dict[str, Any]:
        """Return the counts for a result line."""
        return {"pixels": self.changed, "of": self.pixels, "pictures": self.changed_in}


def find_results(pack: Pack, folder: Path, form: str | None) -> dict[str, Path]:
    """Return the file of every picture: named as in the pack, or as the project of a form names results.

    Raises:
        DataError: some are missing.
    """
    found, problems = list_pictures(str(folder), "results")
    named = FORMS[form].result if form else "{name}.png"
    stems = {name: Path(named.format(name=name)).stem for name in pack.texts}
    missing = [name for name, stem in stems.items() if stem not in found]
    if missing:
        more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        doubled = "; ".join(list(problems.values())[:LISTED])
        hint = "" if form or not _of_form(pack, found) else f"; they are named as --form {_of_form(pack, found)} does"
        raise DataError(f"{folder}: {len(missing)} of {len(stems)} pictures are missing: {', '.join(missing[:LISTED])}"
                        f"{more}{hint}{f' ({doubled})' if doubled else ''}")  # fmt: skip
    return {name: found[stem] for name, stem in stems.items()}


def _of_form(pack: Pack, found: dict[str, Path]) -> str:
    """Return the form whose results have these names; empty if none."""
    for name, form in FORMS.items():
        if all(Path(form.result.format(name=each)).stem in found for each in pack.texts):
            return name
    return ""


def take_results(pack: Pack, files: dict[str, Path], target: Path, *, paste_known: bool) -> Given:
    """Check the results of a pack and save them as PNG in `target`, under the pack's names; return what was changed.

    Args:
        paste_known: put the given pixels back instead of refusing results that changed them.

    Raises:
        DataError: a picture of another size or kind; masks of the other polarity; given pixels were changed.
    """
    given = Given()
    for name, path in progress(files.items(), desc="checking", unit="picture"):
        item = pack.item(name)
        result, _ = read_exact(path)
        if result.shape != item.image.shape:
            raise DataError(f"{path}: {result.shape[1]}x{result.shape[0]} pixels, the pack's picture has "
                            f"{item.image.shape[1]}x{item.image.shape[0]}; results are not to be resized")  # fmt: skip
        given.add(result, item)
        save_png(np.where(item.mask[..., None], result, item.image) if paste_known else result, target / f"{name}.png")
    if 2 * given.inverted > given.judged:
        raise DataError(
            f"{given.inverted} of {given.judged} pictures changed more outside their masks than inside: the method "
            "took black for what is to be generated. In mask/ white is; --form of scripts/pack_benchmark.py writes "
            "masks as other projects read them"
        )
    if given.changed and not paste_known:
        raise DataError(f"the results changed {given.told()}: save them as PNG, or give --paste_known to put the given "
                        "pixels back, which the result line will say")  # fmt: skip
    return given
