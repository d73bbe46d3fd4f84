"""What SIEDOB's fusion takes from the options of the three runs that it builds on, and whether these fit."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.base_bank import BANK_FILE
from models.base_model import Runs
from models.style_bank import StyleBank
from util.class_table import ClassTable
from util.errors import UserError
from util.flags import positive_int
from util.object_rules import parse_rules
from util.opt import Opt
from util.shared_flags import add_shared

STEPS = {"background_run": "siedob_background", "inpaint_run": "siedob_inpaint", "style_run": "siedob_style"}
Check = tuple[Callable[[Any], bool], str]  # of a value, and what it should be
TAKEN = {  # our option: the run and its own option
    "background_ngf": ("background_run", "ngf"),
    "background_saspm": ("background_run", "saspm"),
    "things": ("background_run", "things"),
    "inpaint_ngf": ("inpaint_run", "ngf"),
    "object_size": ("inpaint_run", "crop_size"),
    "style_ngf": ("style_run", "ngf"),
    "style_dim": ("style_run", "style_dim"),
}

_WHOLE: Check = (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number")
_SWITCH: Check = (lambda value: isinstance(value, bool), "true or false")
_TEXT: Check = (lambda value: isinstance(value, str), "a text")
READ: dict[str, dict[str, Check]] = {  # by run: what its opt.yaml must hold
    "background_run": {
        "label_nc": _WHOLE, "ngf": _WHOLE, "saspm": _SWITCH, "things": _TEXT, "foreground": _TEXT,
        "separation": _SWITCH,
    },
    "inpaint_run": {"ngf": _WHOLE, "crop_size": _WHOLE},
    "style_run": {"ngf": _WHOLE, "style_dim": _WHOLE, "crop_size": _WHOLE},
}  # fmt: skip


def add_run_flags(parser: argparse.ArgumentParser, *, is_train: bool) -> None:
    """Add the flags that name the runs, and those that follow from them."""
    group = parser.add_argument_group("model siedob_fusion: the three networks, from the runs if not given")
    for flag, model in STEPS.items() if is_train else ():
        group.add_argument(f"--{flag}", metavar="RUN", help=f"a trained run of {model}, by name or folder")
    group.add_argument("--background_ngf", type=positive_int, help="base width of the background generator")
    group.add_argument(
        "--background_saspm", action=argparse.BooleanOptionalAction, help="whether it has self-propagation"
    )
    group.add_argument("--inpaint_ngf", type=positive_int, help="base width of the object inpainting network")
    group.add_argument("--style_ngf", type=positive_int, help="base width of the object generator")
    add_shared(group, "style_dim", default=None)
    group.add_argument("--object_size", type=positive_int, help="pixels of a crop")


def is_new(opt: Opt) -> bool:
    """Return whether options are those of a new run, not of one that is resumed or tested."""
    return getattr(opt, "continue_train", None) is False


def options_of_runs(opt: Opt, classes: ClassTable, runs: Runs) -> dict[str, Any]:
    """Return the options of the fusion that follow from the runs; `classes` are those of its data.

    Raises:
        UserError: a run is missing, of another method, or of other classes or sizes.
    """
    needed = STEPS if opt.separation else {"background_run": STEPS["background_run"]}
    for flag, model in needed.items():
        require_run(flag, getattr(opt, flag), model, runs)
        require_options(flag, getattr(opt, flag), runs[flag])
    background = runs["background_run"]
    if background["label_nc"] != opt.label_nc:
        raise UserError(
            f"--background_run {opt.background_run}: trained with {background['label_nc']} classes, "
            f"--dataset_mode {opt.dataset_mode} has {opt.label_nc}"
        )
    taken = {name: runs[flag][key] for name, (flag, key) in TAKEN.items() if flag in needed}
    for name, value in taken.items():
        if getattr(opt, name) not in (None, value):
            run = TAKEN[name][0]
            raise UserError(f"--{name} {getattr(opt, name)}: --{run} {getattr(opt, run)} has {value}; leave it out")
    if opt.separation:
        require_same_objects(opt, runs)
        taken["foreground"] = object_classes(opt, classes, runs["inpaint_run"]["classes"])
    elif opt.foreground is None:
        taken["foreground"] = background["foreground"]
    made = taken.get("foreground", opt.foreground) if opt.separation else ""
    require_nothing_left_out(opt, background, made, list(classes.names))
    return taken


def require_run(flag: str, name: str | None, model: str, runs: Runs) -> None:
    """Raise `UserError` unless the flag names a run of a method."""
    if flag not in runs:
        raise UserError(
            f"--{flag} RUN is missing: siedob_fusion builds on a run of {model}. Train it first (python train.py "
            f"--model {model} ...), or convert a released one (scripts/convert_weights.py)"
        )
    if runs[flag].get("model") != model:
        raise UserError(f"--{flag} {name}: a run of {runs[flag].get('model')}, wanted: {model}")


def require_options(flag: str, name: str, values: Mapping[str, Any]) -> None:
    """Raise `UserError` if a run's opt.yaml lacks a value that is read here, or holds one of another type."""
    for option, (fits, wanted) in READ[flag].items():
        if option not in values or not fits(values[option]):
            raise UserError(
                f"--{flag} {name}: '{option}' of its opt.yaml is missing or is not {wanted}. Correct the file, or take "
                "a run whose opt.yaml is as training or scripts/convert_weights.py wrote it"
            )


