"""Calls in processes of their own."""

from __future__ import annotations

import os

import pytest

from util.apart import apart
from util.errors import LostProcessError


def test_a_call_has_a_process_of_its_own_and_its_errors_come_back() -> None:
    assert apart(os.getpid) != os.getpid()
    with pytest.raises(ValueError, match="invalid literal"):
        apart(int, "no number")


def test_a_killed_process_is_told_not_waited_for() -> None:
    with pytest.raises(LostProcessError, match="memory"):
        apart(os._exit, 9)
