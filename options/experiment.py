"""Experiment files: runs with their flags, tasks and published numbers; experiments/README.md describes the format."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from data.masks import FOLDER, TASKS
from models import MODELS
from options.parser import read_yaml
from util.errors import UserError
from util.registry import did_you_mean
from util.text_files import compose_yaml

OTHER_TASKS = ("stylise", "analogy")  # of methods that do not edit scenes
FILE_KEYS = ("title", "paper", "prepare", "train", "test", "tasks", "groups", "rows", "baselines", "next",
             "published_as")  # fmt: skip
GROUP_KEYS = ("label", "train", "test", "tasks", "baselines")
ROW_KEYS = ("label", "group", "run", "train", "test", "tasks", "published", "provenance", "mean_of", "seeds")
OF_ALL = "all"  # metrics, in `published_as`


@dataclass(frozen=True)
class Row:
    """One run of an experiment.

    Args:
        name: of the row.
        run: of the run that it trains and tests; several rows may test one run in different ways.
        label: in tables.
        group: key of its group; rows of different groups are never in one table. "" without groups.
        train, test: flags of train.py and test.py, without --name.
        tasks: a test.py line each; none for a run that only others need.
        published: task -> metric -> value.
        provenance: where `published` comes from.
        published_as: metric, or "all" -> field of a result line -> value that the published numbers were measured with;
            or metric -> why no run of ours can agree.
        mean_of: rows whose results its own are the mean of; it is no run.
        seed_of: the row of which this is one seed, whose `mean_of` has all of them; "" for others.
        baseline: fill of scripts/baselines.py that makes the pictures instead of a run; "" for a run.
        more_train, more_test: arguments of the command line, which override the file's.
    """

    name: str
    run: str
    label: str
    group: str
    train: dict[str, Any]
    test: dict[str, Any]
    tasks: list[str]
    published: dict[str, dict[str, float]]
    provenance: str
    published_as: dict[str, dict[str, Any] | str] = field(default_factory=dict)
    mean_of: tuple[str, ...] = ()
    seed_of: str = ""
    baseline: str = ""
    more_train: tuple[str, ...] = ()
    more_test: tuple[str, ...] = ()

    def train_args(self) -> list[str]:
        """Return the arguments of train.py."""
        return ["--name", self.run, *to_args(self.train), *self.more_train]

    def test_args(self, task: str) -> list[str]:
        """Return the arguments of test.py for a task."""
        return ["--name", self.run, "--task", task, *to_args(self.test), *self.more_test]

    def built_on(self) -> list[str]:
        """Return the runs whose networks this one needs."""
        if self.baseline:
            return []
        flags = MODELS.get(self.train.get("model", "divsem")).input_runs
        return [str(self.train[flag]) for flag in flags if self.train.get(flag) is not None]

    def not_built(self) -> str:
        """Return why the row cannot run: it is a mean, or its method is not registered; an empty string if it can."""
        if self.baseline:
            return ""
        if self.mean_of:
            return f"no run: the mean of {', '.join(self.mean_of)}"
        try:
            MODELS.get(self.train.get("model", "divsem"))
        except UserError as error:
            return f"not built: {error}"
        return ""


@dataclass(frozen=True)
class Experiment:
    """A file: `name` is its stem, `groups` maps keys to labels ({"": ""} without groups).

    `prepare` holds command lines of scripts that make the data; they do nothing if it exists.
    """

    name: str
    title: str
    paper: str
    next: str
    prepare: list[str]
    groups: dict[str, str]
    rows: list[Row]


def read_experiment(path: Path, *, metrics: Collection[str]) -> Experiment:
    """Read a file; `metrics` are the names that published numbers may have.

    Raises:
        UserError: an unknown or repeated key, a wrong type, a number without provenance.
    """
    spec = read_yaml(path, "experiment")
    _refuse_double_keys(path)
    _known_keys(spec, FILE_KEYS, str(path))
    if not spec.get("rows"):
        raise UserError(f"{path}: 'rows' is missing: a mapping from run names to their flags")
    groups = _mapping(spec, "groups", str(path))
    for key in groups:
        _known_keys(_mapping(groups, key, str(path)), GROUP_KEYS, f"{path}: group {key}")
    rows = []
    for name, values in _mapping(spec, "rows", str(path)).items():
        where = f"{path}: row {name}"
        values = _mapping({name: values}, name, where)
        _known_keys(values, ROW_KEYS, where)
        group = str(values.get("group") or "")
        if bool(groups) != bool(group) or (group and group not in groups):
            raise UserError(f"{where}: 'group: {group}' is not one of the file's groups: {', '.join(groups) or 'none'}")
        row = _read_row(str(name), values, [spec, groups.get(group) or {}, values], where, metrics)
        rows += _each_seed(row, values.get("seeds"), where)
    for name in groups or [""]:
        section = groups.get(name) or {}
        which, where = (section, f"{path}: group {name}") if "baselines" in section else (spec, str(path))
        for fill, label in _mapping(which, "baselines", where).items():
            row_name = "_".join(filter(None, (path.stem, str(name), str(fill))))
            own = {"label": label, "group": name}
            row = _read_row(row_name, own, [spec, section], f"{where}: baseline {fill}", metrics)
            rows.append(replace(row, baseline=str(fill)))
    known = {row.name: row for row in rows}
    for row in rows:
        if known[row.name] is not row:
            of = row.seed_of or known[row.name].seed_of
            raise UserError(f"{path}: row {row.name} is also a seed of row {of}; rename one")
        if wrong := [name for name in row.mean_of if name not in known or known[name].mean_of]:
            raise UserError(
                f"{path}: row {row.name}: 'mean_of' names {', '.join(wrong)}: no row with results of its own"
            )
    labels = {key: str((group or {}).get("label", key)) for key, group in groups.items()}
    texts = {key: str(spec.get(key) or "").strip() for key in ("paper", "next")}
    title = str(spec.get("title", path.stem))
    prepare = spec.get("prepare") or []
    if not isinstance(prepare, list) or not all(str(line).startswith("scripts/") for line in prepare):
        raise UserError(f"{path}: 'prepare' should be a list of command lines that begin with scripts/")
    return Experiment(name=path.stem, title=title, groups=labels or {"": ""}, rows=rows, prepare=prepare, **texts)


def to_args(flags: Mapping[str, Any]) -> list[str]:
    """Turn a mapping into command line arguments."""
    args: list[str] = []
    for key, value in flags.items():
        if isinstance(value, bool):
            args.append(f"--{key}" if value else f"--no-{key}")
        elif value is not None:
            args += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
    return args


def _read_row(name: str, values: dict[str, Any], layers: list[Any], where: str, metrics: Collection[str]) -> Row:
    """Build a row from the layers file, group, row; the later wins, flag by flag."""
    train, test = (
        {flag: value for layer in layers for flag, value in _mapping(layer, part, where).items()}
        for part in ("train", "test")
    )
    tasks = next((layer["tasks"] for layer in reversed(layers) if layer.get("tasks") is not None), ["free_form"])
    for task in tasks:
        if task not in (known := (*TASKS, FOLDER, *OTHER_TASKS)):
            raise UserError(f"{where}: task '{task}' is unknown.{did_you_mean(task, known)} Known: {', '.join(known)}")
    published = _read_published(_mapping(values, "published", where), tasks, where, metrics)
    provenance = str(values.get("provenance") or "")
    if published and not provenance:
        raise UserError(f"{where}: published numbers need a 'provenance': where they were read")
    run, label = (str(values.get(key, name)) for key in ("run", "label"))
    mean_of = values.get("mean_of") or []
    if not isinstance(mean_of, list):
        raise UserError(f"{where}: 'mean_of' should be a list of names of rows")
    return Row(
        name, run, label, values.get("group", ""), train, test, tasks, published, provenance,
        _read_published_as(layers[0], where, metrics), tuple(map(str, mean_of)),
    )  # fmt: skip


def _each_seed(row: Row, seeds: Any, where: str) -> list[Row]:
    """Return a row, or if it has `seeds` a row of each, `<name>_<seed>`, and the row itself as their mean."""
    if seeds is None:
        return [row]
    if not isinstance(seeds, list) or not all(type(seed) is int and seed >= 0 for seed in seeds) or len(seeds) < 2:
        raise UserError(f"{where}: 'seeds: {seeds}' should be a list of two whole numbers or more, as [0, 1, 2]")
    if row.mean_of or "seed" in row.train or len(set(seeds)) < len(seeds):
        raise UserError(f"{where}: 'seeds' are different ones, without 'mean_of' and without a 'seed' in 'train'")
    each = [
        replace(row, name=f"{row.name}_{seed}", run=f"{row.run}_{seed}", label=f"{row.label}, seed {seed}",
                train={**row.train, "seed": seed}, published={}, provenance="", seed_of=row.name)
        for seed in seeds
    ]  # fmt: skip
    return [*each, replace(row, mean_of=tuple(one.name for one in each))]


def _read_published_as(spec: dict[str, Any], where: str, metrics: Collection[str]) -> dict[str, dict[str, Any] | str]:
    """Return the file's `published_as` with known metrics."""
    given = _mapping(spec, "published_as", where)
    described = {k: v if isinstance(v, str) else _mapping(given, k, where) for k, v in given.items()}
    for metric in described:
        if metric not in (known := (OF_ALL, *metrics)):
            raise UserError(f"{where}: published_as: metric '{metric}' is unknown.{did_you_mean(metric, known)}")
    return described


