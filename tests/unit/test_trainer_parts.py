"""The average of weights and the logger."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trainers.ema import EMA
from trainers.logger import Logger

GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))


def test_average_follows_the_recurrence_and_buffers_are_copied() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
    ema = EMA({"netG": net}, decay=0.7)
    want = net[0].weight.detach().clone()
    for _ in range(4):
        with torch.no_grad():
            net[0].weight.normal_()
            net[1].running_mean.normal_()
            net[1].num_batches_tracked.add_(1)
        ema.update()
        want = 0.7 * want + 0.3 * net[0].weight.detach()
    shadow = ema.state()["netG"]
    torch.testing.assert_close(shadow["0.weight"], want)
    assert torch.equal(shadow["1.running_mean"], net[1].running_mean) and shadow["1.num_batches_tracked"] == 4


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.999])  # lerp computes from the nearer end
@pytest.mark.parametrize(
    ("device", "tolerance"), [("cpu", {"rtol": 0, "atol": 0}), pytest.param("cuda", {}, marks=GPU)]
)
def test_average_of_all_parameters_at_once_is_that_of_each(
    decay: float, device: str, tolerance: dict[str, float]
) -> None:
    torch.manual_seed(0)
    nets = {"netG": nn.Sequential(nn.Conv2d(3, 17, 3), nn.BatchNorm2d(17)), "netS": nn.Linear(5, 1031)}
    for net in nets.values():
        net.to(device)
    ema = EMA(nets, decay=decay)
    parameters = {(name, key): value for name, net in nets.items() for key, value in net.named_parameters()}
    want = {place: value.detach().clone() for place, value in parameters.items()}
    for _ in range(3):
        with torch.no_grad():
            for place, value in parameters.items():
                value.add_(torch.randn_like(value))
                want[place].lerp_(value, 1 - decay)
        ema.update()
    for (name, key), value in want.items():
        torch.testing.assert_close(ema.state()[name][key], value, **tolerance)


def test_swapped_returns_the_weights_bit_for_bit_even_after_an_error() -> None:
    net = nn.Linear(3, 3)
    ema = EMA({"netG": net}, decay=0.5)
    average = net.weight.detach().clone()
    with torch.no_grad():
        net.weight.add_(1)
    own = net.weight.detach().clone()
    with pytest.raises(ZeroDivisionError), ema.swapped():
        assert torch.equal(net.weight, average)
        raise ZeroDivisionError
    assert torch.equal(net.weight, own)


def test_average_of_another_network_is_refused() -> None:
    ema = EMA({"netG": nn.Linear(3, 3)}, decay=0.5)
    with pytest.raises(KeyError, match="netG has other tensors"):
        ema.load_state({"netG": {"weight": torch.zeros(3, 3)}})


def write(logger: Logger, *steps: int) -> None:
    for step in steps:
        logger.log(step, {"nimg": step, "losses": {"G/l1": 0.5}, "lr": {"G": 1e-4}, "grad_norm": {"G": 1.0}})


def test_tensorboard_events_and_a_missing_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    logger = Logger(tmp_path / "", enabled=True, tensorboard=True, start_step=0)
    write(logger, 1)
    logger.image(1, np.zeros((4, 4, 3), np.uint8))
    logger.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Scalars("loss/G/l1")[0].value == 0.5 and events.Tags()["images"] == ["preview"]

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    logger = Logger(tmp_path, enabled=True, tensorboard=True, start_step=1)
    write(logger, 2)
    logger.close()
    assert capsys.readouterr().out.count("tensorboard is not installed") == 1
    assert [json.loads(line)["step"] for line in (tmp_path / "stats.jsonl").read_text().splitlines()] == [1, 2]


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    logger = Logger(tmp_path, enabled=False, tensorboard=True, start_step=0)
    write(logger, 1)
    logger.image(1, np.zeros((4, 4, 3), np.uint8))
    logger.close()
    assert not list(tmp_path.iterdir())
