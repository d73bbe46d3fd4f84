"""Options: how flags are layered, checked, frozen and saved.

Layers, weakest first: flags' defaults < model's < data set's < (test: the run's opt.yaml) < --config YAML < command
line. YAML values become arguments placed before the user's, so all layers meet the same checks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from data import DATASETS
from data.base_dataset import BaseDataset
from data.records import CLASSES_FILE, parse_label_map, read_class_table
from models import MODELS
from models.base_model import BaseModel
from options.parser import PROVENANCE, StrictParser, check_name, read_yaml
from util.class_table import EMPTY_TABLE
from util.errors import UserError
from util.files import write_text
from util.opt import Opt
from util.registry import did_you_mean
from util.shared_flags import add_shared
from util.versions import current_commit, library_versions

OPTIONS_FILE = "opt.yaml"
PRECISIONS = ("fp32", "tf32", "bf16")  # that networks are trained in
CROP_MULTIPLE = 64  # pixels: three stages at 1/4, 1/2 and 1, the smallest at 16


class Options(Opt):
    """Parsed values, read-only. `set_by` says which layer set each of them."""

    def __init__(self, values: dict[str, Any], set_by: dict[str, str]) -> None:
        super().__init__(**values, _set_by=set_by)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"options are frozen: cannot set {name}")

    def values(self) -> dict[str, Any]:
        """All options by name."""
        return {k: v for k, v in vars(self).items() if not k.startswith("_")}

    def save(self, path: Path) -> None:
        """Write a YAML file that `--config` takes again, with commit, versions and layers beside the values.

        Whether this start resumed an earlier one is not a property of the run and is left out.
        """
        values = {name: value for name, value in sorted(self.values().items()) if name != "continue_train"}
        provenance = {
            "commit": current_commit(),
            "versions": {"python": sys.version.split()[0], **library_versions()},
            "set_by": {k: v for k, v in sorted(vars(self)["_set_by"].items()) if v != "default" and k in values},
        }
        text = yaml.safe_dump({**values, PROVENANCE: provenance}, sort_keys=False)
        write_text(path, text)


def add_run_folder_flags(parser: argparse.ArgumentParser) -> Any:
    """Add the flags that say where a run is, and return their group."""
    group = parser.add_argument_group("run")
    group.add_argument("--name", help="name of the run: its folder in --checkpoints_dir")
    add_shared(group, "checkpoints_dir")
    return group


def add_run_flags(parser: argparse.ArgumentParser, precisions: Sequence[str] = PRECISIONS) -> None:
    """Add the flags that mean the same in train.py, test.py and every script that takes a run."""
    group = add_run_folder_flags(parser)
    add_shared(group, "device")
    group.add_argument("--seed", type=int, default=0, help="seed of every random draw")
    group.add_argument("--num_workers", type=int, default=2, help="processes that load data; 0 for none")
    group.add_argument("--batch_size", type=int, default=4, help="pictures per process and step")
    rounded = "tf32: a GPU rounds the factors of float32 products to ten bits; bf16, fp16: mixed precision"
    group.add_argument("--precision", choices=precisions, default="fp32", help=rounded)


def add_deterministic_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag of commands that can repeat a run bit for bit whatever the number of cores."""
    parser.add_argument(
        "--deterministic", action=argparse.BooleanOptionalAction, default=False,
        help="the same bits in every run: on a CPU at any number of cores, by one thread (slower); on a GPU where "
        "PyTorch has deterministic operations, it warns of others (docs/reliability.md)",
    )  # fmt: skip


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of every data set."""
    group = parser.add_argument_group("data")
    group.add_argument("--dataset_mode", default="streets", help=f"layout of the data: {', '.join(DATASETS.names())}")
    group.add_argument("--dataroot", help="folder of the data set (not for streets)")
    group.add_argument("--crop_size", type=int, default=256, help="pixels of the square pictures, a multiple of 64")
    group.add_argument("--load_size", type=int, help="short side is scaled to this; 0: as stored; default: by data set")
    group.add_argument("--label_nc", type=int, help="one-hot label channels; default: by data set or classes.json")
    group.add_argument("--ignore_label", type=int, help="id without a class; default: by data set or classes.json")
    group.add_argument("--label_map", metavar="A:B,...", help="rename label ids when they are read, as in 255:0,3:1")
    group.add_argument("--cache", choices=("none", "ram"), default="none", help="ram: keep decoded pictures in memory")
    group.add_argument(
        "--inst_class_rule", choices=("majority", "mod120"), default="majority",
        help="class of an instance: majority label of its pixels, or its id modulo 120 (converted DivSem runs)",
    )  # fmt: skip


class BaseOptions:
    """Builds the parser of one command. Subclasses add their own flags and the run's layer."""

    is_train: bool
    description: str
    model: type[BaseModel]  # the chosen method, known before the flags are added
    precisions: tuple[str, ...] = PRECISIONS

    def add_flags(self, parser: StrictParser) -> None:
        """Add the flags of the command."""
        add_run_flags(parser, self.precisions)
        parser.add_argument("--config", metavar="FILE.yaml", help="options as 'name: value' lines; flags override them")
        models = "; ".join(f"{name}: {MODELS.get(name).summary}" for name in MODELS.names())
        parser.add_argument("--model", default="divsem", help=models)
        add_data_flags(parser)

    def run_layer(self, probe: argparse.Namespace) -> dict[str, Any]:
        """Options that an existing run brings; none in training."""
        return {}

    def parse(self, argv: list[str] | None = None) -> Options:
        """Parse the command line; raises `UserError`."""
        argv = sys.argv[1:] if argv is None else argv
        probe = self._probe(argv)
        config = read_yaml(Path(probe.config), "--config") if probe.config else {}
        config.pop(PROVENANCE, None)
        if probe.name:
            check_name(probe.name)  # before its folder is searched
        run = self.run_layer(probe)
        self.model, mode = choose_model_and_data(vars(probe), config, run)
        parser = self.build_parser(mode)
        layers = {
            "run": parser.yaml_to_args(self.carried(run, parser), "the run"),
            "config": parser.yaml_to_args(config, str(probe.config)),
            "command line": argv,
        }
        if probe.help:
            show_values(parser, [*layers["run"], *layers["config"]])
        opt = parser.parse_args([arg for args in layers.values() for arg in args])
        set_by = strongest_layers(parser, layers)
        self._complete(opt, set_by, DATASETS.get(mode))
        self.validate(opt)
        return Options(vars(opt), set_by)

    def _complete(self, opt: Opt, set_by: dict[str, str], dataset: type[BaseDataset]) -> None:
        """Add what follows from the data set, then what follows from the model, to `opt` and `set_by`."""

        def add(derived: Mapping[str, Any], layer: str) -> None:
            vars(opt).update(derived)
            set_by.update({name: layer for name in derived if set_by[name] == "default"})

        add(dataset.complete_options(opt), "data set")
        new = self.is_train and not opt.continue_train
        runs = read_input_runs(opt, self.model.input_runs) if new else {}
        add(self.model.complete_options(opt, classes=dataset.class_table(opt.dataroot), runs=runs), "model")

    def build_parser(self, mode: str) -> StrictParser:
        """Return a parser of all flags with `self.model` and a data set."""
        parser = StrictParser(description=self.description)
        self.add_flags(parser)
        parser.set_defaults(dataset_mode=mode)
        self.model.modify_commandline_options(parser, is_train=self.is_train)
        DATASETS.get(mode).modify_commandline_options(parser, is_train=self.is_train)
        return parser

    def carried(self, run: dict[str, Any], parser: StrictParser) -> dict[str, Any]:
        """Return which of the run's options this command takes over."""
        return {name: value for name, value in run.items() if name in parser.actions_by_name()}

    @staticmethod
    def _probe(argv: list[str]) -> argparse.Namespace:
        """Read only what decides which other flags exist, and which run is meant, in a --config too."""
        parser = StrictParser(add_help=False)
        for name in ("config", "model", "dataset_mode", "name"):
            parser.add_argument(f"--{name}")
        add_shared(parser, "checkpoints_dir", "continue_train")
        parser.add_argument("-h", "--help", action="store_true")
        probe = parser.parse_known_args(argv)[0]
        if probe.config:
            config = read_yaml(Path(probe.config), "--config")
            which: dict[str, Any] = {
                name: config[name] for name in ("name", "checkpoints_dir", "continue_train") if name in config
            }
            probe = parser.parse_known_args([*parser.yaml_to_args(which, str(probe.config)), *argv])[0]
        return probe

    def validate(self, opt: Opt) -> None:
        """Check what a flag's type cannot say; raises `UserError`."""
        check_name(opt.name)
        if opt.crop_size <= 0 or opt.crop_size % CROP_MULTIPLE:
            near = max(1, round(opt.crop_size / CROP_MULTIPLE)) * CROP_MULTIPLE
            raise UserError(f"--crop_size {opt.crop_size} is not a positive multiple of {CROP_MULTIPLE}; take {near}")
        for name, least in (("batch_size", 1), ("num_workers", 0), ("load_size", 0)):
            if (value := getattr(opt, name)) is not None and value < least:
                raise UserError(f"--{name} {value} is less than {least}")
        for new in parse_label_map(opt.label_map).values():
            if opt.label_nc is not None and new >= opt.label_nc and new != opt.ignore_label:
                raise UserError(f"--label_map {opt.label_map}: {new} is none of the {opt.label_nc} classes")


