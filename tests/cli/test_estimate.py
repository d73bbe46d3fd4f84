"""`train.py --estimate`: the cost of a step, and no run."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
from fake_device import fake_device, missing_fakes
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from trainer_toys import ToyModel, toy_trainer

import train
from models import MODELS
from models.base_model import Phase
from scripts import run_experiment
from trainers.distributed import Distributed
from trainers.estimate import Cost, estimate, span
from util.batch import Batch
from util.errors import UserError

QUICK = ["--num_workers", "0", "--device", "cpu", "--max_steps", "1000"]


class OneConv(ToyModel):
    """One convolution, whose operations can be counted by hand."""

    def __init__(self) -> None:
        super().__init__(dtype=torch.float32)
        self.netG = nn.Conv2d(3, 6, 3, padding=1)  # type: ignore[assignment]
        self.opt_G = torch.optim.Adam(self.netG.parameters())

    def networks(self) -> dict[str, nn.Module]:
        return {"netG": self.netG}

    def phases(self) -> list[Phase]:
        return [Phase("G", ("netG",), self.opt_G, lambda batch: {"G/l1": self.netG(batch["image"]).abs().mean()})]

    def begin_step(self, batch: Batch) -> Batch:  # type: ignore[override]
        return batch


@pytest.mark.parametrize("name", ["spmpgan", "semia", "s2prest"])
def test_costs_are_told_and_nothing_is_written(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "s2prest":
        pytest.importorskip("diffusers", reason="requirements-diffusion.txt is not installed")
    line = MODELS.get(name).tiny(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert train.main([*line, *QUICK, "--checkpoints_dir", str(tmp_path / "runs"), "--name", "r", "--estimate"]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    told = capsys.readouterr().out
    step = re.search(r"a step: ([\d.]+) s .* ([\d]+) GFLOP, at most ([\d.]+) GiB", told)
    assert step and float(step[1]) > 0
    assert "1000 steps: " in told and "H200" in told


def test_operations_are_those_of_maps_as_gpus_compute_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More pictures per step take that many times the operations; a CPU's look-ups would not scale so."""
    counts = []
    total = FlopCounterMode.get_total_flops

    def kept(self: FlopCounterMode) -> int:
        counts.append(total(self))
        return counts[-1]

    monkeypatch.setattr(FlopCounterMode, "get_total_flops", kept)
    for batch in ("1", "2"):
        flags = [*MODELS.get("spmpgan").tiny(tmp_path), *QUICK, "--batch_size", batch]
        assert train.main([*flags, "--checkpoints_dir", str(tmp_path), "--name", "r", "--estimate"]) == 0
    assert counts[1] == pytest.approx(2 * counts[0], rel=0.01)


def test_operations_are_those_of_a_step_by_hand(tmp_path: Path) -> None:
    cost = estimate(toy_trainer(tmp_path, model=OneConv(), batch_size=2, accumulate=3, max_steps=9))
    forward = 2 * 6 * 3 * 3 * 3 * 8 * 8  # of a picture of 8 x 8; as many for the weights' gradient, none for its own
    assert cost.flop == 2 * forward * 2 * 3
    assert 0 < cost.waiting < cost.seconds
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(bool(missing_fakes()), reason=missing_fakes())
def test_memory_of_a_gpu_is_what_pytorch_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: calls.append("peak") or 7 * 2**30)
    with fake_device("cuda") as device:
        cost = estimate(toy_trainer(tmp_path, model=OneConv(), world=Distributed(device=device.device), max_steps=9))
    assert cost.peak_bytes == 7 * 2**30
    assert calls == ["synchronize"] * 6 + ["peak"]  # a step's time ends when the device has made it


def test_lines_are_the_steps_cost_times_their_number() -> None:
    lines = list(Cost(parameters=10**6, seconds=2.0, waiting=0.5, flop=989 * 10**12, peak_bytes=3 * 2**30).lines(3600))
    assert lines[0] == "a step: 2 s (0.5 s of it for data), 989000 GFLOP, at most 3.0 GiB"
    assert lines[1] == "3600 steps: 2.0 h on this machine"
    assert "4.0 h on a H200" in lines[2]
    assert [span(s) for s in (5, 119, 120, 7200, 172800)] == ["5 s", "119 s", "2.0 min", "2.0 h", "2.0 days"]


EXPERIMENT = """
title: Costs
train:
  {dataset_mode: streets, streets_train_size: 4, crop_size: 64, num_workers: 0, batch_size: 1, device: cpu, ngf: 4,
   ndf: 4, lambda_vgg: 0, separation: false, max_steps: 3600}
rows:
  scenes: {label: scenes, train: {model: siedob_background}}
  joined: {label: joined, train: {model: siedob_fusion, background_run: scenes, batch_size: 2}}
  wrong: {label: wrong, train: {model: siedob_fusion, background_run: absent}}
"""


def test_an_experiments_rows_are_told_in_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also that of a row which is built on another; what fails does not take the others' costs with it."""
    monkeypatch.setattr(run_experiment, "apart", lambda function, args: function(args))
    path = tmp_path / "costs.yaml"
    path.write_text(EXPERIMENT)
    with pytest.raises(UserError, match=r"row wrong: .*absent"):
        run_experiment.main([str(path), "--estimate", "--checkpoints_dir", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()
    lines = capsys.readouterr().out.splitlines()
    head = next(number for number, line in enumerate(lines) if "operations" in line)
    rows = {line.split()[0]: line for line in lines[head + 2 : head + 4]}
    assert all("3600" in rows[name] and "GFLOP" in rows[name] and "GiB" in rows[name] for name in ("scenes", "joined"))


def test_a_step_that_does_not_fit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(trainer: object) -> Cost:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(train, "estimate", too_much)
    with pytest.raises(UserError, match="Lower --batch_size") as caught:
        train.main([*MODELS.get("spmpgan").tiny(tmp_path), *QUICK, "--name", "r", "--estimate"])
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # from a process of its own, too


def test_one_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"--estimate.*without torchrun"):
        train.main([*MODELS.get("spmpgan").tiny(tmp_path), *QUICK, "--name", "r", "--estimate"])
