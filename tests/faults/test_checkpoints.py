"""Checkpoints, weights and banks: killed saves, cut and changed files, full disks, values that are not finite."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_disks import fill, small_disk
from trainer_toys import ToyModel, assert_same, fit, toy_trainer

from data import DATASETS
from data.prepare.writing import write_class_table
from data.records import CLASSES_FILE, read_class_table
from models.style_bank import StyleBank
from options.parser import read_yaml
from trainers.checkpoint import CheckpointError, Checkpoints, load_checkpoint, save_checkpoint
from trainers.failures import NonFiniteError
from trainers.logger import Logger
from trainers.weights import load_weights, save_weights
from util.errors import UserError

HERE = Path(__file__).parent


@pytest.mark.fault(
    "1", "kill -9 at a random moment of a save (checkpoint, latest.pt, opt.yaml)", sees="every file whole; none lost"
)
def test_killed_saves(ledger: Any, tmp_path: Path) -> None:
    kills = 200 if os.environ.get("FAULTS_LEDGER") else 5
    done = subprocess.run(
        [sys.executable, str(HERE / "kill_saves.py"), str(tmp_path), str(kills)],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    for attempt in ledger.attempts(kills, quick=kills):
        with attempt as number:
            assert json.loads(lines[number])["fault"] == ""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    fit(folder, max_steps=2, save_every=1)
    return folder


@pytest.mark.fault(
    "2", "the newest checkpoint cut at a random byte, or empty", sees="the file by its name; the one before it is taken"
)
def test_cut_checkpoint(ledger: Any, run: Path, capsys: Any) -> None:
    path = run / "step_2.pt"
    whole = path.read_bytes()
    for attempt in ledger.attempts(300, quick=20):
        with attempt as number:
            os.truncate(path, random.randrange(len(whole)) if number else 0)
            restored = Checkpoints(run).restore()
            path.write_bytes(whole)
            assert restored is not None and restored[0]["step"] == 1
            assert "step_2.pt: truncated, damaged" in capsys.readouterr().out


def same_or_refused(path: Path, read: Callable[[], Any], flips: int) -> None:
    """Change bits at random positions: the content is refused by the file's name, or is what it was."""
    whole, want = path.read_bytes(), read()
    changed = bytearray(whole)
    for _ in range(flips):
        changed[random.randrange(len(whole))] ^= 1 << random.randrange(8)
    path.write_bytes(changed)
    try:
        found = read()
    except UserError as error:
        assert path.name in str(error) and "\n" not in str(error)
    else:
        assert_same(found, want)
    finally:
        path.write_bytes(whole)


@pytest.mark.fault("3", "changed bits in a checkpoint", sees="the file by its name; never other values")
def test_changed_checkpoint(ledger: Any, run: Path) -> None:
    path = run / "step_2.pt"
    for attempt in ledger.attempts(1500, quick=60):
        with attempt as number:
            same_or_refused(path, lambda: load_checkpoint(path), 1 + number % 3)


