"""Methods: one `<name>_model.py` each; they share `base_*.py`, `networks` and `losses`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from util.registry import Registry

if TYPE_CHECKING:
    from models.base_model import BaseModel

MODELS: Registry[BaseModel] = Registry(flag="--model", package=__name__, suffix="model")
