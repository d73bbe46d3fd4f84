"""Fuzz every target with atheris, which follows the coverage of our code: `make fuzz [FUZZ_SECONDS=60]`.

Prints how many inputs each target was given. Exit code 1: a target raised something else than `UserError`, or took a
minute or 4 GiB; libFuzzer tells the input. Where atheris is not installed (it has wheels for Linux), nothing is done.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = ["data", "metrics", "models", "options", "scripts", "trainers", "util"]
DONE = re.compile(r"Done (\d+) runs")
MOST_TOLD = 4000  # characters at the end of what libFuzzer says of a failure
BOUNDS = ("-timeout=60", "-rss_limit_mb=4096", "-max_len=4096")


def fuzz(name: str, flags: list[str]) -> None:
    """Give a target inputs until libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=OURS):
        from targets import TARGETS
    warnings.simplefilter("ignore")
    target, seeds = TARGETS[name]
    folder = Path(tempfile.mkdtemp())
    corpus = folder / "corpus"
    corpus.mkdir()
    for k, seed in enumerate(seeds):
        (corpus / str(k)).write_bytes(seed)
    run = folder / "run"

    def attempt(data: bytes) -> None:
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        target(data, run)

    atheris.Setup([sys.argv[0], str(corpus), *flags], attempt)
    atheris.Fuzz()


def main(seconds: str) -> int:
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: left out, atheris is not installed (pip install atheris; wheels for Linux)")
        return 0
    from targets import TARGETS

    failed = 0
    for name in TARGETS:
        command = [sys.executable, __file__, name, f"-max_total_time={seconds}", *BOUNDS]
        done = subprocess.run(command, cwd=tempfile.gettempdir(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        told = done.stderr.decode("utf-8", "replace")
        runs = DONE.search(told)
        print(f"{name:26} {runs[1] if runs else '?':>9} inputs{'' if done.returncode == 0 else '  FAILED'}", flush=True)
        if done.returncode:
            failed += 1
            print(told[max(0, told.find(" === Uncaught")) :][-MOST_TOLD:])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
    if len(sys.argv) > 2:
        fuzz(sys.argv[1], sys.argv[2:])
    sys.exit(main(sys.argv[1]))
