"""Initialisation of the GAN methods."""

from __future__ import annotations

from torch import nn

from models.networks.blocks.spectral import SpectralConv2d


def init_normal(net: nn.Module, *, std: float = 0.02) -> None:
    """Set the weights of convolutions and linear layers to N(0, std), their biases to zero (SPMPGAN's release)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | SpectralConv2d):
            weight = module.weight_orig if isinstance(module, SpectralConv2d) else module.weight
            nn.init.normal_(weight, 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
