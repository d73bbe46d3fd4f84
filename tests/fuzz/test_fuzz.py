"""Readers of anybody's files and command lines end in `UserError` or a value, whatever the bytes.

`FUZZ_EXAMPLES=5000 pytest tests/fuzz` tries longer; `make fuzz` follows the coverage of the code instead.
"""

from __future__ import annotations

import os
import resource
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from targets import TARGETS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
MOST_MEMORY = 1 << 20  # KiB by which one reader may raise the peak of the process

edit = st.tuples(st.sampled_from(["set", "cut", "insert", "repeat"]), st.integers(0, 1 << 16), st.binary(max_size=8))


def edited(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    """Overwrite, cut, insert or repeat at places of `data`."""
    for kind, place, more in edits:
        at = place % (len(data) + 1)
        end = at + max(1, len(more))
        replaced = {"set": more, "cut": b"", "insert": more + data[at:end], "repeat": data[at:end] * 9}[kind]
        data = data[:at] + replaced + data[end:]
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_a_sentence(name: str) -> None:
    target, seeds = TARGETS[name]
    honest_or_not = st.builds(edited, st.sampled_from(seeds), st.lists(edit, max_size=6))

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES < 100,
              suppress_health_check=[*HealthCheck])  # fmt: skip
    @given(honest_or_not | st.binary(max_size=200))
    def attempt(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            place = Path(folder) / "run"
            place.mkdir()
            target(data, place)

    # Other tests have run in this process, and the peak holds what they took.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    attempt()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY


@pytest.mark.parametrize("name", TARGETS)
def test_honest_inputs_do_not_stop_at_the_first_byte(name: str, tmp_path: Path) -> None:
    """Fuzzing reaches what lies behind the first checks only if it begins from what passes them."""
    target, seeds = TARGETS[name]
    for seed in seeds:
        target(seed, tmp_path)
