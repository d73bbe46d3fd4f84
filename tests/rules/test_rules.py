"""Rules of the tree: who may import whom, names of files, what stays out of the repository."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from data import DATASETS
from models import MODELS
from options.view import render
from util.shared_flags import SHARED

ROOT = Path(__file__).resolve().parents[2]
OURS = {"data", "metrics", "models", "options", "scripts", "semedit", "testing", "trainers", "util", "train", "test"}
MAY_IMPORT = {
    "util": ("util",),
    "data": ("data", "util"),
    "metrics": ("metrics", "util"),
    "models/networks/blocks": ("models.networks.blocks", "util"),
    **{
        f"models/networks/{room}": ("models.networks.blocks", f"models.networks.{room}", "util")
        for room in ("cascade", "siedob", "semia", "s2prest")
    },
    "models/losses": ("models.losses", "util"),
    "models/released_weights": ("models.released_weights", "util"),
    "models": ("models", "util"),
    "trainers": ("trainers", "models.base_model", "metrics", "util"),
    "options": ("options", "testing.flow", "metrics.segments.segmenters", "models", "data", "util"),
    "semedit": tuple(OURS),  # its page shows what all commands do
    "testing": ("testing", "options", "models", "data", "metrics", "trainers", "util"),
}
HEAVY = {"tensorboard", "pytorch_fid", "torchvision", "scipy"}  # GPU machines lack some of them


def imports(path: Path, *, top_level: bool = False) -> list[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    "path",
    [p for f in ("util", "data", "metrics", "models", "trainers", "options", "testing", "semedit") for p in sources(f)],
)
def test_imports_go_downwards(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    allowed = MAY_IMPORT[max((folder for folder in MAY_IMPORT if name.startswith(f"{folder}/")), key=len)]
    for module in imports(path):
        if module.split(".")[0] in OURS:
            assert module.startswith(allowed), f"{name} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*_model.py")))
def test_a_method_imports_another_only_to_vary_it(path: Path) -> None:
    tree = ast.parse(path.read_text())
    bases = {ast.unparse(base) for node in tree.body if isinstance(node, ast.ClassDef) for base in node.bases}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.endswith("_model"):
            taken = {alias.name for alias in node.names}
            assert node.module == "models.base_model" or taken <= bases, f"{path.name} imports {node.module}"


@pytest.mark.parametrize("path", [p for f in ("util", "data", "models", "trainers") for p in sources(f)])
def test_training_imports_no_heavy_library(path: Path) -> None:
    heavy = {module.split(".")[0] for module in imports(path, top_level=True)} & HEAVY
    assert not heavy


@pytest.mark.parametrize("folder", sorted(OURS - {"train", "test"}))
def test_nothing_needs_the_libraries_of_a_screen(folder: str) -> None:
    """OpenCV's wheel does not load without libGL, which servers and containers lack; its fills import it by name."""
    for path in sources(folder):
        assert "cv2" not in imports(path), path


def test_the_typed_view_of_the_options_is_current() -> None:
    assert (ROOT / "util" / "opt.py").read_text() == render(), "flags have changed: make opt"


@pytest.mark.parametrize("folder", ["data", "metrics", "models", "options", "testing", "trainers"])
def test_options_are_read_through_their_typed_view(folder: str) -> None:
    for path in sources(folder):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.arg) and node.arg == "opt" and path.parent.name != "prepare":
                assert node.annotation is not None and ast.unparse(node.annotation) in ("Opt", "Options"), path


def test_each_flag_is_declared_once() -> None:
    """Those of the scripts that prepare data aside: they meet no other flags."""
    declared = dict.fromkeys(SHARED, "util/shared_flags.py")
    for folder in ("models", "testing", "metrics", "options", "data"):
        for path in (path for path in sources(folder) if path.parent.name != "prepare"):
            for name in flags_in(path):
                assert name not in declared, f"--{name}: {path} and {declared[name]}; see util/shared_flags.py"
                declared[name] = path.relative_to(ROOT).as_posix()
    assert len(declared) > 100


def flags_in(path: Path) -> list[str]:
    """Flags whose declaration stands in a file, those taken from SHARED aside."""
    found = []
    for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and node.args):
        by, name = ast.unparse(call.func).split(".")[-1], getattr(call.args[0], "value", None)
        adds = by in ("add", "add_argument") and str(name).startswith("--")
        if adds or (by == "Flag" and "SHARED" not in ast.unparse(call)):
            found.append(str(name).removeprefix("--"))
    return found


def test_names_are_their_files() -> None:
    for registry, folder in ((MODELS, "models"), (DATASETS, "data")):
        for name in registry.names():
            assert name in registry.get(name).__module__ or registry.get(name).__module__ == f"{folder}.ade20k_dataset"


def test_nothing_large_and_no_data_is_tracked() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        assert not path.is_file() or path.stat().st_size < 2**20, f"{name} is over 1 MiB"
        assert path.suffix not in (".pt", ".pth", ".ckpt"), name


def test_commands_mind_ctrl_c_before_they_import_what_takes_seconds() -> None:
    commands = [path for path in (*ROOT.glob("*.py"), *sources("scripts")) if "run_main(main)" in path.read_text()]
    assert len(commands) > 10
    for path in commands:
        first = next(node for node in ast.parse(path.read_text()).body if _is_slow(node))
        assert "leave_on_interrupt(" in ast.unparse(first), f"{path}: leave_on_interrupt() comes first"


def _is_slow(node: ast.stmt) -> bool:
    """Whether a statement imports more than the standard library, itself or within."""
    names = [alias.name for n in ast.walk(node) if isinstance(n, ast.Import) for alias in n.names]
    names += [n.module or "" for n in ast.walk(node) if isinstance(n, ast.ImportFrom)]
    return any(name.split(".")[0] not in sys.stdlib_module_names for name in names)