def choose_model_and_data(*sources: Mapping[str, Any]) -> tuple[type[BaseModel], str]:
    """Return the method and its --dataset_mode that these sources name, the strongest first.

    Raises:
        UserError: there is no such method or data set, or they do not fit each other.
    """

    def chosen(name: str, default: str) -> str:
        return str(next((source[name] for source in sources if source.get(name)), default))

    name = chosen("model", "divsem")
    model = MODELS.get(name)
    mode = chosen("dataset_mode", (*model.dataset_modes, "streets")[0])
    DATASETS.get(mode)
    modes = model.dataset_modes or tuple(known for known in DATASETS.names() if DATASETS.get(known).scenes)
    if mode not in modes:
        raise UserError(f"--model {name} takes --dataset_mode {' or '.join(modes)}, not {mode}")
    return model, mode


def show_values(parser: StrictParser, args: list[str]) -> None:
    """Let --help show what a run's or a file's arguments set, in place of the flags' defaults."""
    values = vars(parser.parse_args(args))
    parser.set_defaults(**{name: values[name] for name in parser.names_set_by(args)})


def strongest_layers(parser: StrictParser, layers: Mapping[str, list[str]]) -> dict[str, str]:
    """Return for each option the last of `layers` (arguments by name) whose arguments set it, or "default"."""
    set_by = dict.fromkeys(parser.actions_by_name(), "default")
    for layer, args in layers.items():
        set_by.update(dict.fromkeys(parser.names_set_by(args), layer))
    return set_by


