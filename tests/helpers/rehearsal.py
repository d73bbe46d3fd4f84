"""A method's whole run in miniature on a fake device: its steps, a preview and generation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from fake_device import FakeDevice

import train as train_command
from data import DATASETS
from data.loader import make_loader
from models import MODELS, s2prest_model
from models.base_model import BaseModel
from models.losses import perceptual
from models.networks.s2prest.inversion import Coefficients
from models.style_bank import StyleBank
from options.base_options import input_folder
from options.train_options import TrainOptions
from trainers.distributed import Distributed
from trainers.feed import Feed
from trainers.preview import Preview
from trainers.restore import load_inputs
from trainers.sampler import BatchKeys
from trainers.trainer import Trainer, TrainerSettings
from util.batch import CompactBatch, to_device

WHERE = "--num_workers 0 --no-tensorboard --device cpu --ema 0.9".split()


@dataclass
class Rehearsal:
    """A new model of a method's `tiny` run, every loss switched on, and its first batches.

    Half of the batches are of pictures that are erased as a whole, where they are erased at all.
    """

    model: BaseModel
    dataset: Any
    batches: list[CompactBatch]
    run_dir: Path
    channels_last: bool | None

    def steps(self, device: FakeDevice, count: int, *, precision: str = "fp32") -> list[list[str]]:
        """Make the first steps of a run; return what the host waited for in each."""
        settings = TrainerSettings(
            max_steps=count, precision=precision, ema_decay=0.9, channels_last=self.channels_last
        )
        trainer = Trainer(
            model=self.model,
            make_loader=lambda start: self.batches,
            run_dir=self.run_dir,
            settings=settings,
            world=Distributed(device=device.device),
        )
        waits = []
        for batch in self.batches[:count]:
            before = len(device.waits)
            trainer._guarded_step(list(Feed([batch], device.device)))
            waits.append(device.waits[before:])
        return waits

    def preview(self) -> None:
        """Draw the preview as training does."""
        self.model.eval()
        with few_denoising_steps():
            Preview(self.model, lambda: self.batches[1:], self.dataset.palette)()

    def generate(self, device: FakeDevice, *, weights: str = "new") -> None:
        """Prepare inference as at the end of training, then generate."""
        self.model.eval()
        with few_denoising_steps(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(StyleBank, "save", lambda bank, path: None)  # fakes have no bytes
            self.model.prepare_inference(self.run_dir, lambda limit: self.batches[:1], weights=weights, refresh=True)
            for batch in self.batches[:2]:
                result = self.model.generate(to_device(batch, device.device), [0] * len(batch["name"]))
                assert result.device == device.device


def rehearse(name: str, root: Path, *flags: str) -> Rehearsal:
    """Build a method's `tiny` run and more flags as train.py does, with small perceptual networks of random weights."""
    if name == "s2prest":
        pytest.importorskip("diffusers", reason="requirements-diffusion.txt is not installed")
    model = MODELS.get(name)
    for line in model.tiny_inputs(root):
        assert train_command.main([*line, *WHERE[:-2], "--image_every", "0"]) == 0
    line = [*model.tiny(root), *flags, "--checkpoints_dir", str(root), "--name", "fake", *WHERE]
    off = [name for name, value in vars(TrainOptions().parse(line)).items() if name.startswith("lambda_") and not value]
    opt = TrainOptions().parse([*line, *(word for name in off for word in (f"--{name}", "1"))])
    torch.manual_seed(0)
    dataset = DATASETS.get(opt.dataset_mode).from_options(opt, split="train", augment=True, task="train")
    with small_perceptual_networks():
        made = model.from_options(opt, is_train=True)
    runs = {flag: getattr(opt, flag) for flag in made.input_runs}
    load_inputs(made, {flag: input_folder(opt, run) for flag, run in runs.items() if run is not None})
    run_dir = root / "fake"
    run_dir.mkdir()
    made.start_run(run_dir, resumed=False)
    keys = BatchKeys(length=len(dataset), batch_size=opt.batch_size, seed=0, start_step=0, rank=0, world_size=1)
    loaded = iter(make_loader(dataset, batch_size=opt.batch_size, num_workers=0, keys=keys))
    batches = [_erased(next(loaded), whole=bool(k % 2)) for k in range(4)]
    return Rehearsal(made, dataset, batches, run_dir, opt.channels_last)


def _erased(batch: CompactBatch, *, whole: bool) -> CompactBatch:
    known: dict[str, Any] = dict(batch)
    if not whole or "mask" not in known:
        return batch
    return cast(CompactBatch, known | {"mask": torch.ones_like(known["mask"]), "hidden": [True] * len(known["name"])})


@contextmanager
def few_denoising_steps() -> Iterator[None]:
    """Let S2PreST denoise in few steps of the release's fifty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s2prest_model, "Coefficients", partial(Coefficients, steps=5))
        yield


@contextmanager
def small_perceptual_networks() -> Iterator[None]:
    """Let VGG have four channels throughout and random weights, without a file."""

    def weights(arch: str, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        return {f"features.{name}": value for name, value in perceptual.build_features(arch).state_dict().items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perceptual, "WIDTHS", (4,) * 5)
        patch.setattr(perceptual, "read_vgg_weights", weights)
        yield
