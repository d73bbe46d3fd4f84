"""The style embedding network of InST (arXiv 2211.13203), which S2PreST trains: CLIP's image embedding -> one token.

Two attention layers and a linear one, with the parameter names of the release (`ldm/modules/embedding_manager.py`).
With one token the softmax is over a single key, so the network is the affine map net(out2(v2(e))): the first layer,
queries and keys have no influence and no gradient. They are kept so that the authors' files fit.

Shapes: B pictures, T tokens (1 in use), D width of the embedding and of the token.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

DROPOUT = 0.05
DROPOUTS = 3  # places: after either attention, before the last layer


class CrossAttention(nn.Module):
    """Multi-head attention: no bias in q, k, v; a bias in the output."""

    def __init__(self, *, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads, inner = heads, heads * dim_head
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(dim, inner, bias=False)
        self.to_v = nn.Linear(dim, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, dim))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return (B, T, D) of queries x (B, T, D) over context (B, T, D)."""
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for y in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        # Plain, not fused: over one key the softmax's gradient is then exactly 0, not rounding.
        shares = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        return self.to_out((shares @ v).transpose(1, 2).flatten(2))


class StyleAttention(nn.Module):
    """Image embedding -> placeholder token."""

    def __init__(self, *, dim: int = 768, heads: int = 8, dim_head: int = 64) -> None:
        super().__init__()
        self.dim = dim
        self.attn1 = CrossAttention(dim=dim, heads=heads, dim_head=dim_head)
        self.attn2 = CrossAttention(dim=dim, heads=heads, dim_head=dim_head)
        self.net = nn.Sequential(OrderedDict({"1": nn.Linear(dim, dim)}))

    def forward(self, embedding: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return tokens (B, T, D).

        Args:
            embedding: (B, T, D).
            keep: factors (B, 3, D) of the dropout at its three places, from `dropout_factors`; None: no dropout.
        """
        first, second, last = (1.0, 1.0, 1.0) if keep is None else keep[:, :, None].unbind(1)
        x = self.attn1(embedding, embedding) * first
        x = self.attn2(x, embedding) * second
        return self.net(x * last)


def dropout_factors(dim: int, p: float, generator: torch.Generator) -> Tensor:
    """Draw (3, D) factors: 0 with probability p, else 1 / (1 - p)."""
    drawn = torch.rand(DROPOUTS, dim, generator=generator)
    return (drawn >= p).float() / (1 - p)
