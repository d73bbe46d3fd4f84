"""Files of weights that are missing, damaged or something else end in one sentence, whatever reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from util.errors import UserError
from util.weight_files import read_weights, torchvision_file

NAME = "net-0123abcd.pth"


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("was_run",)


def test_tensors_are_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pth")
    assert read_weights(tmp_path / "x.pth", flag="--net", needed="a net")["a"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "no such file"),
        (b"", "cannot be read"),
        (b"nothing", "cannot be read"),
        ({"a": Code()}, "cannot be read"),
        ([1], "holds a list"),
        ({1: torch.ones(1)}, "not tensors by name"),
    ],
)
def test_other_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, fault: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=fault) as caught:
        read_weights(path, flag="--net", needed="a net of Name's")
    assert str(caught.value).startswith(f"--net {path}")
    assert str(caught.value).endswith("needed is a net of Name's")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "was_run").exists()


def test_a_file_in_the_cache_is_not_downloaded_and_no_network_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError, match=rf"the net needs {NAME} .*0123abcd.*no network.*--net FILE; or go without"):
        torchvision_file(NAME, reader="the net", flag="--net", otherwise="or go without")
    path = tmp_path / "checkpoints" / NAME
    path.touch()
    assert torchvision_file(NAME, reader="the net", flag="--net", otherwise="or go without") == path
