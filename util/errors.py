"""Errors that are the user's to fix, and the exit codes of every command."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

EXIT_OK = 0
EXIT_USER_ERROR = 2  # a wrong flag, file or data set; the message says what to change
EXIT_NON_FINITE = 3  # a loss or a gradient became NaN or infinite; the last good checkpoint is kept
EXIT_ABORTED = 130  # Ctrl-C at a time when nothing is to be saved
EXIT_INTERRUPTED = 75  # SIGTERM or Ctrl-C: the state was saved, `--continue_train` goes on from it


# Faults of a disk, a folder or a limit, not of the program: told in a sentence wherever they come from.
_WAYS_OUT = {
    errno.ENOSPC: "the disk is full: free some space, or name a folder on another disk",
    errno.EDQUOT: "the quota is used up: free some space, or name a folder on another disk",
    errno.EROFS: "the file system is read-only: name a folder that can be written",
    errno.EACCES: "permission denied: change its permissions, or name another",
    errno.EPERM: "not permitted: change its permissions, or name another",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.EIO: "the disk reports an input/output error: check it, or name a folder on another disk",
    errno.EMFILE: "too many open files: raise `ulimit -n`, or lower --num_workers",
    errno.ENOTDIR: "a part of the path is a file, not a folder: name another",
    errno.EISDIR: "is a folder where a file is wanted: name another",
    errno.ELOOP: "a loop of links: name the file itself",
    errno.ESTALE: "the network file system has lost the file: try again",
}


class UserError(Exception):
    """A mistake that a user can correct: the message names the flag or file, the fault and the way out."""

    exit_code = EXIT_USER_ERROR


class DataError(UserError):
    """A picture, map or folder that cannot be used as it is."""


def run_main(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and leave with its exit code; a `UserError` prints its message, no traceback."""
    try:
        code = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except BrokenPipeError:  # the reader has seen enough, as in `... --dry_run | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's own flush at exit complains
        code = EXIT_OK
    except OSError as error:
        if error.errno not in _WAYS_OUT:
            raise
        where = error.filename2 or error.filename or "a file"
        print(f"error: {where}: {_WAYS_OUT[error.errno]} ({error.strerror})", file=sys.stderr)
        code = EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = EXIT_ABORTED
    sys.exit(code or EXIT_OK)
