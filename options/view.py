"""Writes the flags in util/opt.py, the typed view of all options, from the parsers (`make opt`)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from inspect import get_annotations
from pathlib import Path
from typing import Any

from data import DATASETS
from models import MODELS
from options.edit_options import EditOptions
from options.export_options import ExportOptions
from options.parser import StrictParser
from options.test_options import TestOptions
from options.train_options import TrainOptions
from util import opt

# Flags without a default whose type leaves None out: where they are passed on, a check has insisted on a value, or a
# data set or a method has filled one in.
GIVEN = frozenset(
    "name dataroot load_size label_nc ignore_label background_ngf background_saspm inpaint_ngf style_ngf "
    "style_dim object_size foreground things base_model clip_model content style_image style_source style_class "
    "image label mask output box segmenter results_dir".split()
)
MARK = "    # --- flags, written by `make opt`\n"


def parsers() -> Iterator[StrictParser]:
    """Yield the parser of each command with each method and data set."""
    for command in (TrainOptions(), TestOptions(), EditOptions(), ExportOptions()):
        for command.model in map(MODELS.get, MODELS.names()):
            for mode in DATASETS.names():
                yield command.build_parser(mode)


def type_of(action: argparse.Action) -> str:
    """Return the type of a flag's values, None aside."""
    if action.nargs == 0:
        return "bool"
    convert: Any = action.type or str
    given = convert if isinstance(convert, type) else get_annotations(convert).get("return", Any)
    name = given if isinstance(given, str) else given.__name__
    return f"list[{name}]" if action.nargs else name


def render() -> str:
    """Return the text of util/opt.py: what stands there above the flags, and the flags."""
    head, mark, _ = Path(opt.__file__).read_text().partition(MARK)
    types: dict[str, str] = {}
    optional: set[str] = set()
    for parser in parsers():
        for name, action in parser.actions_by_name().items():
            if types.setdefault(name, type_of(action)) != type_of(action):
                raise TypeError(f"--{name} is {types[name]} in one parser and {type_of(action)} in another")
            if parser.get_default(name) is None and name not in GIVEN:
                optional.add(name)
    flags = [f"    {name}: {types[name]}{' | None' * (name in optional)}\n" for name in sorted(types)]
    return "".join([head, mark, *flags])


if __name__ == "__main__":
    Path(opt.__file__).write_text(render())