def saved_options(path: Path) -> dict[str, Any]:
    """Return the options in a run's opt.yaml; flags that came after it have the values that it meant.

    Raises:
        UserError: it cannot be read, or there is no such method or data set.
    """
    values = read_yaml(path, "options of the run")
    try:
        return {**formerly(values), **values}
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def formerly(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return flags of a run's method and data set that came after there were runs, with what older runs did."""
    model, mode = values.get("model"), values.get("dataset_mode")
    return {**(MODELS.get(model).formerly if model else {}), **(DATASETS.get(mode).formerly if mode else {})}


def read_input_runs(opt: Opt, flags: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return the options of the runs that flags name, with their class tables; raises `UserError`."""
    runs_by_flag = {}
    for flag in flags:
        name = getattr(opt, flag)
        if name is None:
            continue
        folder = input_folder(opt, name)
        if not (folder / OPTIONS_FILE).is_file():
            runs = [path.parent.name for path in Path(opt.checkpoints_dir).glob(f"*/{OPTIONS_FILE}")]
            raise UserError(f"--{flag} {name}: no run at {folder}; train it first.{did_you_mean(name, runs)}")
        table = read_class_table(folder / CLASSES_FILE)
        runs_by_flag[flag] = {**read_yaml(folder / OPTIONS_FILE, f"--{flag}"), "classes": table or EMPTY_TABLE}
    return runs_by_flag


def input_folder(opt: Opt, name: str) -> Path:
    """Return the folder of another run, given by its name in --checkpoints_dir or by its path."""
    return Path(name) if "/" in name else Path(opt.checkpoints_dir) / name


def run_folder(opt: Opt) -> Path:
    """Return the folder of the run."""
    return Path(opt.checkpoints_dir) / opt.name
