"""Every flag of every command has a help text, and all are written alike: phrases that are clear without the flag."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data import DATASETS
from models import MODELS
from options.parser import StrictParser

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (*ROOT.glob("*.py"), *(ROOT / "scripts").glob("*.py"))
    if "run_main(main)" in path.read_text()
)
NAMES = {"Adam", "Stable"}  # words that are names, with a capital first alone
DEPENDENT = ("of", "its", "their", "as", "likewise")  # begin a phrase that something has to go before


def help_lines(command: str) -> Iterator[list[str]]:
    """Return the lines that between them show all flags of a command."""
    if command == "train":
        for model in MODELS.names():
            modes = MODELS.get(model).dataset_modes
            modes = modes or tuple(mode for mode in DATASETS.names() if DATASETS.get(mode).scenes)
            yield from (["--help", "--model", model, "--dataset_mode", mode] for mode in modes)
    elif command == "test":
        yield from (["--help", "--model", model] for model in MODELS.names())
    else:
        yield ["--help"]


def shown_by(main: Callable[[list[str]], int], line: list[str], patch: pytest.MonkeyPatch) -> list[argparse.Action]:
    """Return what a line of --help shows."""
    shown: list[argparse.Action] = []
    patch.setattr(StrictParser, "print_help", lambda self, file=None: shown.extend(self._actions))
    with pytest.raises(SystemExit):
        main(line)
    return shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_explained_and_all_alike(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    main = importlib.import_module(command).main
    for line in help_lines(command):
        flags = shown_by(main, line, monkeypatch)
        assert len(flags) > 2, line
        wrong = [f"{command} {flag.dest}: {flag.help!r} {why}" for flag in flags if (why := fault(flag.help))]
        assert not wrong, "\n".join(wrong)


def fault(text: str | None) -> str:
    """Return what is wrong with a help text; an empty string if nothing is."""
    if not text or not text.strip():
        return "is missing"
    first = re.split(r"[\s,:;']", text, maxsplit=1)[0]
    if re.fullmatch("[A-Z][a-z]+", first) and first not in NAMES:
        return "begins with a capital: it is a phrase"
    if first in DEPENDENT:
        return f"begins with '{first}': say of what"
    if text.endswith("."):
        return "ends with a full stop: it is a phrase"
    if ". Default" in text:
        return "has its default as a sentence; write '; default: ...'"
    return ""


@pytest.mark.parametrize(
    "text",
    [None, "", "Folder of the runs", "of the scenes", "its label map", "as train.py's", "folder of the runs.",
     "classes. Default: all"],
)  # fmt: skip
def test_the_rule_finds_what_is_against_it(text: str | None) -> None:
    assert fault(text)
