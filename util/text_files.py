"""Safe reading of YAML and JSON from untrusted files: no code, bounded expansion, one kind of error."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from util.files import cause, require_regular

MOST_BYTES = 1 << 20  # of a YAML file; ours have a few thousand
MOST_DEPTH = 100  # of brackets
MOST_NODES = 100_000  # of its values, those counted again that aliases repeat


def load_yaml(path: Path) -> Any:
    """Return the value of a YAML file, of plain types.

    Raises:
        OSError: it cannot be read.
        ValueError: not YAML, tags of Python objects, nested too deeply, or growing beyond bounds by its aliases.
    """
    return parse_yaml(_read(path))


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text; raises `ValueError` as `load_yaml` does."""
    depth = accumulate(1 if char in "[{" else -1 for char in text if char in "[]{}")
    if max(depth, default=0) > MOST_DEPTH:  # PyYAML would take seconds to find out
        raise ValueError("it is nested too deeply")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > MOST_NODES:
            raise ValueError(f"its aliases make it hold more than {MOST_NODES} values")
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # besides YAMLError, malformed values raise IndexError, AttributeError, ...
        raise ValueError(cause(error) if not isinstance(error, yaml.MarkedYAMLError) else str(error)) from error


def compose_yaml(path: Path) -> yaml.Node | None:
    """Return the node tree of a file that `load_yaml` has read."""
    return yaml.compose(_read(path), yaml.SafeLoader)


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text; raises `ValueError` if it is not JSON, or is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _read(path: Path) -> str:
    require_regular(path)
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has {path.stat().st_size} bytes; at most {MOST_BYTES} are read")
    return path.read_text(encoding="utf-8")


def _count(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return how many values a node stands for, aliases followed; an alias within what it names has no end."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = MOST_NODES + 1  # while it is counted: met again, it holds itself
        parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        sizes[id(node)] = 1 + sum(_count(part, sizes) for part in parts)
    return sizes[id(node)]
