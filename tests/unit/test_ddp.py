"""Two Gloo processes on a CPU against one process with the doubled batch."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_process import ROOT, TOYS, start_pair, wait_for
from trainer_toys import fit, stats

import train as train_command
from models import MODELS
from trainers.checkpoint import load_checkpoint
from trainers.distributed import Distributed
from util.device import FLOAT32_PRODUCTS, resolve_device, tf32
from util.errors import EXIT_INTERRUPTED, EXIT_LOST_PROCESS, EXIT_NON_FINITE, EXIT_USER_ERROR, UserError

# float64 throughout: the two ways of summing differ by about 1e-16 relative, which Adam's division by the gradient's
# own size (eps 1e-8) can enlarge by at most 1e8 in the worst of weights; 1e-9 is far above what is met and far below
# what a lost or doubled gradient makes.
TOLERANCE = 1e-9
GRADIENTS = TOYS.with_name("shared_gradients.py")
SHARED = [name for name in MODELS.names() if MODELS.get(name).flow != "analogy"]  # which trains on one picture
if importlib.util.find_spec("diffusers") is None:  # requirements-diffusion.txt is not installed
    SHARED.remove("s2prest")


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(TOYS)]
    # In two pieces: a distributed run resumes as well, and may take its batches in parts
    for piece in ("--steps 2 --batch_size 2", "--steps 4 --batch_size 1 --accumulate 2 --resume"):
        subprocess.run([*torchrun, str(tmp_path / "two"), *piece.split()], env=env, check=True)
    fit(tmp_path / "one", max_steps=4, batch_size=4)

    one, two = load_checkpoint(tmp_path / "one/latest.pt"), load_checkpoint(tmp_path / "two/latest.pt")
    assert (one["step"], one["nimg"]) == (two["step"], two["nimg"]) == (4, 16)
    for net in ("netG", "netD"):
        for key, value in one["model"][net].items():
            torch.testing.assert_close(two["model"][net][key], value, rtol=TOLERANCE, atol=TOLERANCE)
    for alone, shared in zip(stats(tmp_path / "one"), stats(tmp_path / "two"), strict=True):
        assert shared["losses"] == pytest.approx(alone["losses"], rel=TOLERANCE)
        assert shared["grad_norm"] == pytest.approx(alone["grad_norm"], rel=TOLERANCE)


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, dict[str, torch.Tensor]]]:
    """Gradients of every method's first step on the same four pictures, by number of processes."""
    root = tmp_path_factory.mktemp("gradients")
    for name in SHARED:
        for line in MODELS.get(name).tiny_inputs(root):
            train_command.main([*line, *"--num_workers 0 --image_every 0 --no-tensorboard --device cpu".split()])
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(GRADIENTS), str(root), *SHARED], env=env, check=True)
    return {count: torch.load(root / f"gradients_{count}.pt", weights_only=True) for count in (1, 2, 4)}


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("name", SHARED)
def test_gradients_of_several_processes_are_those_of_one(
    name: str, count: int, gradients: dict[int, dict[str, dict[str, torch.Tensor]]]
) -> None:
    """To the rounding of float32, by the norm of each network's gradient."""
    alone, shared = gradients[1][name], gradients[count][name]
    assert alone.keys() == shared.keys()
    for net in {key.split(".")[0] for key in alone}:
        one, several = (
            torch.cat([each[key].flatten() for key in alone if key.startswith(f"{net}.")]) for each in (alone, shared)
        )
        assert one.norm() > 0
        assert (one - several).norm() < 1e-4 * one.norm(), net


def test_signal_to_one_process_stops_both_at_the_same_step(tmp_path: Path) -> None:
    pair = start_pair(str(tmp_path), "--steps", "5", "--announce_step", "1")
    wait_for(tmp_path / "in_step", pair[1])
    pair[1].send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=60)[1] for process in pair]
    assert [process.returncode for process in pair] == [EXIT_INTERRUPTED] * 2, errors
    assert load_checkpoint(tmp_path / "latest.pt")["step"] == 2


def test_nan_in_one_process_stops_both(tmp_path: Path) -> None:
    pair = start_pair(str(tmp_path), "--steps", "5", "--poison_rank", "1", "--save_every", "1")
    errors = [process.communicate(timeout=60)[1] for process in pair]
    assert [process.returncode for process in pair] == [EXIT_NON_FINITE] * 2, errors
    assert all("step 2, phase G" in error for error in errors)
    assert load_checkpoint(tmp_path / "latest.pt")["step"] == 1


def test_a_failed_validation_of_the_first_process_saves_and_ends_both(tmp_path: Path) -> None:
    pair = start_pair(str(tmp_path), "--steps", "3", "--fail_validation")
    errors = [process.communicate(timeout=60)[1] for process in pair]
    assert [process.returncode for process in pair] == [EXIT_USER_ERROR, EXIT_LOST_PROCESS], errors
    assert "val/3.png" in errors[0] and "another process of this run cannot go on" in errors[1]
    assert load_checkpoint(tmp_path / "latest.pt")["step"] == 2


def test_one_process_needs_no_group() -> None:
    with Distributed.start("cpu") as world:
        assert not torch.distributed.is_initialized()
        assert world.is_main and world.all_any([True, False]) == [True, False]
        assert world.agree([False], {"G/l1": 2.0}) == ([False], {"G/l1": 2.0}) and world.equal([1.0])


def test_a_gpu_rounds_no_factors_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch by itself does in convolutions; styles and segmentations are computed outside of any context."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    with tf32(True):  # puts back what was
        resolve_device("cuda")
        assert [kind.fp32_precision for kind in FLOAT32_PRODUCTS] == ["ieee", "ieee"]
        with tf32(True):
            assert FLOAT32_PRODUCTS[0].fp32_precision == "tf32"


def test_device_names() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    if torch.cuda.is_available():
        with pytest.raises(UserError, match="--nproc_per_node"):
            resolve_device("cuda", local_rank=99)
    else:
        assert resolve_device("auto") == torch.device("cpu")
        with pytest.raises(UserError, match="--device cuda") as caught:
            resolve_device("cuda")
        assert caught.value.exit_code == EXIT_USER_ERROR
