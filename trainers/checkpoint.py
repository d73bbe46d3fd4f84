"""Checkpoints: one file with all state, written atomically, verified when read.

A file is either complete or absent: it is written under a temporary name, flushed to disk, then renamed. Reading
first checks every byte against the file's checksum, since a flipped bit would otherwise load without an error.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch

from util.errors import UserError
from util.files import atomic_file, cause, flush_folder
from util.sealed import verify_zip, write_sealed_zip

STEP_FILE = re.compile(r"step_(\d+)\.pt")
MISFITS = (KeyError, RuntimeError, ValueError, TypeError, AttributeError)  # raised by states that a model does not take
LOOKS = 20  # attempts, while a training replaces the checkpoints that are being read


class CheckpointError(UserError):
    """A checkpoint that cannot be written or read; the message names the file."""


class NoCheckpointError(CheckpointError):
    """There is no file of this name."""


def does_not_fit(path: Path, error: Exception) -> CheckpointError:
    """Return the error for a state that does not fit a model, with the first of torch's many lines about shapes."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return CheckpointError(
        f"{path}: does not fit the model ({lines[min(1, len(lines) - 1)].strip()}). Its architecture comes from the "
        "run's opt.yaml: leave the model's flags out."
    )


def are_networks(value: Any) -> TypeGuard[Mapping[str, Mapping[str, Any]]]:
    """Return whether a value has the form {network: {name: tensor}}."""
    return isinstance(value, Mapping) and all(
        isinstance(state, Mapping) and all(isinstance(name, str) for name in state) for state in value.values()
    )


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write `state` (tensors and plain values) to `path`, atomically.

    Raises:
        CheckpointError: the disk is full or the folder is not writable. What was at `path` is untouched.
    """
    try:
        with atomic_file(path) as file:
            write_sealed_zip(file, lambda stream: torch.save(state, stream))
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        raise CheckpointError(
            f"{path}: cannot be written ({cause(error)}). Free some space or lower --keep; "
            "earlier checkpoints are untouched, so --continue_train goes on from the newest one."
        ) from error


def load_checkpoint(path: Path, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a file of `save_checkpoint`, every byte verified; nothing but tensors and plain values is unpickled.

    Raises:
        CheckpointError: the file is missing, truncated, damaged or not a checkpoint.
    """
    try:
        verify_zip(path)
        state = torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError as error:
        raise NoCheckpointError(f"{path}: no such checkpoint") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive fails in many ways: zlib, struct, pickle, torch's own reader
        raise CheckpointError(f"{path}: truncated, damaged or not a checkpoint ({cause(error)})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a checkpoint, it holds a {type(state).__name__}")
    return state


class Checkpoints:
    """The checkpoints of one run: `step_<N>.pt`, and `latest.pt`, the newest of them.

    Args:
        run_dir: the run's folder.
        keep: how many step files to keep; at least two, in case the newest one is damaged.
    """

    def __init__(self, run_dir: Path, *, keep: int = 2) -> None:
        self.run_dir, self.keep = run_dir, max(2, keep)
        self.latest = run_dir / "latest.pt"

    def exist(self) -> bool:
        """Whether the run has any checkpoint, good or bad."""
        return self.latest.exists() or bool(self.step_files())

    def newest_step(self) -> int:
        """Return the step of the newest step file, -1 if there is none."""
        return max((int(path.stem.removeprefix("step_")) for path in self.step_files()), default=-1)

    def step_files(self) -> list[Path]:
        """All step files, newest first."""
        numbered = [(int(m[1]), p) for p in self.run_dir.glob("step_*.pt") if (m := STEP_FILE.fullmatch(p.name))]
        return [path for _, path in sorted(numbered, reverse=True)]

    def save(self, state: dict[str, Any], step: int) -> Path:
        """Write `step_<step>.pt`, point `latest.pt` at it, remove what is older than the last `keep`."""
        for leftover in self.run_dir.glob(".*.pt.*.tmp"):  # of a process that was killed while writing
            leftover.unlink(missing_ok=True)
        path = self.run_dir / f"step_{step}.pt"
        save_checkpoint(state, path)
        self.point_latest_at(path)
        self._set_aside_after(step)
        for old in self.step_files()[self.keep :]:
            old.unlink(missing_ok=True)
        return path

    def restore(self, map_location: torch.device | str = "cpu") -> tuple[dict[str, Any], Path] | None:
        """Load the newest good checkpoint; None if the run has none. Bad files are named in warnings.

        A training in progress may remove files that were just listed; then the newer ones are tried.

        Raises:
            CheckpointError: there are files, but none is good.
        """
        for _ in range(LOOKS):
            with contextlib.suppress(NoCheckpointError):
                return self._newest_good(map_location)
        raise CheckpointError(f"{self.run_dir}: its checkpoints are replaced faster than they can be read")

    def _newest_good(self, map_location: torch.device | str) -> tuple[dict[str, Any], Path] | None:
        problems: list[str] = []
        for path in self._candidates():
            try:
                state = load_checkpoint(path, map_location)
            except NoCheckpointError:
                raise
            except CheckpointError as error:
                problems.append(str(error))
                print(f"warning: {error}", flush=True)
                continue
            if problems:
                print(f"warning: going on from the older {path}", flush=True)
            return state, path
        if problems:
            raise CheckpointError(f"{self.run_dir}: no checkpoint can be read: " + "; ".join(problems))
        return None

    def _candidates(self) -> list[Path]:
        """Newest first. `latest.pt` comes second: it is never newer than the newest step file, and may be a copy."""
        files = self.step_files()
        with contextlib.suppress(FileNotFoundError):  # a training may be replacing either
            if self.latest.exists() and not any(self.latest.samefile(path) for path in files):
                files.insert(1, self.latest)
        return files

    def point_latest_at(self, path: Path) -> None:
        """Make `latest.pt` the step file `path`; a killed process may have left it at an older one."""
        if self.latest.exists() and self.latest.samefile(path):
            return
        temp = self.latest.with_name(f".{self.latest.name}.{os.getpid()}.tmp")
        try:
            try:
                os.link(path, temp)
            except OSError:  # a file system without hard links
                shutil.copyfile(path, temp)
            os.replace(temp, self.latest)
            flush_folder(self.run_dir)
        except OSError as error:
            raise CheckpointError(f"{self.latest}: cannot be written ({cause(error)}); {path} is good") from error
        finally:
            temp.unlink(missing_ok=True)

    def _set_aside_after(self, step: int) -> None:
        """Rename files of later steps, which could not be read when the run continued from an older one."""
        for path in self.step_files():
            if int(STEP_FILE.fullmatch(path.name)[1]) > step:  # type: ignore[index]
                path.rename(path.with_name(path.name + ".damaged"))
