"""Pack a data set into few large files: `python scripts/pack_dataset.py --dataroot datasets/mine --output packed/mine`.

Writes each split's pictures, label and instance maps, unchanged, as tar shards in WebDataset's layout, with an index
(data/packed.py). `--dataroot packed/mine`, or the http(s) address where the folder is served, with the --dataset_mode
of before then gives the same samples. Run again to continue after an interruption: finished shards are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from data.packed import FORMAT, MANIFEST, PARTS, Row, content_digest, index_name, is_packed, shard_name
from data.prepare.writing import STAMP, claim_output, write_json
from data.records import CLASSES_FILE, Record, find_records, read_class_table
from options.parser import script_parser
from util.decode import read_regular
from util.errors import EXIT_OK, DataError, UserError, run_main
from util.files import atomic_file, require_writable, write_bytes
from util.flags import positive_int
from util.listing import entries
from util.progress import progress


def members_of(record: Record) -> dict[str, Path]:
    """Return the files of a picture by their names in a shard: <key>.<part>.<ending>, in the order of `PARTS`."""
    key = record.name.replace("%", "%25").replace(".", "%2E")  # WebDataset's keys end at the first dot
    files = zip(PARTS, (record.image, record.label, record.inst), strict=True)
    return {f"{key}.{part}{path.suffix.lower()}": path for part, path in files if path is not None}


def write_shard(path: Path, records: Sequence[Record]) -> None:
    """Write the files of some pictures as a tar that depends on names and contents alone, whole or not at all."""
    with atomic_file(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for record in records:
            for name, source in members_of(record).items():
                content = read_regular(source, "file")
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def index_shard(path: Path, number: int, records: Sequence[Record]) -> Iterator[Row]:
    """Yield the rows of a shard, found in the file itself; raises `DataError` unless it holds just these pictures."""
    try:
        with tarfile.open(path, "r:") as tar, open(path, "rb") as file:
            infos = {info.name: info for info in tar if info.isfile()}
            if list(infos) != [name for record in records for name in members_of(record)]:
                raise DataError(f"{path} holds other files than those to be packed; remove it and run again")
            for record in records:
                members = [infos[name] for name in members_of(record)]
                start = members[0].offset
                spans = [(info.offset_data - start, info.size) for info in members]
                spans += [(0, 0)] * (len(PARTS) - len(spans))  # no instance map
                file.seek(start)
                digest = content_digest(record.name, file.read(max(map(sum, spans))))
                yield Row(number, start, tuple(spans), digest, record.name)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path}: a damaged shard ({error}); remove it and run again") from error


def pack_split(output: Path, split: str, records: Sequence[Record], per_shard: int) -> dict[str, Any]:
    """Write the shards and the index of a split; return what packed.json says of it."""
    name_bytes = max(len(record.name.encode()) for record in records)
    layout = Row.layout(name_bytes)
    index, sizes = bytearray(), []
    with progress(desc=split, total=len(records), unit="picture") as bar:
        for number, first in enumerate(range(0, len(records), per_shard)):
            some, path = records[first : first + per_shard], output / shard_name(split, number)
            if not path.is_file():
                write_shard(path, some)
            index += b"".join(row.pack(layout) for row in index_shard(path, number, some))
            sizes.append(path.stat().st_size)
            bar.update(len(some))
    write_bytes(output / index_name(split), bytes(index))
    return {"count": len(records), "name_bytes": name_bytes, "shards": sizes}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = script_parser(__doc__)
    parser.add_argument("--dataroot", type=Path, required=True, metavar="DIR", help="with <split>/{images,labels}/")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="splits to pack; default: all")
    parser.add_argument("--per_shard", type=positive_int, default=1000, help="pictures in a shard")
    opt = parser.parse_args(arguments)
    if not opt.dataroot.is_dir():
        raise UserError(f"--dataroot {opt.dataroot}: no such folder")
    if is_packed(str(opt.dataroot)):
        raise UserError(f"--dataroot {opt.dataroot} is packed already; name the folder that it was made from")
    opt.splits = opt.splits or [path.name for path in entries(opt.dataroot) if (path / "images").is_dir()]
    if not opt.splits:
        raise UserError(f"--dataroot {opt.dataroot} has no <split>/images (see datasets/README.md)")
    require_writable(opt.output, "--output")
    if not (opt.output / STAMP).is_file() and (found := entries(opt.output)):
        raise UserError(f"--output {opt.output} holds other files, such as {found[0].name}; name an empty folder")
    return opt


def main(arguments: Sequence[str] | None = None) -> int:
    opt = parse(arguments)
    splits = {}
    files = hashlib.sha256()
    for split in opt.splits:
        splits[split], problems = find_records(opt.dataroot / split)
        if problems:
            raise DataError(f"{problems[0]} (scripts/check_data.py shows all)")
        for path in (path for record in splits[split] for path in members_of(record).values()):
            state = path.stat()
            files.update(f"{path.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    table = opt.dataroot / CLASSES_FILE
    classes = read_class_table(table) is not None  # one that cannot be used is noticed now
    settings = {"dataroot": str(opt.dataroot.resolve()), "splits": opt.splits, "per_shard": opt.per_shard}
    claim_output(opt.output, "pack_dataset.py", {**settings, "files": files.hexdigest()[:12]})
    packed = {split: pack_split(opt.output, split, records, opt.per_shard) for split, records in splits.items()}
    if classes:
        write_bytes(opt.output / CLASSES_FILE, table.read_bytes())
    write_json(opt.output / MANIFEST, {"format": FORMAT, "classes": classes, "splits": packed})
    print(f"{opt.output}: " + ", ".join(f"{split} {len(records)}" for split, records in splits.items()))
    print(f"use: --dataroot {opt.output} with the --dataset_mode of before")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
