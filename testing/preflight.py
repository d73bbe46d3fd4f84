"""Checks an experiment's rows before the first step, so that a mistake in the last one does not show after days.

Flags, data, weights, runs that rows build on, tasks that the data allow, files of the metrics. Runs that earlier rows
will train are stood in for by their options alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data import DATASETS
from data.checks import quick_check
from data.prepare.writing import save_classes
from models import MODELS
from options.base_options import OPTIONS_FILE, Options
from options.experiment import Row, to_args
from options.test_options import TestOptions
from options.train_options import TrainOptions
from testing.flow import FLOWS
from testing.rows import in_order, needs, plan_test, plan_training
from testing.validation import Validation
from trainers.checkpoint import Checkpoints
from trainers.weights import WEIGHTS_FILE
from util.errors import UserError
from util.opt import Opt

LISTED = 3  # rows that have one problem
DATA = "dataset_mode dataroot split crop_size load_size label_nc ignore_label label_map".split()


def preflight(rows: Sequence[Row], checkpoints_dir: str) -> None:
    """Check every row and task that is not finished.

    Raises:
        UserError: all problems at once, each with the rows that have it.
    """
    with tempfile.TemporaryDirectory() as stand_ins:
        check = Preflight(checkpoints_dir, Path(stand_ins))
        bad: set[str] = set()
        for row in in_order(rows):  # what is built on a row with problems cannot be looked at
            if bad & set(needs(row, rows)) or not check.row(row):
                bad.add(row.name)
        if check.problems:
            messages = [f"{listed(where)}: {what}" for what, where in check.problems.items()]
            head = ["nothing was run, as these rows would fail:"] if len(messages) > 1 else []
            raise UserError("\n".join([*head, *messages]))


class Preflight:
    """Gathers problems.

    Args:
        checkpoints_dir: the folder of the runs.
        stand_ins: a folder that gets what the later commands read of each run: its options, or a link to the run.

    Attributes:
        problems: what is wrong, and the commands of rows for which it is.
    """

    def __init__(self, checkpoints_dir: str, stand_ins: Path) -> None:
        self.checkpoints_dir, self.runs, self.stand_ins = checkpoints_dir, Path(checkpoints_dir), stand_ins
        self.problems: dict[str, list[str]] = {}
        self._possible: set[tuple[str, ...]] = set()  # tests, by their flags and data

    def row(self, row: Row) -> bool:
        """Check a row whose needed rows are good; return whether it can be trained."""
        where = f"row {row.name}, train.py"
        trains = self._good(where, partial(self._options, row)) and self._good(where, partial(self._training, row))
        for task in row.tasks if (self.stand_ins / row.run).exists() else []:
            self._good(f"row {row.name}, test.py --task {task}", partial(self._test, row, task))
        return trains

    def _good(self, where: str, check: Callable[[], None]) -> bool:
        try:
            check()
        except UserError as error:
            what = str(error).removeprefix(f"{where}: ").replace(str(self.stand_ins), self.checkpoints_dir)
            self.problems.setdefault(what, []).append(where)
            return False
        return True

    def _options(self, row: Row) -> None:
        """Check the flags of train.py, and leave what stands for the run."""
        for name in (row.run, *row.built_on()):
            self._link(name)
        if Checkpoints(self.runs / row.run).exist():
            plan_training(row, self.checkpoints_dir)  # begun with the same flags?
        opt, folder = self._parsed(row), self.stand_ins / row.run
        if not folder.exists():
            folder.mkdir(parents=True)
            opt.save(folder / OPTIONS_FILE)

    def _training(self, row: Row) -> None:
        """Check data and weights."""
        if Checkpoints(self.runs / row.run).exist() and plan_training(row, self.checkpoints_dir).finished:
            return
        opt, folder = self._plain(self._parsed(row)), self.stand_ins / row.run
        dataset, method = DATASETS.get(opt.dataset_mode), MODELS.get(opt.model)
        pictures = dataset.from_options(opt, split="train", augment=True, task="train")
        quick_check(pictures)
        if not folder.is_symlink():
            save_classes(pictures, folder)
        if method.flow != "stylising":  # whose frozen networks are gigabytes
            model = method.from_options(opt, is_train=True)
            if opt.eval_every:
                Validation(self._parsed(row), model, pictures)

    def _test(self, row: Row, task: str) -> None:
        if Checkpoints(self.runs / row.run).exist() and plan_test(row, task, self.checkpoints_dir)[0].finished:
            return
        opt = self._plain(TestOptions().parse([*row.test_args(task), "--checkpoints_dir", str(self.stand_ins)]))
        flow = FLOWS.get(MODELS.get(opt.model).flow)
        data = (str(getattr(opt, name, None)) for name in DATA)
        key = (flow.kind, task, *to_args(row.test), *row.more_test, *data)
        if key not in self._possible:  # rows mostly differ in what they train
            flow.require_inputs(opt)
            flow.require_data(opt)
            self._possible.add(key)

    def _parsed(self, row: Row) -> Options:
        return TrainOptions().parse([*row.train_args(), "--checkpoints_dir", str(self.stand_ins)])

    def _link(self, name: str) -> None:
        """Let a run that is there already stand for itself."""
        folder = self.runs / name
        if "/" not in name and has_weights(folder) and not (self.stand_ins / name).exists():
            (self.stand_ins / name).symlink_to(folder.resolve())

    def _plain(self, opt: Options) -> Any:
        """Return the options with the folder of the runs, and without a copy of the data in memory."""
        return Opt(**opt.values() | {"checkpoints_dir": self.checkpoints_dir, "cache": "none"})


def listed(places: list[str]) -> str:
    """Return the first places."""
    more = [f"and {len(places) - LISTED} more"] if len(places) > LISTED else []
    return ", ".join([*places[:LISTED], *more])


def has_weights(folder: Path) -> bool:
    """Whether a run can be used: it has a checkpoint, or converted weights."""
    return Checkpoints(folder).exist() or (folder / WEIGHTS_FILE).is_file()