@pytest.mark.fault("3", "changed bits in converted weights", sees="the file by its name; never other values")
def test_changed_weights(ledger: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights({"netG": ToyModel().netG.state_dict()}, path, step=3, source="a test")
    for attempt in ledger.attempts(1500, quick=60):
        with attempt as number:
            same_or_refused(path, lambda: load_weights(path), 1 + number % 3)


@pytest.mark.fault("3", "changed bits in a style bank", sees="the file by its name: delete it, test.py makes it again")
def test_changed_bank(ledger: Any, tmp_path: Path) -> None:
    path = tmp_path / "style_bank.safetensors"
    StyleBank({3: torch.randn(4, 8), 7: torch.randn(2, 8)}, weights="step 9").save(path)

    def read() -> tuple[dict[int, torch.Tensor], str]:
        bank = StyleBank.load(path, style_dim=8)
        return bank.codes, bank.weights

    for attempt in ledger.attempts(1500, quick=60):
        with attempt as number:
            same_or_refused(path, read, 1 + number % 3)


@pytest.mark.parametrize("name", ["step_9.pt", "weights.safetensors", "style_bank.safetensors"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    readers: dict[str, Callable[[Path], object]] = {
        "step_9.pt": load_checkpoint,
        "weights.safetensors": load_weights,
        "style_bank.safetensors": lambda path: StyleBank.load(path, style_dim=8),
    }
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waits for a pipe"))
    signal.alarm(20)
    try:
        with pytest.raises(UserError, match=rf"{name}: .*pipe or device, not a regular file"):
            readers[name](path)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("name", "value"),
    [("step", "nine"), ("nimg", None), ("model", [1]), ("ema", 3), ("options", None), ("optimizers", []),
     ("optimizers", {"G": 5, "D": 5})],
)  # fmt: skip
def test_a_checkpoint_of_another_form_is_named(tmp_path: Path, name: str, value: object) -> None:
    """Its checksum is right; it was not written by a training."""
    fit(tmp_path, max_steps=1)
    path = tmp_path / "step_1.pt"
    state = load_checkpoint(path)
    for changed in ({**state, name: value}, {k: v for k, v in state.items() if k != name}):
        save_checkpoint(changed, path)
        with pytest.raises(
            CheckpointError, match=rf"step_1\.pt: (no checkpoint of training: its '{name}'|does not fit)"
        ):
            fit(tmp_path, max_steps=2, resume=True)


@pytest.mark.fault("6", "the disk gets full at a checkpoint", sees="file and cause; the older one stays, and goes on")
def test_full_disk(ledger: Any, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk"):
        for attempt in ledger.attempts(60, quick=3):
            with attempt as number:
                folder, filler = tmp_path / "disk" / str(number), tmp_path / "disk" / "filler"
                folder.mkdir()
                trainer = toy_trainer(folder, max_steps=3, save_every=1)
                save = trainer.checkpoints.save

                def full(state: dict[str, Any], step: int, save: Any = save) -> Path:
                    if step == 2:
                        fill(tmp_path / "disk", free=random.randrange(3) << 12)
                    return save(state, step)

                trainer.checkpoints.save = full  # type: ignore[method-assign]
                with pytest.raises(CheckpointError, match=r"step_2\.pt: cannot be written .*space.*Free some"):
                    trainer.fit()
                filler.unlink()
                assert load_checkpoint(folder / "latest.pt")["step"] == 1
                assert not list(folder.glob(".*.tmp"))
                fit(folder, max_steps=3, resume=True)
                shutil.rmtree(folder)


@pytest.mark.fault("12", "a loss or gradient that is NaN or infinite", sees="step, phase, losses, parameters; code 3")
def test_not_finite(ledger: Any, tmp_path: Path) -> None:
    for attempt in ledger.attempts(60, quick=3):
        with attempt as number:
            folder, bad = tmp_path / str(number), random.randrange(1, 5)
            folder.mkdir()
            model = ToyModel()
            value, parameter = (
                random.choice([math.nan, math.inf, -math.inf]),
                random.choice([*model.netG.dec.parameters()]),
            )
            parameter.register_hook(lambda grad, m=model, v=value, b=bad: grad * v if int(m.netG.steps) == b else grad)
            trainer = toy_trainer(folder, model=model, max_steps=6, save_every=1)
            with pytest.raises(NonFiniteError, match=rf"step {bad}, phase .*go on from it with --continue_train"):
                trainer.fit()
            assert all(p.isfinite().all() for net in model.networks().values() for p in net.parameters())
            assert load_checkpoint(folder / "latest.pt")["step"] == bad - 1
            fit(folder, max_steps=6, resume=True)


@pytest.mark.fault("3", "text of a run, cut or with changed bits", sees="the file by its name, or what is left is read")
def test_changed_text(ledger: Any, tmp_path: Path) -> None:
    options, classes, stats = (tmp_path / name for name in ("opt.yaml", CLASSES_FILE, "stats.jsonl"))
    options.write_text(yaml.safe_dump({"ngf": 64, "lr_G": 1e-4, "mask_types": "box,free_form", "name": "run"}))
    write_class_table(tmp_path, DATASETS.get("camvid").class_table(None))
    stats.write_text("".join(json.dumps({"step": step, "losses": {"G/l1": 0.5}}) + "\n" for step in range(1, 9)))
    readers: dict[Path, Callable[[], Any]] = {
        options: lambda: read_yaml(options, "options of the run"),
        classes: lambda: read_class_table(classes),
        stats: lambda: Logger(tmp_path, enabled=True, tensorboard=False, start_step=5).close(),
    }
    for attempt in ledger.attempts(600, quick=45):
        with attempt as number:
            path = list(readers)[number % 3]
            whole = path.read_bytes()
            changed = bytearray(whole)
            changed[random.randrange(len(whole))] ^= 1 << random.randrange(8)
            path.write_bytes(changed if number % 2 else whole[: random.randrange(len(whole))])
            try:
                readers[path]()
            except UserError as error:
                assert path.name in str(error)
            finally:
                path.write_bytes(whole)
