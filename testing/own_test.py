"""A run's own test, or a pack, as the measure for anybody's pictures: its real pictures, masks, labels and protocol."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metrics.registry import METRICS
from metrics.reporting.protocol import differences, protocol_fields
from metrics.reporting.result import RESULT_FILE
from testing.packs.pack import INST, MANIFEST, read_pack
from util.errors import DataError, UserError
from util.text_files import parse_json

FROM_THE_TEST = ("real", "masks", "labels", "metric_side")  # flags of evaluate.py
PROTOCOL = (
    "dataset_mode", "split", "split_size", "left_out", "seed", "draw", "crop_size", "load_size", "reference",
)  # fmt: skip
IF_ASKED = ("test_cuts", "object_classes")  # of the protocol too, in lines of tests that were asked for it


@dataclass(frozen=True)
class OwnTest:
    """A folder of results of test.py and its result line; or a pack, its id, and such a line without numbers."""

    folder: Path
    line: Mapping[str, Any]
    pack: str | None = None

    @property
    def run(self) -> str:
        """Name of the run."""
        return str(self.line["protocol"]["run"])

    @property
    def task(self) -> str:
        """What it tested."""
        return str(self.line["task"])

    def set_flags(self, args: argparse.Namespace) -> None:
        """Set the flags of evaluate.py that say what is measured and how; raises `UserError` for those it sets."""
        for flag in FROM_THE_TEST:
            if getattr(args, flag) is not None:
                raise UserError(f"--{flag} and --as_run {args.as_run} exclude each other: the run's test gives it")
        if args.skip_bad:
            raise UserError(
                f"--skip_bad and --as_run {args.as_run} exclude each other: rows of one table have all pictures"
            )
        args.task = self.task
        args.real, args.masks, args.labels = (str(self.folder / name) for name in ("real", "mask", "label"))
        details = self.line["details"].values()
        for flag in ("segmenter", "label_nc", "ignore_label"):
            if getattr(args, flag) is None:
                setattr(args, flag, next((detail[flag] for detail in details if flag in detail), None))
        if self.pack and args.instances is None and _asks_for(args.metrics, METRICS.needing("instances")):
            args.instances = str(self.folder / INST)
        if args.metrics is None:
            asked = dict.fromkeys(METRICS.asked_name(name) for name in self.line["metrics"])
            lacking = () if args.instances else METRICS.needing("instances")
            args.metrics = ",".join(name for name in asked if name not in lacking) or None

    def protocol(self, mask_set: str) -> dict[str, Any]:
        """Return the fields that a folder's line has from the test; raises `DataError` if its masks were changed."""
        protocol = self.line["protocol"]
        if mask_set != protocol["mask_set"]:
            told, again = (MANIFEST, "pack them") if self.pack else (RESULT_FILE, "run test.py")
            raise DataError(
                f"{self.folder / 'mask'}: the masks ({mask_set}) are not those that {told} tells of "
                f"({protocol['mask_set']}); {again} again"
            )
        source = {"pack": self.pack} if self.pack else {"as_run": self.run}
        asked = {name: protocol[name] for name in IF_ASKED if name in protocol}
        return {name: protocol.get(name) for name in PROTOCOL} | asked | source | {"real_set": None}

    def notes(self, line: Mapping[str, Any], name: str) -> list[str]:
        """Return a note if a folder's line cannot stand in one table with the run's."""
        problems = differences({self.run: protocol_fields(self.line), name: protocol_fields(line)})
        return [f"stands in no table with {self.run}, as these differ: {'; '.join(problems)}"] if problems else []


def _asks_for(metrics: str | None, names: Collection[str]) -> bool:
    asked = (metrics or "").split(",")
    return asked == ["all"] or not set(asked).isdisjoint(names)


def find_own_test(as_run: str, checkpoints_dir: str, task: str | None) -> OwnTest:
    """Return the test of a run, of a folder of results or of a pack; raises `UserError`.

    Args:
        task: of the test; None: its only one.
    """
    folders = [Path(as_run)]
    if (folders[0] / MANIFEST).is_file():
        pack = read_pack(folders[0])
        line = pack.result_line()
        if task not in (None, line["task"]):
            raise UserError(f"--task {task}: the pack {as_run} is of {line['task']}; leave the flag out")
        return OwnTest(pack.folder, line, pack.id)
    if not (folders[0] / RESULT_FILE).is_file():
        folders = [
            path.parent for path in sorted((Path(checkpoints_dir) / as_run / "results").glob(f"*/{RESULT_FILE}"))
        ]
    tests = [test for folder in folders if (test := _read(folder)) and task in (None, test.task)]
    if not tests:
        under = f" under --task {task}" if task else ""
        where = Path(checkpoints_dir) / as_run / "results"
        raise UserError(
            f"--as_run {as_run}: no results of a test with masks{under} in {where}; run test.py first, or name the "
            "folder of its --results_dir"
        )
    if len(tests) > 1:
        raise UserError(f"--as_run {as_run}: it has several tests; name one of their folders: "
                        f"{', '.join(str(test.folder) for test in tests)}")  # fmt: skip
    return tests[0]


def _read(folder: Path) -> OwnTest | None:
    file = folder / RESULT_FILE
    try:
        line = parse_json(file.read_text(encoding="utf-8"))
        test = OwnTest(folder, line)
        return test if test.run and test.task and line["protocol"].get("mask_set") and line["details"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not a result of test.py ({error!r}); run test.py again") from error
