"""Stop signals, in processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from toy_process import ROOT, start, wait_for
from trainer_toys import ToyModel, assert_same, fit, stats, toy_trainer

import train
from models import MODELS
from models.base_bank import BANK_FILE, BankedModel
from trainers.checkpoint import load_checkpoint
from trainers.signals import StopSignals
from util.errors import EXIT_INTERRUPTED, EXIT_OK
from util.workers import _tell_unless_hung_up

QUICK = "--device cpu --num_workers 0 --image_every 0 --max_steps 1".split()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_the_step_and_the_run_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    process = start(str(tmp_path / "b"), "--steps", "5", "--announce_step", "2", "--workers", "1")
    wait_for(tmp_path / "b/in_step", process)
    os.killpg(process.pid, number)  # as a terminal and a scheduler do: the loader's process gets it too
    _, err = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED, err
    assert f"{number.name}: finishing the step" in err
    assert load_checkpoint(tmp_path / "b/latest.pt")["step"] == 3

    fit(tmp_path / "b", model=ToyModel(noise=0.1), max_steps=5, resume=True)
    fit(tmp_path / "a", model=ToyModel(noise=0.1), max_steps=5)
    assert_same(load_checkpoint(tmp_path / "a/latest.pt"), load_checkpoint(tmp_path / "b/latest.pt"))
    assert stats(tmp_path / "a") == stats(tmp_path / "b")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_before_the_first_and_after_the_last_step(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    line = [*MODELS.get("divsem").tiny(tmp_path), "--name", "run", "--checkpoints_dir", str(tmp_path), *QUICK]
    before = signal.getsignal(number)

    def stopped(*going_on: str) -> str:
        with pytest.raises(SystemExit) as left:
            train.main([*line, *going_on])
        assert left.value.code == EXIT_INTERRUPTED
        signal.signal(number, before)  # by now its default, or it would end a process that does not leave
        return capfd.readouterr().err

    with monkeypatch.context() as patched:
        patched.setattr(train, "quick_check", lambda dataset: os.kill(os.getpid(), number))
        assert f"{number.name}: stopped; no step was made" in stopped()
        assert not list((tmp_path / "run").glob("*.pt"))
    with monkeypatch.context() as patched:
        patched.setattr(BankedModel, "prepare_inference", lambda *a, **k: os.kill(os.getpid(), number))
        assert f"{number.name}: stopped; every step is saved" in stopped()
        assert load_checkpoint(tmp_path / "run/latest.pt")["step"] == 1
    assert train.main([*line, "--continue_train"]) == EXIT_OK
    assert (tmp_path / "run" / BANK_FILE).is_file()


def test_a_signal_while_the_last_step_is_saved_ends_the_run(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, max_steps=2)
    save = trainer.checkpoints.save

    def saving(state: dict[str, Any], step: int) -> Path:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return save(state, step)

    trainer.checkpoints.save = saving  # type: ignore[method-assign]
    assert trainer.fit() == EXIT_INTERRUPTED
    assert load_checkpoint(tmp_path / "latest.pt")["step"] == 2


def test_a_process_that_waits_for_others_obeys_signals(tmp_path: Path) -> None:
    line = [*MODELS.get("spmpgan").tiny(tmp_path), "--name", "run", "--checkpoints_dir", str(tmp_path), *QUICK]
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))  # takes connections, and never answers
        listening.listen()
        port = str(listening.getsockname()[1])
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
        process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), *line], env={**os.environ, **shared})
        listening.accept()
        process.terminate()
        assert process.wait(timeout=60) == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_while_train_py_is_imported(number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), "--help"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and "/libtorch" not in maps.read_text():
        time.sleep(0.002)
    process.send_signal(number)
    assert process.communicate(timeout=120)[1] == f"{number.name}: stopped while no step was made\n"
    assert process.returncode == EXIT_INTERRUPTED


def test_first_signal_asks_and_the_second_acts_at_once(request: pytest.FixtureRequest) -> None:
    # A process that a shell starts in the background ignores SIGINT from the first.
    own = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, own))
    before = signal.getsignal(signal.SIGUSR1)
    with StopSignals() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_worker_tells_no_batch_that_its_parent_did_not_fetch(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: Exception) -> None:
        _tell_unless_hung_up(type(error), error, None)

    for error in (EOFError(), ConnectionResetError(), ValueError("told")):
        thread = threading.Thread(target=fail, args=(error,))
        thread.start()
        thread.join()
    fail(EOFError("told in the main thread"))
    assert capsys.readouterr().err.splitlines() == ["ValueError: told", "EOFError: told in the main thread"]
