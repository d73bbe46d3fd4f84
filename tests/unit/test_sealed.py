"""Checksums of whole files: every changed byte is found; files without one are read; other readers take both kinds."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainers.checkpoint import load_checkpoint, save_checkpoint
from util.sealed import load_tensors, save_tensors, verify_zip

TENSORS = {"netG.a": torch.arange(6.0).view(2, 3), "netG.b": torch.tensor([1, 2])}


def test_any_changed_byte_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    """Also those of headers, lengths, padding and of the checksum itself, which no checksum of a member covers."""
    path = tmp_path / "a.pt"
    save_checkpoint({"moment": torch.arange(9.0)}, path)
    whole = path.read_bytes()
    for position in [*range(0, len(whole), 7), *range(len(whole) - 130, len(whole))]:
        changed = bytearray(whole)
        changed[position] ^= 1 << random.randrange(8)
        path.write_bytes(changed)
        with pytest.raises((OSError, ValueError, zipfile.BadZipFile)):
            verify_zip(path)


def test_any_cut_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint({"moment": torch.arange(9.0)}, path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 7), *range(len(whole) - 150, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises((OSError, ValueError, zipfile.BadZipFile)):
            verify_zip(path)


def test_checkpoints_without_a_checksum_are_read_and_torch_reads_those_with_one(tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / "old.pt")
    save_checkpoint({"step": 3}, tmp_path / "new.pt")
    assert load_checkpoint(tmp_path / "old.pt") == {"step": 3} == torch.load(tmp_path / "new.pt", weights_only=True)


def test_any_changed_byte_of_tensors_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS, {"step": "7"})
    whole = path.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << random.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(ValueError):
            load_tensors(path)


def test_tensors_are_equal_bytes_that_others_read_and_plain_files_are_read(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", TENSORS, {"step": "7", "source": "Zürich"})
    save_tensors(tmp_path / "b", dict(reversed(TENSORS.items())), {"step": "7", "source": "Zürich"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert load_tensors(tmp_path / "a")[1]["source"] == "Zürich"
    save_file(TENSORS, tmp_path / "plain", metadata={"step": "7"})
    for tensors in (load_file(tmp_path / "a"), load_tensors(tmp_path / "plain")[0]):
        assert all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS)
