"""Graphs of a run's generator for scripts/export.py, checked against the network that they are of."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.networks.cascade.graph import FillGraph, exported
from models.networks.cascade.stages import CascadeGenerator
from util.errors import UserError

TOLERANCE = 1e-4  # of values in [-1, 1]
INSTANCES = (5, 9)  # of the inputs that graphs are checked with


def write_graphs(model: Any, folder: Path, kinds: Sequence[str]) -> dict[str, float]:
    """Write `generator.<kind>` for each kind and return the largest difference from the network's pictures by kind.

    Raises:
        UserError: the method's generator is none of one graph, a package is missing, or a graph is not equal.
    """
    if not kinds:
        return {}
    net = getattr(model, "netG", None)
    if not isinstance(net, CascadeGenerator):
        raise UserError(f"--graph {' '.join(kinds)}: only for divsem, spmpgan and methods that vary them: others cut "
                        "objects out of the picture between their networks")  # fmt: skip
    graph = FillGraph(net.cpu()).eval()
    program = exported(graph)
    differences = {}
    for kind in kinds:
        path = folder / f"generator.{kind}"
        run = to_onnx(program, graph.inputs, path) if kind == "onnx" else to_pt2(program, path)
        differences[kind] = max(difference(graph, run, instances) for instances in INSTANCES)
        if not differences[kind] <= TOLERANCE:
            raise UserError(f"{path}: its pictures differ from the network's by {differences[kind]:.1e}; not usable")
    return differences


@torch.no_grad()
def difference(graph: FillGraph, run: Callable[..., Tensor], instances: int) -> float:
    """Return the largest difference between pictures of a network and of its graph."""
    inputs = graph.example(instances, seed=1)
    return float((run(*inputs) - graph(*inputs)).abs().max())


def to_pt2(program: torch.export.ExportedProgram, path: Path) -> Callable[..., Tensor]:
    """Write the program for `torch.export.load`, and return it as a function."""
    torch.export.save(program, path)
    run: Callable[..., Tensor] = torch.export.load(path).module()
    return run


def to_onnx(program: torch.export.ExportedProgram, inputs: Sequence[str], path: Path) -> Callable[..., Tensor]:
    """Write the program for onnxruntime, and return its session as a function."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch.onnx needs it)
    except ImportError as error:
        raise UserError(f"--graph onnx needs `pip install -r requirements-onnx.txt` ({error})") from error
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # a line for each operation that it does not fold
    with contextlib.redirect_stdout(io.StringIO()):
        onnx = torch.onnx.export(program, dynamo=True, input_names=list(inputs), output_names=["picture"])
    assert onnx is not None
    onnx.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(*values: Tensor) -> Tensor:
        feed = {name: value.numpy() for name, value in zip(inputs, values, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return run
