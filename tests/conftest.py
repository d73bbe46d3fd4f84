"""One thread per test process, as the tests run in parallel and their networks are tiny; and a cache of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, and for the commands that tests start

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's kept features; downloaded weights are still found where they are."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in (("TORCH_HOME", "torch"), ("HF_HOME", "huggingface")):
            patch.setenv(name, os.environ.get(name) or str(home / folder))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def cv2() -> ModuleType:
    """Return OpenCV, to compare with; skips where libGL is missing, a screen's library that it asks for."""
    path = list(sys.path)
    try:
        module: ModuleType = pytest.importorskip("cv2", exc_type=ImportError)
    finally:
        sys.path[:] = path  # a failed import leaves a folder there that has a `data` of its own
    return module
