"""Builds the package `semedit`: in a wheel the folders of this repository are its subpackages, under its one name.

`data`, `models` and `util` are names that other projects have too, so in what is installed `from util.x import y` reads
`from semedit.util.x import y`. In a checkout nothing is rewritten.
"""

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = ("data", "metrics", "models", "options", "scripts", "testing", "trainers", "util")
COMMANDS = ("test", "train")  # single files
IMPORT = re.compile(rf"^(\s*(?:from|import) )(?=(?:{'|'.join((*FOLDERS, *COMMANDS))})\b)", re.M)
PATH = re.compile(r"^(ROOT = Path\(__file__\).*\n)?sys\.path\.insert\(0, .*\n", re.M)  # a checkout's scripts need it


def packages() -> dict[str, str]:
    """Return folders by the name of their package."""
    folders = [path for name in FOLDERS for path in (Path(name), *Path(name).rglob("*")) if list(path.glob("*.py"))]
    own = {"semedit": "semedit", "semedit.page": "semedit/page"}
    return {**own, **{f"semedit.{'.'.join(path.parts)}": path.as_posix() for path in folders}}


class BuildRenamed(build_py):
    """Copies modules under their new names."""

    def run(self) -> None:
        """Copy and rewrite all modules."""
        super().run()
        target = Path(self.build_lib) / "semedit"
        for name in COMMANDS:
            self.copy_file(f"{name}.py", str(target / f"{name}.py"))
        for path in target.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            path.write_text(IMPORT.sub(r"\1semedit.", PATH.sub(r"\1", text)), encoding="utf-8")


setup(
    packages=sorted(packages()),
    package_dir=packages(),
    package_data={
        "semedit.metrics.reporting.page": ["report.*"],
        "semedit.metrics.segments": ["weights/*/*"],
        "semedit.testing.study": ["study.*"],
        "semedit.page": ["page.*", "*.js"],
    },
    cmdclass={"build_py": BuildRenamed},
)
