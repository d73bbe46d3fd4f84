"""Validation while a method trains: a test of the averaged weights under fixed masks, as test.py would make it."""

from __future__ import annotations

import shlex
import tempfile
from copy import copy
from functools import partial
from pathlib import Path

import torch

from data import DATASETS
from data.base_dataset import BaseDataset
from data.loader import plain_pictures
from data.prepare.writing import save_classes
from metrics.evaluator import Evaluator
from metrics.registry import METRICS, arrow
from models import MODELS
from models.base_model import BaseModel
from options.base_options import OPTIONS_FILE, Options, run_folder
from options.test_options import TestOptions
from testing.editing_flow import EditingFlow, as_saved, generated, new_evaluator
from trainers.best import Score
from trainers.failures import GENERATION, out_of_memory_hint
from util.errors import UserError
from util.opt import Opt

FROM_TRAINING = ("device", "precision", "num_workers", "batch_size")  # unless --eval_args says otherwise


class Validation:
    """Measures a model as it is; raises `UserError` at once if `--eval_args` or the data do not allow it.

    Args:
        opt: of a training with `--eval_every`.
        model: the model in training.
        training_data: what it trains on.
    """

    def __init__(self, opt: Options, model: BaseModel, training_data: BaseDataset) -> None:
        flow = MODELS.get(opt.model).flow
        if flow != EditingFlow.kind:
            raise UserError(f"--eval_every {opt.eval_every}: only methods that fill scenes are validated in training; "
                            f"leave it out for {opt.model}")  # fmt: skip
        self.train_opt, self.model, self.training_data = opt, model, training_data
        try:
            self.opt = self._test_options(opt, training_data)
            self.names = EditingFlow.metrics(self.opt.metrics)
            if not self.names:
                raise UserError("without metrics nothing is measured")
            EditingFlow.require_inputs(self.opt)
            self.dataset = DATASETS.get(self.opt.dataset_mode).from_options(
                self.opt, split=self.opt.split, augment=False, task=self.opt.task
            )
            self.indices = self.dataset.select(self.opt.num_images).indices
        except UserError as error:
            raise UserError(f"--eval_args '{opt.eval_args}': {error}") from error
        self._evaluator: Evaluator | None = None

    @staticmethod
    def _test_options(opt: Options, training_data: BaseDataset) -> Opt:
        """Return the options of test.py for the run that is about to begin."""
        with tempfile.TemporaryDirectory() as stand_in:
            folder = Path(stand_in) / opt.name
            folder.mkdir()
            opt.save(folder / OPTIONS_FILE)
            save_classes(training_data, folder)
            as_training = [word for name in FROM_TRAINING for word in (f"--{name}", str(getattr(opt, name)))]
            run = ["--name", opt.name, "--checkpoints_dir", stand_in]
            parsed = TestOptions().parse([*as_training, *shlex.split(opt.eval_args), *run])
        return Opt(**parsed.values() | {"checkpoints_dir": opt.checkpoints_dir})

    @torch.no_grad()
    def __call__(self, weights: str) -> Score:
        """Return the values of the metrics; `weights` names what the networks hold, see `trainers.restore`."""
        opt, model = self.opt, copy(self.model)  # the same networks; the style source chosen for a test is the copy's
        if self._evaluator is None:
            # Of generated pictures no later validation makes the same again: their features would pile up on the disk
            self._evaluator = new_evaluator(opt, self.dataset, model.device, keep_generated=False)
        self._evaluator.reset()
        with out_of_memory_hint(GENERATION):
            training = partial(plain_pictures, self.train_opt, "train", kept=self.training_data)
            model.prepare_inference(run_folder(self.train_opt), training, weights=weights, refresh=True)
            model.choose_styles(opt.style_source)
            for batch, draws in generated(model, self.dataset, self.indices, opt, model.device, desc="validation"):
                self._evaluator.update(as_saved(batch, draws, opt.task))
        values = {name: value.value for name, value in self._evaluator.compute().items()}
        if not values:
            raise UserError(f"--eval_args '{opt.eval_args}': {'; '.join(self._evaluator.notes)}")
        asked, first = next((name, value) for name in self.names for value in values if METRICS.gives(name, value))
        without = f"; {self.names[0]} has no value" if asked != self.names[0] else ""
        how = f"{first} of {len(self.indices)} pictures of {opt.split}, {opt.task}{without}"
        return Score(values, first=first, lower_is_better=arrow(first) == "↓", how=how)
