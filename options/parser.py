"""An argument parser that never guesses: no abbreviations, no silent defaults, near names for typos."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from util.errors import UserError
from util.registry import did_you_mean
from util.text_files import load_yaml
from util.versions import VERSION

LONGEST_NAME = 200  # bytes; file systems allow 255, and files made from a run's name add to it
# Flags of pix2pix, SPADE and what was built on them, and ours of the same purpose; a message names the first there is
ELSEWHERE = {
    "--niter": ("--max_steps (in optimiser steps, not epochs)",),
    "--niter_decay": ("--decay_steps (in optimiser steps, not epochs)", "--max_steps (in optimiser steps, not epochs)"),
    "--gpu_ids": ("--device, and CUDA_VISIBLE_DEVICES to choose GPUs; several: torchrun (docs/gpus.md)",),
    "--which_epoch": ("--step", "--continue_train, which takes the last checkpoint"),
    "--batchSize": ("--batch_size",),
    "--nThreads": ("--num_workers",),
    "--loadSize": ("--load_size",),
    "--fineSize": ("--crop_size",),
    "--phase": ("--split",),
    "--how_many": ("--num_images",),
    "--display_freq": ("--image_every",),
    "--print_freq": ("--log_every",),
    "--save_epoch_freq": ("--save_every",),
    "--save_latest_freq": ("--save_every",),
    "--no_vgg_loss": ("--lambda_vgg 0",),
    "--no_ganFeat_loss": ("--lambda_feat 0",),
    "--contain_dontcare_label": ("--ignore_label",),
    "--label_dir": ("--dataroot, a folder made by scripts/prepare_folder.py",),
    "--image_dir": ("--dataroot, a folder made by scripts/prepare_folder.py",),
    "--instance_dir": ("--dataroot, a folder made by scripts/prepare_folder.py",),
    "--tf_log": ("--tensorboard",),
}
PROVENANCE = "provenance"  # the part of a saved opt.yaml that is not a flag


class ShowDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults in --help where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class StrictParser(argparse.ArgumentParser):
    """Errors are raised as `UserError`; defaults are checked like values given by a user."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=ShowDefaults, **kwargs)
        self.add_argument("--version", action="version", version=f"SemEdit {VERSION}", help="print the version")

    def error(self, message: str) -> NoReturn:
        """Raise `UserError` instead of leaving the program, as argparse does."""
        raise UserError(f"{message} (see {self.prog} --help)")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; unknown flags are answered with the nearest known ones."""
        parsed, unknown = self.parse_known_args(args, namespace)
        for text in unknown:
            if text.startswith("--"):
                flag = text.split("=")[0]
                self.error(f"{flag} is unknown.{self._counterpart(flag)}")
        if unknown:
            self.error(f"stray argument: {unknown[0]}")
        return parsed

    def _counterpart(self, flag: str) -> str:
        """Return what stands here for a flag of another code base, else which known flag looks like it."""
        for ours in ELSEWHERE.get(flag, ()):
            if re.split("[ ,]", ours)[0] in self._option_string_actions:
                return f" Here it is {ours}."
        return did_you_mean(flag, self._option_string_actions)

    def set_defaults(self, **defaults: Any) -> None:
        """Change defaults of flags that exist, within their choices."""
        actions = self.actions_by_name()
        for name, value in defaults.items():
            if name not in actions:
                raise ValueError(f"set_defaults: no flag --{name}.{did_you_mean(name, actions)}")
            choices = actions[name].choices
            if choices is not None and value not in choices:
                raise ValueError(f"set_defaults: --{name} {value!r} is not one of {list(choices)}")
        super().set_defaults(**defaults)

    def actions_by_name(self) -> dict[str, argparse.Action]:
        """Flags by the name that they have in the options."""
        return {a.dest: a for a in self._actions if a.dest not in ("help", "version")}

    def names_set_by(self, args: list[str]) -> set[str]:
        """Return the options that a list of arguments sets."""
        unset = object()
        blank = argparse.Namespace(**dict.fromkeys(self.actions_by_name(), unset))
        return {name for name, value in vars(self.parse_args(args, blank)).items() if value is not unset}

    def yaml_to_args(self, values: Mapping[str, Any], source: str) -> list[str]:
        """Turn a mapping of a YAML file into arguments, so that it is checked like the command line.

        Raises:
            UserError: a key is not a flag, or a value does not have its form.
        """
        actions = self.actions_by_name()
        args: list[str] = []
        for key, value in values.items():
            if key not in actions:
                raise UserError(f"{source}: '{key}' is not an option.{did_you_mean(str(key), actions)}")
            action = actions[key]
            switch = isinstance(action, argparse.BooleanOptionalAction)
            if isinstance(value, bool) != switch and value is not None:
                wanted = "true or false" if switch else "a value, not true or false"
                raise UserError(f"{source}: '{key}: {value}' should be {wanted}")
            if value is None:
                continue
            if switch:
                args.append(f"--{key}" if value else f"--no-{key}")
            elif isinstance(value, list):
                args += [f"--{key}", *map(str, value)]
            elif isinstance(value, dict):
                raise UserError(f"{source}: '{key}' holds a mapping; options are one level deep")
            else:
                args.append(f"--{key}={value}")
        return args


def read_yaml(path: Path, flag: str) -> dict[str, Any]:
    """Read a mapping from a YAML file; raises `UserError` naming the flag and the file."""
    try:
        values = load_yaml(path)
    except FileNotFoundError as error:
        raise UserError(f"{flag} {path}: no such file") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{flag} {path}: not a readable YAML file ({error})") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{flag} {path}: expected 'option: value' lines")
    return values


def script_parser(text: str | None) -> StrictParser:
    """Return a parser of a script, whose --help shows the script's docstring with its lines as they are."""

    class Format(argparse.RawDescriptionHelpFormatter, ShowDefaults):
        pass

    parser = StrictParser(description=text)
    parser.formatter_class = Format
    return parser


def check_name(name: str | None) -> None:
    """Raise `UserError` unless `--name` can be the name of a folder in --checkpoints_dir."""
    if not name:
        raise UserError("--name is missing: give the run a name, e.g. --name my_run")
    if not re.fullmatch(r"[\w][\w.+-]*", name):
        raise UserError(f"--name {name!r}: use letters, digits, '_', '-', '.', '+' alone")
    if len(name.encode()) > LONGEST_NAME:
        raise UserError(f"--name {name[:20]}...: has {len(name.encode())} bytes, at most {LONGEST_NAME} are possible")
