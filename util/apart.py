"""One call in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from util.errors import LostProcessError

T = TypeVar("T")


def apart(function: Callable[..., T], *args: object) -> T:
    """Return `function(*args)` from a new process, whose memory is that of this call alone.

    Raises:
        LostProcessError: the process was killed, as when memory runs out.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            return process.submit(function, *args).result()
        except BrokenProcessPool as error:
            raise LostProcessError("a process died, usually because memory ran out") from error
