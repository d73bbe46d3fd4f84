"""A training step computed as the release does (scripts/benchmarks/as_released.py) has the gradients of ours."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch
from torch import Tensor

from models.base_cascade_gan import CascadeGAN
from scripts.benchmarks.as_released import as_released
from scripts.benchmarks.cascade import as_in_runs, build, scene, training
from trainers.distributed import Distributed
from trainers.settings import TrainerSettings

OPT = Namespace(size=64, ngf=4)


def gradients(method: str, *, released: bool, erased: bool) -> dict[str, Tensor]:
    model = build(OPT, method, 6, is_train=True)
    batch = scene(OPT.size, 6, instances=8, batch=2, erased=erased)
    step = training(model, batch, TrainerSettings(max_steps=1), Distributed(), fused=not released)
    with (as_released if released else as_in_runs)(model):
        step()
    return {f"{name}.{key}": p.grad for name, net in model.networks().items() for key, p in net.named_parameters()
            if p.grad is not None}  # fmt: skip


@pytest.mark.parametrize(("method", "erased"), [("spmpgan", False), ("divsem", False), ("divsem", True)])
def test_gradients_equal(method: str, erased: bool) -> None:
    plain, ours = (gradients(method, released=released, erased=erased) for released in (True, False))
    assert plain.keys() == ours.keys()
    largest = max(float(grad.abs().max()) for grad in ours.values())
    for key, grad in ours.items():
        # The gradient of a bias before a norm is nothing but rounding.
        atol = max(1e-3 * float(grad.abs().max()), 1e-5 * largest)
        assert torch.allclose(plain[key], grad, rtol=0, atol=atol), key


def test_the_release_reads_the_whole_picture_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes of the style encoder: ours makes the second where an instance is wholly erased."""
    for released, erased, wanted in ((True, False, 2), (True, True, 2), (False, False, 1), (False, True, 2)):
        assert passes(released=released, erased=erased) == wanted


def passes(*, released: bool, erased: bool) -> int:
    model: CascadeGAN = build(OPT, "divsem", 6, is_train=True)
    encoder, seen = model.netG.style_encoder, []
    original = encoder.pixel_codes
    encoder.pixel_codes = lambda *args: seen.append(1) or original(*args)
    step = training(model, scene(OPT.size, 6, instances=8, erased=erased), TrainerSettings(max_steps=1), Distributed())
    with (as_released if released else as_in_runs)(model):
        step()
    return len(seen)
