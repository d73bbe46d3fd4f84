"""Progress where standard error is no terminal."""

from __future__ import annotations

import time

import pytest

from util import progress as module
from util.progress import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_line_now_and_then(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    for item in progress(list("abcdefghij"), desc="scoring", unit="picture"):
        seen.append(item)
        clock[0] += module.FIRST
    told = capsys.readouterr().err.splitlines()
    assert seen == list("abcdefghij")
    assert told == [
        "scoring: 1 of 10 (picture), 0.1 a second, 0:01:30 left",
        "scoring: 7 of 10 (picture), 0.1 a second, 0:00:30 left",
    ]


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(total=3) as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_a_resumed_count_of_unknown_length(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress(initial=5, unit="step") as bar:
        bar.set_postfix({"G/l1": "0.5"})
        clock[0] += 20
        bar.update()
    assert capsys.readouterr().err == "6 (step), 0.05 a second, G/l1=0.5\n"


def test_other_processes_print_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress(total=3, shown=False) as bar:
        clock[0] += 1000
        bar.update()
    assert capsys.readouterr().err == ""
