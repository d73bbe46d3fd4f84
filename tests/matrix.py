"""Run tests under several machines' settings: `python tests/matrix.py [--whole] [NAME ...]` (`make test-matrix`).

Each setting combines parts; a part that this machine cannot do is left out, and the output says why. Without `--whole`
only the tests run whose numbers depend on processor, threads or surroundings, and one training by commands.
"""

from __future__ import annotations

import argparse
import contextlib
import locale
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REDUCED = ["tests/golden", "tests/parity", "tests/property", "tests/unit/test_semia.py",
           "tests/unit/test_single_image.py",
           "tests/cli/test_commands.py::test_every_model_trains_resumes_bit_for_bit_and_tests[spmpgan]",
           "tests/cli/test_commands.py::test_deterministic_runs_are_equal_at_any_number_of_threads"]  # fmt: skip
NOBODY = 65534


@dataclass(frozen=True)
class Setting:
    """One machine.

    Args:
        env: variables beside this process's own.
        nobody: as a user who is not root, whose home is read-only.
        offline: in a network of its own, without a way out.
        odd_path: in a copy of the tree whose path has spaces and umlauts, temporary files likewise.
        busy: beside a busy process per core.
    """

    env: dict[str, str]
    nobody: bool = False
    offline: bool = False
    odd_path: bool = False
    busy: bool = False


SETTINGS = {
    "plain-cpu": Setting(
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OPENBLAS_CORETYPE": "Haswell",
         "OMP_NUM_THREADS": "1", "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"},
        offline=True, odd_path=True,
    ),
    "avx2": Setting(
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Zen",
         "OMP_NUM_THREADS": "2", "LC_ALL": "C"},
        nobody=True,
    ),
    "many-threads": Setting(
        {"OPENBLAS_CORETYPE": "SkylakeX", "OMP_NUM_THREADS": "4", "LC_ALL": "tr_TR.ISO-8859-9"},
        nobody=True, odd_path=True, busy=True,
    ),
    "old-numpy-loops": Setting(
        {"ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "Zen", "OMP_NUM_THREADS": "4", "TZ": "Asia/Kathmandu",
         "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"},
        nobody=True, offline=True,
    ),
}  # fmt: skip


def lacking(setting: Setting) -> Iterator[tuple[str, str]]:
    """Yield what of a setting cannot be had here: a field of `Setting` or a variable, and why."""
    wanted = setting.env.get("LC_ALL", "C")
    try:
        locale.setlocale(locale.LC_ALL, wanted)
    except locale.Error:
        yield "LC_ALL", f"the locale {wanted} is not installed"
    finally:
        locale.setlocale(locale.LC_ALL, "C")
    # In a process of that user's own: the first may still have root's rights when it is started.
    import_torch = [*as_nobody(), "sh", "-c", '"$1" -c "import torch"', "sh", sys.executable]
    if setting.nobody and os.geteuid() == 0 and not succeeds(import_torch):
        yield "nobody", f"setpriv is missing, or user {NOBODY} may not run {sys.executable}"
    if setting.offline and not succeeds([*without_network(), "true"]):
        yield "offline", "unshare cannot make a network here"


def succeeds(command: list[str]) -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, cwd="/").returncode == 0
    return False


def as_nobody() -> list[str]:
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []


def without_network() -> list[str]:
    """Return the words before a command that leave it this machine alone: processes of one test may still talk."""
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--net", *rights, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def copy_tree(folder: Path) -> None:
    """Copy the files that git knows."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in os.fsdecode(listed).split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def run(name: str, setting: Setting, tests: list[str]) -> bool:
    """Run the tests under a setting; return whether they passed."""
    cannot = dict(lacking(setting))
    told = {key: value for key, value in vars(setting).items() if value is True and key not in cannot}
    env = {key: value for key, value in setting.env.items() if key not in cannot}
    print(f"== {name}: {' '.join([f'{k}={v}' for k, v in env.items()] + list(told))}", flush=True)
    for key, why in cannot.items():
        print(f"   left out: {key}: {why}", flush=True)
    with tempfile.TemporaryDirectory() as outer, contextlib.ExitStack() as stack:
        place = Path(outer) / ("Prüfstand für alle Öfen" if "odd_path" in told else "plain")
        tree, scratch, home = place / "SemEdit", place / "tmp", place / "home"
        for folder in (tree, scratch, home):
            folder.mkdir(parents=True)
        copy_tree(tree)
        if "nobody" in told:
            for folder in (outer, scratch):
                os.chmod(folder, 0o777)
            home.chmod(0o555)
        env |= {"HOME": str(home), "TMPDIR": str(scratch), "PYTHONHASHSEED": "random"}
        words = without_network() if "offline" in told else []
        words += as_nobody() if "nobody" in told else []
        if "busy" in told:
            stack.enter_context(busy_processes(os.cpu_count() or 1))
        command = [*words, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
        start = time.monotonic()
        passed = subprocess.run(command, cwd=tree, env={**os.environ, **env}).returncode == 0
        if "nobody" in told:
            home.chmod(0o755)
    print(f"== {name}: {'passed' if passed else 'FAILED'} in {time.monotonic() - start:.0f} s", flush=True)
    return passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"settings; default: all of {', '.join(SETTINGS)}")
    parser.add_argument("--whole", action="store_true", help="all tests")
    opt = parser.parse_args()
    if unknown := [name for name in opt.names if name not in SETTINGS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(SETTINGS)}")
    chosen = opt.names or list(SETTINGS)
    failed = [name for name in chosen if not run(name, SETTINGS[name], [] if opt.whole else REDUCED)]
    sys.exit(f"failed under: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
