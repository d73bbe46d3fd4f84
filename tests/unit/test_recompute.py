"""`--checkpoint_activations`: less is kept, and gradients and buffers are the same bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from shared_gradients import build, gradients
from torch import Tensor

import train as train_command
from models import MODELS
from trainers.distributed import Distributed


@pytest.mark.parametrize("name", MODELS.names())
def test_gradients_are_the_same_bit_for_bit(name: str, tmp_path: Path) -> None:
    if name == "s2prest":
        pytest.importorskip("diffusers", reason="requirements-diffusion.txt is not installed")
    for line in MODELS.get(name).tiny_inputs(tmp_path):
        train_command.main([*line, *"--num_workers 0 --image_every 0 --no-tensorboard --device cpu".split()])
    found: list[dict[str, Tensor]] = []
    kept: list[int] = []
    for less in (False, True):
        model, dataset = build(name, tmp_path)
        if less:
            model.checkpoint_activations()
        sizes: list[int] = []

        def pack(x: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(x.nbytes)
            return x

        def unpack(x: Any) -> Any:
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            made = gradients(model, dataset, Distributed(), pictures=1)
        state = {f"{net}.{key}": value for net, each in model.state().items() for key, value in each.items()}
        found.append({**state, **{f"gradient of {key}": value for key, value in made.items()}})
        kept.append(sum(sizes))
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():
        assert torch.equal(value, found[1][key]), key
    assert kept[1] < 0.9 * kept[0]  # discriminators keep theirs
