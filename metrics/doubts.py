"""What is odd about folders of results that can be measured all the same: a note each, as the numbers alone hide it.

Shapes: H x W pixels; pictures (3,H,W) uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metrics.folders import LOSSY, Item, Loaded


class Doubts:
    """Looks at every picture that is measured, of several draws at the first.

    Args:
        items: their files.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._fake = [item.fake[0] for item in items if item.fake]
        self._real = [item.real for item in items if item.real]
        self._grey = {"fake": 0, "real": 0}
        self._seen = {"fake": 0, "real": 0}
        self._pairs = self._equal = 0
        self._generated = self._alike = 0  # pictures in which something was generated, and those as the truth there
        self._given = self._changed = self._changed_in = 0  # pixels, pixels, pictures
        self._files: dict[str, set[str]] = {"fake": set(), "real": set()}

    def add(self, loaded: Loaded) -> None:
        """Take a decoded item."""
        fake = None if loaded.draws is None else loaded.draws[0]
        for kind, picture in (("fake", fake), ("real", loaded.real)):
            if picture is not None:
                self._seen[kind] += 1
                self._grey[kind] += is_grey(picture)
        if fake is not None and loaded.real is not None:
            self._compare((fake != loaded.real).any(0), loaded.mask)
        else:
            for kind, digest in (loaded.hashes or {}).items():
                if kind in self._files and digest:
                    self._files[kind].add(digest)

    def _compare(self, differs: Tensor, mask: Tensor | None) -> None:
        self._pairs += 1
        self._equal += not bool(differs.any())
        erased = torch.ones_like(differs) if mask is None else mask[0] > 0
        if bool(erased.any()):
            self._generated += 1
            self._alike += not bool(differs[erased].any())
        changed = int(differs[~erased].sum())
        self._given += int((~erased).sum())
        self._changed += changed
        self._changed_in += changed > 0

    def notes(self) -> list[str]:
        """Return a sentence for each thing that is odd."""
        return [note for note in (self._of_truth(), self._of_given(), *self._of_sets()) if note]

    def _of_truth(self) -> str:
        if not self._alike:
            return ""
        if self._equal == self._pairs:
            return "every picture of --fake equals its real one pixel for pixel: was the truth given as the result?"
        if self._alike == self._generated:
            return (
                f"all masked pixels equal the truth in all {self._generated} pictures with a mask: are the masks "
                "inverted (white: generated), or is the truth given as the result?"
            )
        return f"{self._alike} of {self._generated} pictures equal the truth wherever they were generated"

    def _of_given(self) -> str:
        if not self._changed:
            return ""
        share = max(0.01, 100 * self._changed / self._given)
        return (
            f"{share:.2f} % of the given (unmasked) pixels differ from the truth, in {self._changed_in} of "
            f"{self._pairs} pictures: the method changes them, or the files are lossy (JPEG); seam and whole-picture "
            "values measure that too. Paste the given pixels back, and save as PNG, to compare what was generated"
        )

    def _of_sets(self) -> list[str]:
        notes = []
        if both := len(self._files["fake"] & self._files["real"]):
            notes.append(f"--real holds {both} of the files of --fake too, byte for byte")
        grey, seen = self._grey, self._seen
        if grey["fake"] * seen["real"] > grey["real"] * seen["fake"]:
            notes.append(f"{grey['fake']} of {seen['fake']} pictures of --fake are grey, {grey['real']} of "
                         f"{seen['real']} of --real")  # fmt: skip
        lossy = [sum(path.suffix.lower() in LOSSY for path in paths) for paths in (self._fake, self._real)]
        shares = [count / max(1, len(paths)) for count, paths in zip(lossy, (self._fake, self._real), strict=True)]
        if shares[0] != shares[1]:
            notes.append(
                f"{lossy[0]} of {len(self._fake)} files of --fake and {lossy[1]} of {len(self._real)} files of --real "
                f"are of a lossy format ({', '.join(extensions(self._fake + self._real))}): distances between the sets "
                "measure the compression too"
            )
        return notes


def is_grey(picture: Tensor) -> bool:
    """Return whether red, green and blue are equal in every pixel."""
    return bool((picture == picture[:1]).all())


def extensions(paths: Sequence[Path]) -> list[str]:
    """Return the endings of files, each once."""
    return sorted({path.suffix.lower() for path in paths})
