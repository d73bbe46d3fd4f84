"""Exponential moving average of weights, for generation and testing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Averages of the parameters of some networks; buffers are copied, since they are statistics, not weights.

    Args:
        networks: the trained networks by name.
        decay: weight of the old average, in [0, 1); the average begins as the networks' present state.
    """

    def __init__(self, networks: Mapping[str, nn.Module], *, decay: float) -> None:
        self.networks, self.decay = dict(networks), decay
        self._shadow = {name: _copy(net.state_dict()) for name, net in self.networks.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the present weights; call after every step.

        All parameters are updated at once: on a GPU, one launch per parameter costs more than the arithmetic.
        """
        averages, weights = [], []
        for name, net in self.networks.items():
            parameters = dict(net.named_parameters())
            for key, value in net.state_dict().items():
                if key in parameters:
                    averages.append(self._shadow[name][key])
                    weights.append(value)
                else:
                    self._shadow[name][key].copy_(value)
        torch._foreach_lerp_(averages, weights, 1 - self.decay)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """State dicts by network, in the layout of `BaseModel.state`, so that a model loads them as weights."""
        return self._shadow

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Load `state()`; strict."""
        for name, shadow in self._shadow.items():
            if shadow.keys() != state[name].keys():
                raise KeyError(f"the average of {name} has other tensors: {sorted(shadow.keys() ^ state[name].keys())}")
            for key, value in shadow.items():
                value.copy_(state[name][key])

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Let the networks hold their averages within the block; their own state is restored bit for bit."""
        trained = {name: _copy(net.state_dict()) for name, net in self.networks.items()}
        try:
            self._load(self._shadow)
            yield
        finally:
            self._load(trained)

    def _load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        for name, net in self.networks.items():
            net.load_state_dict(state[name])


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}
