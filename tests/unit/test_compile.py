"""`--compile`: networks train as they do without, and keep their names."""

from __future__ import annotations

import copy
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from rehearsal import rehearse
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table

import train as train_command
from models.base_model import BaseModel
from models.networks.blocks.discriminator import PatchDiscriminator
from models.networks.blocks.spectral import SpectralConv2d
from models.siedob_inpaint_model import SIEDOBInpaintModel
from models.spmpgan_model import SPMPGANModel
from options.train_options import TrainOptions
from trainers.distributed import Distributed
from trainers.guard import UpdateGuard
from trainers.settings import TrainerSettings
from trainers.step import Step
from util.batch import on_host
from util.compiling import GRAPHS, compile_in_place, compiled_step, replication_gradient, uncompiled
from util.errors import UserError

NO_COMPILER = pytest.mark.skipif(not shutil.which("c++"), reason="inductor needs a C++ compiler")


def as_inductor(graph: Any, inputs: Any) -> Any:
    """Split forward and backward pass as inductor does, and run them as they are."""
    backend = aot_autograd(
        fw_compiler=lambda part, inputs: make_boxed_func(part.forward),
        decompositions=select_decomp_table(),
        partition_fn=partial(min_cut_rematerialization_partition, compiler="inductor"),
    )
    return backend(graph, inputs)


@pytest.fixture(autouse=True)
def _without_what_others_compiled() -> Any:
    torch._dynamo.reset()
    with torch._inductor.config.patch(force_disable_caches=True):  # its files outlive a test
        yield
    torch._dynamo.reset()


def largest_difference(plain: nn.Module, backend: Any, *args: Any) -> float:
    """Train a network and its compiled copy for three steps; return how far tensors and gradients are apart."""
    compiled = copy.deepcopy(plain)
    compile_in_place(compiled, "default", backend)
    differences = []
    for _ in range(3):
        for net in (plain, compiled):
            out = net(*args)
            loss = torch.stack([x.square().mean() for x in (out if isinstance(out, list) else [out])]).sum()
            net.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in net.parameters():
                    assert parameter.grad is not None
                    parameter -= 0.1 * parameter.grad
        pairs = zip(plain.state_dict().values(), compiled.state_dict().values(), strict=True)
        differences += [float((a - b).abs().max()) for a, b in pairs]
    return max(differences)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_under_spectral_norm(layout: Any) -> None:
    """Not computed again from vectors that the forward pass has moved on: by inductor itself they were off by 0.07."""
    torch.manual_seed(0)
    conv = SpectralConv2d(3, 4, 3, padding=1).double().to(memory_format=layout)
    assert largest_difference(conv, as_inductor, torch.randn(2, 3, 8, 8).double()) < 1e-12


@pytest.mark.parametrize(("shape", "padding"), [((5, 4), (1, 1, 1, 1)), ((2, 3), (0, 2, 3, 1)), ((1, 1), (1, 1, 2, 0))])
def test_gradients_of_replicated_borders(shape: tuple[int, int], padding: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *shape, dtype=torch.float64, requires_grad=True)
    out = F.pad(x, padding, mode="replicate")
    grad = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, x, grad)
    assert torch.allclose(replication_gradient(grad, x, padding), expected, rtol=1e-12, atol=0)


@NO_COMPILER
def test_replicated_borders_under_inductor() -> None:
    """It generates their gradient itself: PyTorch's own came in another order in memory than inductor expects."""
    net = nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate").double()
    maps = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert largest_difference(net, "inductor", maps.to(memory_format=torch.channels_last)) < 1e-12


@NO_COMPILER
def test_a_discriminator_under_inductor() -> None:
    torch.manual_seed(0)
    net = PatchDiscriminator(3, ndf=2, num_layers=2).double()
    assert largest_difference(net, "inductor", torch.randn(2, 3, 8, 8).double()) < 1e-12


