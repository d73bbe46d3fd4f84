"""Errors that are the user's to fix, and the exit codes of every command."""

from __future__ import annotations

import errno
import importlib.util
import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

EXIT_OK = 0
EXIT_USER_ERROR = 2  # a wrong flag, file or data set; the message says what to do
EXIT_NON_FINITE = 3  # a loss or a gradient became NaN or infinite; the last good checkpoint is kept
EXIT_LOST_PROCESS = 4  # a data worker or another process of a distributed run died, or no longer answers
EXIT_ABORTED = 130  # Ctrl-C at a time when nothing is to be saved
EXIT_INTERRUPTED = 75  # SIGTERM, SIGUSR1 or Ctrl-C in training: what was trained is saved, `--continue_train` goes on


# Problems of a disk, a folder or a limit, not of the program: reported in a sentence wherever they occur.
_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space, or name a folder on another disk",
    errno.EDQUOT: "the quota is used up: free some space, or name a folder on another disk",
    errno.EROFS: "the file system is read-only: name a folder that can be written",
    errno.EACCES: "permission denied: change its permissions, or name another",
    errno.EPERM: "not permitted: change its permissions, or name another",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.ENOENT: "no such file or folder: check the name, and that nothing removed it meanwhile",
    errno.EEXIST: "exists and is not a folder: name another",
    errno.EFBIG: "larger than the file system or `ulimit -f` allows: name a folder elsewhere",
    errno.EIO: "the disk reports an input/output error: check it, or name a folder on another disk",
    errno.EMFILE: "too many open files: raise `ulimit -n`, or lower --num_workers",
    errno.ENOTDIR: "a part of the path is a file, not a folder: name another",
    errno.EISDIR: "is a folder where a file is wanted: name another",
    errno.ELOOP: "a loop of links: name the file itself",
    errno.ESTALE: "the network file system has lost the file: try again",
}


class UserError(Exception):
    """A mistake that a user can correct: the message names the flag or file and says what is wrong and what to do."""

    exit_code = EXIT_USER_ERROR


class DataError(UserError):
    """A picture, map or folder that cannot be used as it is."""


class LostProcessError(UserError):
    """A process that this one works with died or no longer answers; the message says how to continue."""

    exit_code = EXIT_LOST_PROCESS


def remedy(error: OSError) -> str:
    """Return the problem and what to do about it; empty for other errors."""
    return _REMEDIES.get(error.errno or 0, "")


def disk_problem(error: OSError) -> str:
    """Return a sentence, with the file, for a problem of a disk or a folder; empty for other errors."""
    where = error.filename2 or error.filename or "standard output"  # our writers of files set a name
    return f"{os.fsdecode(where)}: {remedy(error)} ({error.strerror})" if remedy(error) else ""


def leave_on_interrupt(*, stop_signals: bool = False) -> None:
    """Let Ctrl-C end the process with a short message while a command still imports, before `run_main`.

    A `KeyboardInterrupt` would be a traceback there, or be handled by the library that is being imported. A Python
    without our libraries ends with a message, too.

    Args:
        stop_signals: SIGTERM and SIGUSR1 end it as well, with `EXIT_INTERRUPTED`: of training.
    """
    if importlib.util.find_spec("torch") is None:
        setup = "`make setup` installs what is needed, `source .venv/bin/activate` makes `python` the one that has it"
        sys.exit(_report(f"{sys.executable} has no torch: {setup}", EXIT_USER_ERROR))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell ignores it
        signal.signal(signal.SIGINT, _leave)
    for number in (signal.SIGTERM, signal.SIGUSR1) if stop_signals else ():
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        os.write(2, b"interrupted\n")
        os._exit(EXIT_ABORTED)
    os.write(2, f"{signal.Signals(number).name}: stopped while no step was made\n".encode())
    os._exit(EXIT_INTERRUPTED)


def run_main(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and leave with its exit code; a `UserError` prints its message, no traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may be unable to show a file's name
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = main()
        sys.stdout.flush()
    except UserError as error:
        code = _report(str(error), error.exit_code)
    except BrokenPipeError:  # the reader has seen enough, as in `... --dry_run | head`
        _drop_output()
        code = EXIT_OK
    except OSError as error:
        if not remedy(error):
            raise
        code = _report(disk_problem(error), EXIT_USER_ERROR)
    except MemoryError:
        code = _report("out of memory: smaller pictures, --batch_size and --num_workers need less", EXIT_USER_ERROR)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = EXIT_ABORTED
    sys.exit(code or EXIT_OK)


def _report(message: str, code: int) -> int:
    try:
        sys.stdout.flush()  # what was printed before comes first
    except OSError:
        _drop_output()
    print(f"error: {message}", file=sys.stderr)
    return code


def _drop_output() -> None:
    """Discard printed text that cannot be written; Python would complain again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
