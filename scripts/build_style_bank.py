"""Make or enlarge a run's style bank: `python scripts/build_style_bank.py --name RUN --style_bank_size 500`.

The bank holds raw style codes per class of training pictures (docs/papers.md), at most --style_bank_size of each, with
the picture and instance that each came from in style_bank.json. A larger bank contains the smaller one.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from data import DATASETS
from data.loader import plain_pictures
from models import MODELS
from models.base_bank import BANK_FILE
from options.base_options import run_folder
from options.run_options import RunOptions
from trainers.restore import load_run
from util.device import resolve_device
from util.errors import EXIT_OK, UserError, run_main
from util.files import require_writable


class BankOptions(RunOptions):
    """Options of this command."""

    description = "Make or enlarge the style bank of a run."


def main(argv: list[str] | None = None) -> int:
    opt = BankOptions().parse(argv)
    model: Any = MODELS.get(opt.model).from_options(opt, is_train=False)
    if not getattr(model, "draws_codes", False):
        hint = "; its codes came from the run of --style_run" if model.input_runs else ""
        raise UserError(f"--name {opt.name}: this run of {opt.model} gathers no style codes{hint}")
    require_writable(run_folder(opt), "the run's folder")
    loaded = load_run(model, run_folder(opt), step=opt.step, averaged=not opt.raw_weights)
    model.to(resolve_device(opt.device))
    training = partial(plain_pictures, opt, "train")
    model.prepare_inference(run_folder(opt), training, weights=loaded.name, refresh=True)
    if model.bank is None:
        raise model.bank_error
    dataset, codes = DATASETS.get(opt.dataset_mode), model.bank.codes
    names = dataset.class_table(opt.dataroot).resized(opt.label_nc).names
    classes = range(opt.label_nc if dataset.scenes else opt.label_nc - 1)  # the last of single objects is "outside"
    for label in sorted({*classes, *codes} - {opt.ignore_label}):
        print(f"{names[label] if label < len(names) else label}: {len(codes.get(label, ())) or 'no'} codes")
    print(f"{run_folder(opt) / BANK_FILE}: {len(model.bank)} codes of {len(model.bank.codes)} classes")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
