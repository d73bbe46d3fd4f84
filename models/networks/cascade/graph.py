"""The generator as a graph of fixed size that needs no Python: for `torch.export` and ONNX."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.networks.cascade.stages import CascadeGenerator

MOST_INSTANCES = 4096
STYLED, PLAIN = ("image", "seg", "edge", "mask", "inst", "codes"), ("image", "seg", "edge", "mask")


class FillGraph(nn.Module):
    """A `CascadeGenerator` whose one output is the filled picture (1, 3, S, S) in [-1, 1].

    Inputs, all float32 but `inst`: image (1, 3, S, S) in [-1, 1]; seg (1, N, S, S) one-hot and edge (1, 1, S, S), both
    zero outside the mask; mask (1, 1, S, S), 1 = generated. With styles also inst (1, S, S) int64 with ids below I, and
    codes (1, I, D) for the instances of which nothing is visible; rows of others are not read.
    """

    def __init__(self, net: CascadeGenerator) -> None:
        super().__init__()
        self.net = net

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs in their order."""
        return PLAIN if self.net.style_encoder is None else STYLED

    def forward(
        self, image: Tensor, seg: Tensor, edge: Tensor, mask: Tensor, inst: Tensor | None = None,
        codes: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """See the class."""
        count = 0 if codes is None else codes.shape[1]
        return self.net(image, seg, edge, mask, inst, count, codes).composite[-1]

    def example(self, instances: int, *, seed: int = 0) -> tuple[Tensor, ...]:
        """Return random inputs with so many instances, of which the last is erased."""
        net, rng = self.net, torch.Generator().manual_seed(seed)
        size = net.crop_size
        mask = torch.zeros(1, 1, size, size)
        mask[..., size // 4 : size // 2, size // 4 : size // 2] = 1
        label = torch.randint(net.label_nc, (1, size, size), generator=rng)
        seg = nn.functional.one_hot(label, net.label_nc).movedim(-1, 1).float() * mask
        edge = torch.randint(2, (1, 1, size, size), generator=rng).float() * mask
        image = torch.rand(1, 3, size, size, generator=rng) * 2 - 1
        if net.style_encoder is None:
            return image, seg, edge, mask
        inst = torch.randint(instances - 1, (1, size, size), generator=rng)
        inst[mask[:, 0] > 0] = instances - 1
        return image, seg, edge, mask, inst, torch.randn(1, instances, net.style_dim, generator=rng)


def exported(graph: FillGraph) -> torch.export.ExportedProgram:
    """Return the program of a graph; its number of instances may be any from 2 to `MOST_INSTANCES`."""
    shapes = dict.fromkeys(graph.inputs)
    if "codes" in shapes:
        shapes["codes"] = {1: torch.export.Dim("instances", min=2, max=MOST_INSTANCES)}
    return torch.export.export(graph.eval(), graph.example(5), dynamic_shapes=shapes)