def trained(line: str, root: Path, backend: str | None) -> BaseModel:
    """Return a method's model after two steps by plain gradients: Adam would turn their rounding into whole steps."""
    name, *flags = line.split()
    root.mkdir()
    run = rehearse(name, root, *flags)
    model, world = run.model, Distributed()
    for key, value in list(vars(model).items()):
        if isinstance(value, torch.optim.Optimizer):
            parameters = [p for group in value.param_groups for p in group["params"]]
            setattr(model, key, torch.optim.SGD(parameters, lr=1e-3))
    settings = TrainerSettings(max_steps=2)
    settings.set_up(model, world.device)
    if backend is not None:
        names = [list(net) for net in model.state().values()]
        model.compile("default", backend=backend)
        assert [list(net) for net in model.state().values()] == names
    step = Step(model, world=world, guard=UpdateGuard(model, world), settings=settings)
    for number in range(2):
        step.make([on_host(run.batches[0])], number)
    return model


@pytest.mark.parametrize(
    "line",
    ["spmpgan --no-multi_scale", "siedob_style", "semia --lambda_gan 0 --lambda_feat 0 --rec_every 1", "s2prest"],
)
def test_methods_train_as_without(line: str, tmp_path: Path) -> None:
    if line == "s2prest":
        pytest.importorskip("diffusers", reason="requirements-diffusion.txt is not installed")
    plain, compiled = (trained(line, tmp_path / str(backend), backend) for backend in (None, "eager"))
    counted = torch._dynamo.utils.counters
    assert counted["stats"]["unique_graphs"] >= 1 and not counted["graph_break"]
    for net, tensors in plain.state().items():
        for key, value in tensors.items():
            assert torch.allclose(value, compiled.state()[net][key], rtol=1e-4, atol=1e-5), f"{net}.{key}"


def test_discriminators_under_r1_are_left_as_they_are() -> None:
    tiny = "--name run --model spmpgan --crop_size 64 --ngf 2 --ndf 2 --lambda_vgg 0".split()
    for flags, count in (([], 2), (["--r1_gamma", "1"], 1)):
        model = SPMPGANModel.from_options(TrainOptions().parse([*tiny, *flags]), is_train=True)
        assert len(model.compiled_parts()) == count


def test_graphs_are_asked_for_by_options_that_inductor_has() -> None:
    asked = []

    def backend(graph: Any, inputs: Any, *, options: dict[str, Any]) -> Any:
        asked.append(options)
        return graph

    net = nn.Linear(2, 2)
    compile_in_place(net, GRAPHS, backend)
    with uncompiled(GRAPHS):
        net(torch.ones(1, 2))
    assert not asked
    with compiled_step(GRAPHS):
        net(torch.ones(1, 2))
    (options,) = asked
    assert options["triton.cudagraphs"]
    assert options.keys() <= torch._inductor.config.get_config_copy().keys()


def test_what_cannot_be_compiled_is_told() -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    net = nn.Linear(2, 2)
    compile_in_place(net, "default", backend)
    with pytest.raises(UserError, match=r"--compile default: .* train without the flag"), compiled_step("default"):
        net(torch.ones(1, 2))


def test_the_flag_reaches_the_run_and_can_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    modes: list[str] = []
    monkeypatch.setattr(BaseModel, "compile", lambda model, mode: modes.append(mode))
    where = ["--checkpoints_dir", str(tmp_path), "--name", "run"]
    line = [*SIEDOBInpaintModel.tiny(tmp_path), *where, *"--num_workers 0 --image_every 0 --device cpu".split()]
    assert train_command.main([*line, "--max_steps", "1", "--compile", "default", "--no-tensorboard"]) == 0
    assert train_command.main([*where, "--continue_train", "--max_steps", "2", "--compile", "none"]) == 0
    assert modes == ["default", "none"]
    assert "compile: default -> none; the run will differ" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "flags", "part"),
    [
        (SIEDOBInpaintModel, "--compile default --checkpoint_activations", "leave one of them out"),
        (SIEDOBInpaintModel, "--channels_last", "methods that do: divsem, semia, spmpgan"),
    ],
)
def test_what_does_not_go_together_is_refused(model: type[BaseModel], flags: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=part):
        TrainOptions().parse([*model.tiny(tmp_path), "--name", "run", *flags.split()])
