"""Which of its flags make a run's method another than the usual one: what tells ablations apart in result lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from options.base_options import OPTIONS_FILE, choose_model_and_data, saved_options
from options.parser import StrictParser
from options.train_options import TrainOptions

WHERE = ("FILE", "RUN")  # metavars of flags that say where something is, as machines and seeds differ in


def method_flags(run_dir: Path) -> dict[str, Any]:
    """Return the flags of the method's own (architecture, losses, their rates) that differ from their defaults.

    A flag that came after the run was made is left out where it does not change what the run meant.
    """
    saved = saved_options(run_dir / OPTIONS_FILE)
    command = TrainOptions()
    command.model, _ = choose_model_and_data(saved)
    parser = StrictParser(add_help=False)
    command.add_flags(parser)
    shared = parser.actions_by_name().keys()
    command.model.modify_commandline_options(parser, is_train=True)
    own = {name: flag for name, flag in parser.actions_by_name().items() if name not in shared}
    return {
        name: saved[name]
        for name, flag in sorted(own.items())
        if name in saved and saved[name] != parser.get_default(name) and flag.metavar not in WHERE
    }
