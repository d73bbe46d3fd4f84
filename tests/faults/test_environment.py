"""What a machine may lack or have wrong: a pair of torch and torchvision, a home, a cache that can be written."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from metrics.features.cache import default_cache_dir
from metrics.features.inception import FIDFeatures
from metrics.segments.unet import build_segmenter_net
from util.errors import UserError


@pytest.mark.fault("19", "torchvision of another torch", sees="both versions and the torchvision that fits")
def test_torchvision_of_another_pair(ledger: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision").mkdir()
    fault = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "torchvision" / "__init__.py").write_text(fault)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "pytorch_fid")]:
        monkeypatch.delitem(sys.modules, name)
    version = torch.__version__.partition("+")[0]
    fitting = f"pip install 'torchvision==0.{int(torch.__version__.split('.')[1]) + 15}.*'"
    told = rf"torchvision::nms does not exist.*torch {re.escape(version)} and .*{re.escape(fitting)}"
    makers = [FIDFeatures, lambda: build_segmenter_net(arch="lraspp", width=8, num_classes=3)]
    for number, attempt in enumerate(ledger.attempts(2)):
        with attempt, pytest.raises(UserError, match=told):
            makers[number]()
    for name in [name for name in sys.modules if name.partition(".")[0] == "pytorch_fid"]:
        del sys.modules[name]  # imported by halves


def test_a_cache_that_takes_no_files_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert default_cache_dir() is None
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert default_cache_dir() is None
