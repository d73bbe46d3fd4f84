"""`torchrun --max-restarts` starts a distributed run again whose process was killed, and it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from torch.distributed.run import get_args_parser

from models import MODELS
from trainers.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
STEPS = 30


def trainings(root: Path) -> list[int]:
    """Return the processes that train into a folder, by number."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if str(root) in words and "torch.distributed.run" not in words:
            found.append(int(folder.name))
    return sorted(found)


def test_a_killed_process_is_started_again_with_the_others(tmp_path: Path) -> None:
    line = [*MODELS.get("siedob_inpaint").tiny(tmp_path), "--checkpoints_dir", str(tmp_path), "--name", "run"]
    line += f"--max_steps {STEPS} --save_every 1 --num_workers 0 --image_every 0 --device cpu --batch_size 1".split()
    launch = "-m torch.distributed.run --standalone --nproc_per_node 2 --max-restarts 1".split()
    command = [sys.executable, *launch, str(ROOT / "train.py"), *line, "--no-tensorboard"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        while not (tmp_path / "run/step_2.pt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(trainings(tmp_path)[-1], signal.SIGKILL)
        told = process.communicate(timeout=120)[0]
    assert process.returncode == 0
    assert "continuing from" in told
    assert load_checkpoint(tmp_path / "run/latest.pt")["step"] == STEPS


def test_the_slurm_file_starts_the_documented_line(tmp_path: Path) -> None:
    for name, body in {"srun": 'echo "$@"', "scontrol": "printf 'first\\nsecond\\n'"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7"}
    environment = {**os.environ, **job, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    line = ["bash", str(ROOT / "scripts/train.slurm"), "--name", "a run"]
    words = subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout.split()
    parser = get_args_parser()
    launch = parser.parse_args(words[words.index("torchrun") + 1 :])
    assert (launch.nnodes, launch.nproc_per_node, launch.max_restarts) == ("2", "gpu", 3)
    assert (launch.rdzv_endpoint, launch.rdzv_id, launch.rdzv_backend) == ("first:29500", "7", "c10d")
    assert launch.training_script == "train.py" and launch.training_script_args == ["--name", "a", "run"]
