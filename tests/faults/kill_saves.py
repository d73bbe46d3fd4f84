"""Kill a process at random moments of its saves; print JSON per kill: what is wrong with the files.

`python kill_saves.py FOLDER KILLS`: the process is forked from this one, so that a kill costs no import of torch.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import yaml

from options.base_options import OPTIONS_FILE, Options
from trainers.checkpoint import Checkpoints, load_checkpoint

VALUES = {f"option_{i}": "x" * 50 for i in range(400)}  # more than one page of a file


def save_forever(folder: Path, step: int) -> None:
    checkpoints = Checkpoints(folder)
    while True:
        Options(VALUES | {"step": step}, {}).save(folder / OPTIONS_FILE)
        checkpoints.save({"step": step, "w": torch.full((300_000,), float(step))}, step)
        step += 1


def fault(folder: Path, before: int) -> str:
    """Say what is not as it should be: every file whole under its name, no checkpoint lost."""
    checkpoints = Checkpoints(folder)
    for path in folder.glob("[a-z]*.pt"):
        state = load_checkpoint(path)
        if not torch.equal(state["w"], torch.full((300_000,), float(state["step"]))):
            return f"{path} holds another state"
    if checkpoints.newest_step() < before:
        return f"step {before} is lost"
    options = folder / OPTIONS_FILE
    if options.exists() and (yaml.safe_load(options.read_text()) or {}).items() < VALUES.items():
        return f"{options} is cut short"
    return ""


def main(folder: Path, kills: int) -> None:
    torch.set_num_threads(1)  # the threads of a pool do not come along in a fork: a child that waits for them hangs
    for _ in range(kills):
        before = Checkpoints(folder).newest_step()
        child = os.fork()
        if not child:
            save_forever(folder, before + 1)
        while Checkpoints(folder).newest_step() <= before:
            time.sleep(0.001)
        time.sleep(random.random() * 0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print(json.dumps({"step": Checkpoints(folder).newest_step(), "fault": fault(folder, before)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
