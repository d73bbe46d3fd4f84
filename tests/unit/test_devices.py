"""Every method runs where a GPU would run it, without one (`tests/helpers/fake_device.py`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_device import DeviceMistakeError, fake_device, missing_fakes
from rehearsal import rehearse

from models import MODELS
from models.base_gan import GANModel
from models.base_model import BaseModel
from models.divsem_model import DivSemModel

pytestmark = pytest.mark.skipif(bool(missing_fakes()), reason=missing_fakes())
MISTAKE = (DeviceMistakeError, RuntimeError)
VARIANTS = ["spmpgan --discriminator projected", "divsem --hole_entry instance"]  # with parts that no method has
CHANNELS_LAST = [f"{name} --channels_last" for name in MODELS.names() if MODELS.get(name).channels_last]


@pytest.mark.parametrize("line", [*MODELS.names(), *VARIANTS, *CHANNELS_LAST])
def test_every_method_keeps_to_its_device(line: str, tmp_path: Path) -> None:
    name, *flags = line.split()
    run = rehearse(name, tmp_path, *flags)
    with fake_device("cuda") as device:
        waits = run.steps(device, 3)
        assert max(map(len, waits[1:])) <= 1, waits  # for the numbers of the step before
        run.preview()
        run.generate(device)


@pytest.mark.parametrize("line", [*MODELS.names(), *VARIANTS, *CHANNELS_LAST])
def test_every_backward_pass_keeps_to_its_device(line: str, tmp_path: Path) -> None:
    name, *flags = line.split()
    run = rehearse(name, tmp_path, *flags)
    with fake_device("lazy") as device:
        run.steps(device, 2)


# --- the harness sees what it is for ---
def on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as if its call had forgotten `device=`."""
    return lambda *args, **kwargs: function(*args, **{**kwargs, "device": "cpu"})


arange, ones_like, where, draw_codes = torch.arange, torch.ones_like, torch.where, DivSemModel.draw_codes
SEEDED = {
    "an arange on the CPU": (torch, "arange", on_cpu(arange)),
    "ones on the CPU": (torch, "ones_like", on_cpu(ones_like)),
    "where with zeros of the CPU": (torch, "where", lambda c, a, b: where(c, a, torch.zeros(b.shape, dtype=b.dtype))),
    "VGG not moved": (GANModel, "to", BaseModel.to),
    "bank codes left behind": (DivSemModel, "draw_codes", lambda *args: draw_codes(*args).cpu()),
}


@pytest.mark.parametrize("bug", SEEDED)
def test_seeded_mistakes_are_found(bug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = rehearse("divsem", tmp_path)
    run.batches = run.batches[1:]  # the first of these has hidden instances, so that all is used
    monkeypatch.setattr(*SEEDED[bug])
    with (
        fake_device("cuda") as device,
        pytest.raises(MISTAKE, match=r"same device|different devices|tensors on|in flight"),
    ):
        run.steps(device, 1)
        run.generate(device)


def test_a_copy_to_the_host_is_not_read_before_it_is_there() -> None:
    with fake_device("cuda") as device:
        x = torch.ones(2, device=device.device)
        early = x.to("cpu", non_blocking=True)
        with pytest.raises(DeviceMistakeError, match="before it has arrived"):
            early.sum()
        event = torch.cuda.Event()
        event.synchronize()
        assert early.tolist() == [1, 1] and device.waits == ["event"]


def test_what_the_host_waits_for_is_counted_with_its_real_values() -> None:
    with fake_device("cuda") as device:
        x = torch.arange(4, device=device.device)
        seen = [bool((x > 2).any()), x[3].item(), x.tolist(), x.cpu().tolist(), len(x.nonzero()), len(x[x > 1])]
        assert seen == [True, 3, [0, 1, 2, 3], [0, 1, 2, 3], 3, 2]
        assert len(device.waits) == len(seen)
        torch.zeros(3).to(device.device)
        torch.zeros(3).to(device.device, non_blocking=True)
        assert device.waits[len(seen) :] == ["copy to cuda"]
        with pytest.raises(DeviceMistakeError, match="no numpy"):
            x.numpy()
        with pytest.raises(DeviceMistakeError, match="generator of the CPU"):
            torch.rand(2, generator=torch.Generator(), device=device.device)
