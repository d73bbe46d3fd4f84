"""Stop signals, in processes of their own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from toy_process import start, wait_for
from trainer_toys import ToyModel, assert_same, fit, stats

from trainers.checkpoint import load_checkpoint
from trainers.signals import StopSignals
from util.errors import EXIT_INTERRUPTED


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