def require_nothing_left_out(opt: Opt, background: Mapping[str, Any], made: str, names: list[str]) -> None:
    """Raise `UserError` if the background network was not trained on classes that nothing else makes here.

    Args:
        background: options of its run.
        made: the rules of the classes that the object networks make.
        names: of all classes, for the message.
    """
    cut = parse_rules(background["foreground"], [], (), "--foreground") if background["separation"] else ()
    made_here = {rule.label for rule in parse_rules(made, names, (), "--foreground")}
    if missing := sorted({rule.label for rule in cut} - made_here):
        left = ", ".join(names[label] if label < len(names) else f"class {label}" for label in missing)
        labels = ",".join(part.split(":")[0] for part in made.split(","))
        flags = f"--foreground {labels}" if made else "--no-separation"
        raise UserError(
            f"--background_run {opt.background_run}: was trained without objects of {left}, and here no object network "
            f"makes them; train it with {flags}"
        )


def require_same_objects(opt: Opt, runs: Runs) -> None:
    """Raise `UserError` if the two object runs make different things."""
    inpaint, style = runs["inpaint_run"], runs["style_run"]
    runs_named = f"--inpaint_run {opt.inpaint_run} and --style_run {opt.style_run}"
    if (a := inpaint["classes"].names) != (b := style["classes"].names):
        raise UserError(f"{runs_named}: classes {a} and {b}")
    if (a := inpaint["crop_size"]) != (b := style["crop_size"]):
        raise UserError(f"{runs_named}: --crop_size {a} and {b}")


def object_classes(opt: Opt, classes: ClassTable, objects: ClassTable) -> str:
    """Return the foreground classes of the scenes, in the order of the object networks.

    Raises:
        UserError: the object networks make other classes.
    """
    if not objects.scene_ids:
        raise UserError(f"--inpaint_run {opt.inpaint_run}: its classes.json does not say which scene classes it has")
    made, names = list(objects.names[: len(objects.scene_ids)]), list(classes.names)
    here = [names[i] if i < len(names) else f"class {i}" for i in objects.scene_ids]
    if names and made != here:
        raise UserError(
            f"--inpaint_run {opt.inpaint_run} makes {', '.join(made)}; in these scenes, classes "
            f"{', '.join(map(str, objects.scene_ids))} are {', '.join(here)}"
        )
    if opt.foreground is None:
        return ",".join(map(str, objects.scene_ids))
    given = [part.split(":")[0] for part in opt.foreground.split(",")]
    ids = [int(g) if g.isdecimal() else names.index(g) if g in names else -1 for g in given]
    if ids != list(objects.scene_ids):
        raise UserError(f"--foreground {opt.foreground}: the object runs make {', '.join(made)}, in this order")
    return str(opt.foreground)


def bank_of_run(run_dir: Path, *, style_dim: int, weights: str) -> StyleBank:
    """Return the bank of a style run; raises `UserError` if it is missing or was made with other weights."""
    place = shlex.join(["--name", run_dir.name, "--checkpoints_dir", str(run_dir.parent)])
    make = f"make it by scripts/build_style_bank.py {place}"
    if not (run_dir / BANK_FILE).is_file():
        raise UserError(f"--style_run {run_dir}: has no style bank yet; {make}")
    bank = StyleBank.load(run_dir / BANK_FILE, style_dim=style_dim)
    if bank.weights != weights:
        raise UserError(f"--style_run {run_dir}: its bank was made with {bank.weights}, now {weights}; {make}")
    return bank
