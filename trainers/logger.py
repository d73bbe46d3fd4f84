"""Logs of a run: `stats.jsonl`, pictures, TensorBoard."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from util.files import write_text
from util.images import save_png
from util.text_files import parse_json

LONGEST_LINE = 1 << 14  # bytes, more than a line of the log has


class Logger:
    """Writer of `<run>/stats.jsonl`, `<run>/images/` and `<run>/tensorboard/`.

    Lines after `start_step` are dropped, so that a resumed run's file equals that of an uninterrupted one.

    Args:
        run_dir: the run's folder.
        enabled: False in all processes but the first, which alone writes.
        tensorboard: also write TensorBoard events, if the package is there.
        start_step: the step from which the run starts.
    """

    def __init__(self, run_dir: Path, *, enabled: bool, tensorboard: bool, start_step: int) -> None:
        self.run_dir, self.enabled = run_dir, enabled
        self.stats = run_dir / "stats.jsonl"
        self._board: Any = None
        if enabled:
            _drop_lines_after(self.stats, start_step)
            self._file = open(self.stats, "a", encoding="utf-8")  # noqa: SIM115 (closed in `close`)
            if tensorboard:
                self._board = _open_board(run_dir / "tensorboard", start_step)

    def log(self, step: int, line: Mapping[str, Any]) -> None:
        """Append one line: "losses", "lr" and "grad_norm" hold numbers by loss or phase."""
        if not self.enabled:
            return
        self._file.write(json.dumps({"step": step, **line}) + "\n")
        self._file.flush()
        if self._board:
            for group, key in (("loss", "losses"), ("lr", "lr"), ("grad_norm", "grad_norm")):
                for name, value in line[key].items():
                    self._board.add_scalar(f"{group}/{name}", value, step)

    def validation(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line whose "eval" holds the metrics of a validation."""
        if not self.enabled:
            return
        self._file.write(json.dumps({"step": step, "eval": dict(values)}) + "\n")
        self._file.flush()
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(f"eval/{name}", value, step)

    def image(self, step: int, grid: np.ndarray) -> None:
        """Write a picture (H, W, 3) uint8 as `images/step_<step, 7 digits>.png`."""
        if not self.enabled:
            return
        save_png(grid, self.run_dir / "images" / f"step_{step:07d}.png")
        if self._board:
            self._board.add_image("preview", grid, step, dataformats="HWC")

    def flush(self) -> None:
        """Flush all lines and events to disk; steps before a checkpoint are not logged again."""
        if self.enabled:
            os.fsync(self._file.fileno())
        if self._board:
            self._board.flush()

    def close(self) -> None:
        """Close the files."""
        if self.enabled:
            self._file.close()
        if self._board:
            self._board.close()


def last_step(run_dir: Path) -> int:
    """Return the step of the last whole line of a run's log, 0 without any."""
    try:
        with open(run_dir / "stats.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LONGEST_LINE))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return 0
    steps = (_step_of(line) for line in reversed(lines))
    return next((int(step) for step in steps if step < float("inf")), 0)


def read_validations(run_dir: Path) -> list[tuple[int, dict[str, float]]]:
    """Return step and values by metric of each validation in a run's log; damaged lines are passed over."""
    found = []
    file = run_dir / "stats.jsonl"
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []:
        with suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError):
            line = parse_json(text)
            found.append((int(line["step"]), {str(name): float(value) for name, value in line["eval"].items()}))
    return found


def _drop_lines_after(path: Path, step: int) -> None:
    """Rewrite a log, atomically, without lines of later steps and without a truncated last line."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8", errors="replace")  # damaged lines are dropped
    kept = [line for line in text.splitlines() if _step_of(line) <= step]
    write_text(path, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return float("inf")


def _open_board(folder: Path, start_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("warning: tensorboard is not installed; stats.jsonl and images/ are written all the same", flush=True)
        return None
    _date_back(folder)
    return SummaryWriter(str(folder), purge_step=start_step + 1)


def _date_back(folder: Path) -> None:
    """Rename event files dated now or later, which a clock that was set back leaves behind.

    TensorBoard reads files in the order of their names, which start with the time, and lets a later file override
    an earlier one. Read first, a resumed run's events would be replaced by those of the earlier start.
    """
    prefix = "events.out.tfevents."
    files = sorted(folder.glob(f"{prefix}*"), key=lambda path: path.name)
    now = int(time.time())
    if files and files[-1].name.removeprefix(prefix) >= f"{now:010d}":
        for age, path in enumerate(reversed(files), start=1):
            rest = path.name.removeprefix(prefix).partition(".")[2]
            path.rename(folder / f"{prefix}{now - age:010d}.{rest}")
