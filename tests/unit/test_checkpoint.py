"""Checkpoints survive kills, full disks and flipped bytes."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainers.checkpoint import CheckpointError, Checkpoints, load_checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def state(step: int, size: int = 50) -> dict[str, Any]:
    return {"step": step, "model": {"w": torch.arange(size, dtype=torch.float32) + step}, "betas": (0.5, 0.999)}


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << bit
    path.write_bytes(data)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a["step"] == b["step"] and a["betas"] == b["betas"] and torch.equal(a["model"]["w"], b["model"]["w"])


def test_round_trip_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    save_checkpoint(state(1), tmp_path / "a.pt")
    save_checkpoint(state(2), tmp_path / "a.pt")
    assert same(load_checkpoint(tmp_path / "a.pt"), state(2))
    assert os.listdir(tmp_path) == ["a.pt"]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_flipped_bit_never_loads_as_another_state(tmp_path: Path, position: int, bit: int) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(state(1), path)
    flip(path, position, bit)
    try:
        loaded = load_checkpoint(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:
        assert same(loaded, state(1))  # padding between records may change


def test_flipped_byte_in_the_weights_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(state(1), path)
    flip(path, path.read_bytes().index(state(1)["model"]["w"].numpy().tobytes()) + 7)
    torch.load(path, weights_only=True)  # torch alone takes it
    with pytest.raises(CheckpointError, match=r"checksum|CRC"):
        load_checkpoint(path)


@pytest.mark.parametrize("length", [0, 10, 700, -1])
def test_truncated_file_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(state(1), path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"a\.pt: truncated, damaged"):
        load_checkpoint(path)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"model": Payload()}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        load_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "owned").exists()


def test_newest_and_kept_files_stay(tmp_path: Path) -> None:
    for keep, wanted in ((1, [5, 4]), (2, [10, 9]), (3, [15, 14, 13])):
        checkpoints = Checkpoints(tmp_path, keep=keep)
        for step in range(wanted[0] - 4, wanted[0] + 1):
            checkpoints.save(state(step), step)
        assert [p.name for p in checkpoints.step_files()] == [f"step_{n}.pt" for n in wanted]
        assert same(load_checkpoint(checkpoints.latest), state(wanted[0]))


def test_latest_is_no_second_copy_on_disk(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save(state(1), 1)
    assert path.samefile(tmp_path / "latest.pt")


def test_latest_is_copied_where_links_are_not_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(state(1), 1)
    assert not path.samefile(checkpoints.latest) and same(load_checkpoint(checkpoints.latest), state(1))
    path.write_bytes(path.read_bytes()[:-9])
    restored = checkpoints.restore()
    assert restored is not None and restored[1] == checkpoints.latest


def test_falls_back_to_the_older_file_and_names_the_bad_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(state(step), step)
    bad = tmp_path / "step_2.pt"
    bad.write_bytes(bad.read_bytes()[:-9])
    restored = checkpoints.restore()
    assert restored is not None and same(restored[0], state(1))
    out = capsys.readouterr().out
    assert out.count("step_2.pt: truncated") == 1 and "going on from the older" in out
    checkpoints.save(state(1), 1)  # the run goes on before the damaged file's step, which must not count as newest
    assert [p.name for p in checkpoints.step_files()] == ["step_1.pt"]
    assert (tmp_path / "step_2.pt.damaged").exists()


def test_files_that_a_training_removes_meanwhile_are_looked_for_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1), 1)
    listed = checkpoints.step_files

    def list_then_train_on() -> list[Path]:
        files = listed()
        monkeypatch.setattr(checkpoints, "step_files", listed)
        for step in (2, 3):
            checkpoints.save(state(step), step)
        return files

    monkeypatch.setattr(checkpoints, "step_files", list_then_train_on)
    restored = checkpoints.restore()
    assert restored is not None and restored[1].name == "step_3.pt" and not capsys.readouterr().out


def test_none_good_is_an_error_and_no_file_is_none(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore() is None and not checkpoints.exist()
    checkpoints.save(state(1), 1)
    (tmp_path / "step_1.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint can be read.*step_1\.pt"):
        checkpoints.restore()


def test_rename_that_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(state(1), path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "input/output error")))
    with pytest.raises(CheckpointError, match=r"a\.pt: cannot be written.*input/output error"):
        save_checkpoint(state(2), path)
    assert same(load_checkpoint(path), state(1)) and os.listdir(tmp_path) == ["a.pt"]


def test_no_space_left_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(state(1), path)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(CheckpointError, match=r"No space left.*Free some space"):
        save_checkpoint(state(2), path)
    assert same(load_checkpoint(path), state(1)) and os.listdir(tmp_path) == ["a.pt"]


@pytest.mark.parametrize("limit", [0, 1_000, 150_000])
def test_write_that_stops_half_way_keeps_the_old_file(tmp_path: Path, limit: int) -> None:
    """A real failing write: the process may not make files longer than `limit` bytes."""
    path = tmp_path / "a.pt"
    save_checkpoint(state(1), path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(CheckpointError, match=r"a\.pt: cannot be written"):
            save_checkpoint(state(2, size=100_000), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(load_checkpoint(path), state(1)) and os.listdir(tmp_path) == ["a.pt"]


def test_killed_while_writing_leaves_a_loadable_checkpoint(tmp_path: Path) -> None:
    """A process that does nothing but save is killed at three moments; every time all named files are whole."""
    code = """
import sys, torch
from pathlib import Path
from trainers.checkpoint import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]))
for step in range(1, 100000):
    checkpoints.save({"step": step, "w": torch.full((500_000,), float(step))}, step)
"""
    for delay in (0.0, 0.013, 0.031):
        folder = tmp_path / str(delay)
        folder.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        while not (folder / "latest.pt").exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
        process.wait()
        for path in folder.glob("*.pt"):
            if not path.name.startswith("."):
                loaded = load_checkpoint(path)
                assert torch.equal(loaded["w"], torch.full((500_000,), float(loaded["step"])))
        checkpoints = Checkpoints(folder)
        restored = checkpoints.restore()
        assert restored is not None
        checkpoints.save(state(10**6), 10**6)
        assert not list(folder.glob(".*.tmp"))  # what the kill left is swept away
