"""Errors that are the user's to fix, and the exit codes of every command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

EXIT_OK = 0
EXIT_USER_ERROR = 2  # a wrong flag, file or data set; the message says what to change
EXIT_NON_FINITE = 3  # a loss or a gradient became NaN or infinite; the last good checkpoint is kept
EXIT_ABORTED = 130  # Ctrl-C at a time when nothing is to be saved
EXIT_INTERRUPTED = 75  # SIGTERM or Ctrl-C: the state was saved, `--continue_train` goes on from it


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
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = EXIT_ABORTED
    sys.exit(code or EXIT_OK)
