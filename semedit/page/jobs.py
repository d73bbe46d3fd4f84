"""The page's slow work, one job after the other, while everything else is answered at once."""

from __future__ import annotations

import secrets
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from util.errors import UserError

MOST_WAITING = 8
MOST_KEPT, MOST_KEPT_BYTES = 12, 256 << 20  # of finished jobs; the oldest are forgotten


class BusyError(UserError):
    """Too many jobs wait already."""


class CancelledError(Exception):
    """The job is not wanted any more."""


@dataclass
class Job:
    """A piece of work with what it has made so far.

    Args:
        work: does it; calls `step` before each of its parts.
        total: number of parts.
    """

    work: Callable[[Job], None]
    total: int
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))  # who knows it may see the results
    state: str = "waiting"  # "running", "done", "failed", "cancelled"
    done: int = 0
    error: str = ""
    facts: dict[str, Any] = field(default_factory=dict)  # about the results, for the page
    files: dict[str, bytes] = field(default_factory=dict)
    unwanted: bool = False

    def step(self, done: int) -> None:
        """Say that `done` parts are finished; raises `CancelledError` if the rest is not wanted."""
        self.done = done
        if self.unwanted:
            raise CancelledError

    def add(self, name: str, content: bytes) -> None:
        """Keep a file for the page to fetch."""
        self.files = {**self.files, name: content}  # another thread may be listing them

    def tell(self, **facts: Any) -> None:
        """Keep facts for the page to show."""
        self.facts = {**self.facts, **facts}


class JobQueue:
    """Runs jobs in a thread of its own, in the order in which they came."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Job], None], total: int = 1) -> Job:
        """Queue a job; raises `BusyError` if too many wait."""
        with self._changed:
            if len(self._waiting()) >= MOST_WAITING:
                raise BusyError(f"{MOST_WAITING} pieces of work are waiting already; try again in a moment")
            job = Job(work, total)
            self._jobs[job.key] = job
            self._changed.notify_all()
        return job

    def get(self, key: str) -> Job | None:
        """Return a job, None if there is none, or it was forgotten."""
        with self._changed:
            return self._jobs.get(key)

    def ahead(self, job: Job) -> int:
        """Return how many jobs come before one that waits."""
        with self._changed:
            waiting = self._waiting()
            running = sum(other.state == "running" for other in self._jobs.values())
            return waiting.index(job) + running if job in waiting else 0

    def cancel(self, job: Job) -> None:
        """Take a job from the queue, or end it before its next part."""
        with self._changed:
            job.unwanted = True
            if job.state == "waiting":
                self._finish(job, "cancelled")

    def end(self) -> None:
        """Stop after the part that is being made."""
        with self._changed:
            self._ended = True
            for job in self._jobs.values():
                job.unwanted = True
            self._changed.notify_all()
        self._thread.join(timeout=10)

    def _waiting(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.state == "waiting"]

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or bool(self._waiting()))
                if self._ended:
                    return
                job = self._waiting()[0]
                job.state = "running"
            state = self._outcome(job)
            with self._changed:
                self._finish(job, state)

    @staticmethod
    def _outcome(job: Job) -> str:
        try:
            job.work(job)
        except CancelledError:
            return "cancelled"
        except UserError as error:
            job.error = str(error)
            return "failed"
        except MemoryError:
            job.error = "out of memory: take a smaller picture, or fewer results"
            return "failed"
        except Exception:
            traceback.print_exc(file=sys.stderr)
            job.error = "this should not happen: the terminal in which the page was started says more"
            return "failed"
        job.done = job.total
        return "done"

    def _finish(self, job: Job, state: str) -> None:
        job.state = state
        job.work = _nothing  # it holds the pictures that were sent
        if state != "done":
            job.files = {}
        finished = [each for each in self._jobs.values() if each.state not in ("waiting", "running")]
        size = sum(len(content) for each in finished for content in each.files.values())
        for old in finished[:-1]:
            if len(finished) <= MOST_KEPT and size <= MOST_KEPT_BYTES:
                break
            size -= sum(map(len, old.files.values()))
            finished = finished[1:]
            del self._jobs[old.key]


def _nothing(job: Job) -> None:
    pass
