"""What the scripts/prepare_*.py do once they know which pictures become which files: a folder of --dataset_mode."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from data.prepare.writing import Convert, Job, claim_output, convert_all, write_class_table, write_masks
from data.records import find_records
from util.class_table import ClassTable
from util.errors import DataError


def write_data_set(
    opt: argparse.Namespace,
    jobs: Sequence[Job],
    convert: Convert,
    *,
    mode: str,
    classes: ClassTable,
    script: str,
    settings: Mapping[str, Any],
    official: Mapping[str, int],
) -> None:
    """Convert all pictures into `opt.output`, write its class table and masks, and print the counts.

    Args:
        opt: with the flags of `add_common_flags`.
        jobs: the pictures of all splits; their files stand in <split>/<kind>/.
        convert: makes the arrays of a job.
        mode: `--dataset_mode` that reads the folder.
        script, settings: what the folder is made with, see `claim_output`.
        official: pictures per split of the published data set, where they are known.

    Raises:
        UserError: the folder was made with other settings.
        DataError: a picture cannot be used; files are left over from elsewhere, or are gone.
    """
    claim_output(opt.output, script, settings)
    convert_all(convert, jobs, num_workers=opt.num_workers, title=mode)
    write_class_table(opt.output, classes)
    prepared = Counter(job.targets["images"].parents[1].name for job in jobs)
    for split, count in prepared.items():
        records, problems = find_records(opt.output / split)
        if problems or len(records) != count:
            problem = problems[0] if problems else f"{len(records)} pictures, {count} were prepared"
            raise DataError(f"{opt.output / split} holds files that this run did not make: {problem}; clear the folder")
    write_masks(opt, mode, list(prepared))
    print(f"{opt.output}: " + ", ".join(f"{split} {count}" for split, count in prepared.items()))
    for split, count in official.items():
        if prepared[split] != count:
            print(f"note: {split} has {prepared[split]} pictures, the published set {count}")
    print(f"use: --dataset_mode {mode} --dataroot {opt.output}")
