"""Faults caused on purpose, counted: `make test` tries each a few times, `make test-faults` as often as it says.

A test takes the fixture `ledger`, is marked with what it causes, and loops over attempts:

    @pytest.mark.fault("1", "kill -9 while a checkpoint is written", sees="the older checkpoint goes on")
    def test_kill(ledger, tmp_path):
        for attempt in ledger.attempts(100):
            with attempt:
                ...

An attempt whose block fails counts as tried and not survived; the test then fails at its end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

SKIPPED = pytest.StashKey[bool]()  # set where a test cannot be tried here
LEDGER = os.environ.get("FAULTS_LEDGER")  # a file that gets a JSON line per test; set by `make test-faults`


class Ledger:
    """Counts the attempts of one test."""

    def __init__(self) -> None:
        self.tried = self.survived = 0
        self.faults: list[BaseException] = []

    def attempts(self, full: int, *, quick: int = 2) -> Iterator[AbstractContextManager[int]]:
        """Yield contexts, `full` of them in `make test-faults` and `quick` otherwise; each gives its number."""
        for number in range(full if LEDGER else min(full, quick)):
            yield self._attempt(number)

    @contextmanager
    def _attempt(self, number: int) -> Iterator[int]:
        self.tried += 1
        try:
            yield number
            self.survived += 1
        except (Exception, pytest.fail.Exception) as error:
            self.faults.append(error)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped:
        item.stash[SKIPPED] = True
    return report


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """Count attempts; needs the mark `fault(number, what, sees=...)`."""
    mark = request.node.get_closest_marker("fault")
    number, what = mark.args
    counts = Ledger()
    yield counts
    if SKIPPED in request.node.stash:
        return
    if LEDGER:
        row = {"fault": number, "what": what, "sees": mark.kwargs["sees"], "test": request.node.nodeid.split("::")[0],
               "tried": counts.tried, "survived": counts.survived}  # fmt: skip
        with open(LEDGER, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    assert counts.tried, "no attempt was made"
    if counts.faults:
        raise counts.faults[0]