def _read_published(
    published: dict[str, Any], tasks: list[str], where: str, metrics: Collection[str]
) -> dict[str, dict[str, float]]:
    numbers: dict[str, dict[str, float]] = {}
    for task in published:
        if task not in tasks:
            raise UserError(f"{where}: published: '{task}' is none of the row's tasks ({', '.join(tasks)})")
        for metric, value in _mapping(published, task, where).items():
            if metric not in metrics:
                near = did_you_mean(metric, metrics)
                raise UserError(f"{where}: published metric '{metric}' is unknown.{near} Known: {', '.join(metrics)}")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"{where}: published {metric} '{value}' is not a number; leave out what is not known")
            numbers.setdefault(task, {})[metric] = float(value)
    return numbers


def _mapping(values: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """Return values[key], which is a mapping or absent."""
    value = values.get(key)
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{where}: '{key}' should hold 'name: value' pairs, not '{value}'")
    return value or {}


def _known_keys(values: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in values:
        if key not in known:
            raise UserError(f"{where}: '{key}' is unknown.{did_you_mean(str(key), known)} Known: {', '.join(known)}")


def _refuse_double_keys(path: Path) -> None:
    """Raise `UserError` for a key that occurs twice in a mapping: YAML would silently drop the first."""
    nodes = [compose_yaml(path)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            for key, value in node.value:
                if keys.count(key.value) > 1 and key.value != "<<":
                    raise UserError(f"{path}, line {key.start_mark.line + 1}: '{key.value}' stands there twice")
                nodes.append(value)
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
