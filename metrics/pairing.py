"""Which files belong together: base names joined across the folders, and what is left over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from metrics.folders import Item, list_pictures, other_entries
from util.decode import picture_size
from util.errors import DataError

NAMED = 5  # files that a note names
Files = dict[str, Path]  # by base name


@dataclass(frozen=True)
class Pairing:
    """What the folders hold.

    Args:
        items: to be decoded, in the order of their names; of unpaired sets, one per picture.
        problems: what is wrong with a name.
        notes: what was not used, a line per folder.
    """

    items: list[Item]
    problems: dict[str, str]
    notes: list[str]


def pair_folders(real: str, fakes: Sequence[str], maps: Mapping[str, str], *, needs_pairs: bool) -> Pairing:
    """List the folders and join files of one base name.

    Without `needs_pairs`, folders of other names or sizes are two sets.

    Args:
        maps: folders by "masks", "labels", "instances", those that were given.

    Raises:
        DataError: a folder is missing or holds no picture.
    """
    problems: dict[str, str] = {}
    folders = [("--real", real), *(("--fake", fake) for fake in fakes), *((f"--{k}", path) for k, path in maps.items())]
    listed: list[Files] = []
    for flag, folder in folders:
        found, more = list_pictures(folder, flag)
        listed.append(found)
        problems |= more
    reals, draws = listed[0], listed[1 : 1 + len(fakes)]
    hints = [hint for (flag, folder), found in zip(folders[1:], listed[1:], strict=True)
             if (hint := _other_names(flag, folder, found, reals))]  # fmt: skip
    if needs_pairs and hints:
        raise DataError("\n".join(hints))
    found_maps = dict(zip(maps, listed[1 + len(fakes) :], strict=True))
    notes = [note for flag, folder in folders for note in _not_read(flag, folder)]
    if not needs_pairs and reals.keys() != draws[0].keys():
        return Pairing(_as_sets(draws[0], reals), problems, notes)
    names = sorted(set().union(reals, *draws), key=lambda name: f"{name}.")  # as of their files, which mask sets follow
    notes += [note for kind, found in found_maps.items() for note in _without_picture(kind, maps[kind], found, names)]
    items = []
    for name in names:
        lacking = [folder if flag == "--fake" else flag
                   for (flag, folder), found in zip(folders, listed, strict=True) if name not in found]  # fmt: skip
        if lacking:
            problems.setdefault(name, f"{name}: no file of this name in {', '.join(lacking)}")
        elif name not in problems:
            mask, label, inst = (found_maps.get(kind, {}).get(name) for kind in ("masks", "labels", "instances"))
            items.append(Item(name, [draw[name] for draw in draws], reals[name], mask, label, inst))
    if not needs_pairs and any(map(differ_in_size, items)):  # sets may share names and still differ in size
        items = [part for item in items for part in (replace(item, real=None), replace(item, fake=[]))]
        notes.append("--real and --fake have equal names but other sizes: taken as two sets, not as pairs")
    return Pairing(items, problems, notes)


def _as_sets(fakes: Files, reals: Files) -> list[Item]:
    items = [Item(name, [path], None) for name, path in fakes.items()]
    return items + [Item(name, [], path) for name, path in reals.items()]


def differ_in_size(item: Item) -> bool:
    """Return, from the files' headers, whether the two pictures of a pair differ in size; damaged files come later."""
    sizes = set()
    for path in (*item.fake, *([item.real] if item.real else [])):
        with suppress(DataError):
            sizes.add(picture_size(path))
    return len(sizes) > 1


def _not_read(flag: str, folder: str) -> list[str]:
    entries = other_entries(folder)
    if not entries:
        return []
    count = len(entries)
    what = "1 entry is not a picture and was" if count == 1 else f"{count} entries are not pictures and were"
    return [f"{flag} {folder}: {what} not read: {_some(entries)}"]


def _without_picture(kind: str, folder: str, found: Files, names: Sequence[str]) -> list[str]:
    alone = sorted(path.name for path in (found[name] for name in found.keys() - set(names)))
    if not alone:
        return []
    what = "1 file has no picture of its name and was" if len(alone) == 1 else (
        f"{len(alone)} files have no picture of their name and were")  # fmt: skip
    return [f"--{kind} {folder}: {what} not used: {_some(alone)}"]


def _other_names(flag: str, folder: str, found: Files, reals: Files) -> str:
    """Return a hint where no name is one of `reals` but all differ from these by one beginning and ending; else ''."""
    if found.keys() & reals.keys() or min(len(found), len(reals)) < 2:
        return ""
    cores = [_cores(found), _cores(reals)]
    shared = sorted(cores[0].keys() & cores[1].keys())
    if len(shared) < len(reals):
        return ""
    theirs, ours = (found[cores[0][shared[0]]].name, reals[cores[1][shared[0]]].name)
    return (
        f"{flag} {folder}: no file has the name of its real picture, but all {len(shared)} would fit under "
        f"other names: {theirs} belongs to {ours}, and so on; rename them so that both have one base name"
    )


def _cores(names: Iterable[str]) -> dict[str, str]:
    """Return names by what is left of them without the beginning and ending that all share."""
    names = list(names)
    start = _alike(names)
    end = _alike([name[start:][::-1] for name in names])
    return {name[start : len(name) - end]: name for name in names}


def _alike(names: Sequence[str]) -> int:
    """Return how many letters all names begin with."""
    columns = list(zip(*names, strict=False))
    return next((i for i, letters in enumerate(columns) if len(set(letters)) > 1), len(columns))


def _some(names: Sequence[str]) -> str:
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])
